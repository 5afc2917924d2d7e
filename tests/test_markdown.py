"""Tables of Markdown."""

from mm_perception.markdown import markdown_table


def test_table_has_a_line_per_row_and_escapes_bars() -> None:
    assert markdown_table(['model', 'p(a | b)'], [('x', 1.5), ['y', '']]) == [
        '| model | p(a \\| b) |',
        '|---|---|',
        '| x | 1.5 |',
        '| y |  |',
    ]


def test_table_without_rows_keeps_its_head() -> None:
    assert markdown_table(['a'], []) == ['| a |', '|---|']
