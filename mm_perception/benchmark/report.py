"""The tables of a benchmark, in Markdown, and where they stand in a document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mm_perception.benchmark.rows import Row, read_row
from mm_perception.benchmark.targets import TARGETS, Target, figure_of
from mm_perception.errors import DataError

BEGIN = '<!-- written by mm-perception benchmark: begin -->'
END = '<!-- written by mm-perception benchmark: end -->'
Rows = Sequence[Row]
Label = Callable[[Row], str]


def write_markdown(file: Path, text: str) -> None:
    """
    Write the tables: between the marks of a document that has them, else as the whole file.

    :raises DataError: if the file cannot be read or written.
    """
    try:
        old = file.read_text(encoding='utf-8') if file.is_file() else ''
        if BEGIN in old and END in old:
            before, after = old.split(BEGIN)[0], old.split(END)[1]
            text = f'{before}{BEGIN}\n\n{text}\n{END}{after}'
        file.write_text(text, encoding='utf-8')
    except OSError as error:
        raise DataError(f'{file}: cannot be written ({error.strerror})') from error


def markdown(content: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """
    All tables of a run.

    :param content: as in the JSON file.
    :param pictures: title and path of each, from where the text will stand.
    """
    rows = [read_row(plain) for plain in content['rows']]
    measured = [target for target in TARGETS if target.section in content['seconds']]
    lines = [*_circumstances(content), '', '### Targets', '', *_targets(measured, rows)]
    for section, tables in TABLES.items():
        chosen = [row for row in rows if row.section == section]
        if chosen:
            lines += ['', f'### {section.capitalize()}']
            for table in tables:
                lines += ['', *table(chosen)]
    for title, path in pictures.items():
        lines += ['', f'![{title}]({path})']
    if content['notes']:
        lines += ['', 'Not measured:', '', *(f'- {note}' for note in content['notes'])]
    return '\n'.join(lines) + '\n'


def _circumstances(content: Mapping[str, Any]) -> list[str]:
    machine, settings = content['machine'], content['settings']
    versions = ', '.join(f'{name} {v}' for name, v in content['versions'].items())
    minutes = sum(content['seconds'].values()) / 60
    before, after = machine['load_average'][0], machine['load_average_after'][0]
    return [
        f'{machine["cpu"]}, {machine["cores"]} cores, {machine["memory_gb"]} GB,'
        f' {machine["system"]}; load average before {before}, after {after}. {versions}.'
        f' Bundle `{settings["bundle"]}`, {settings["repeats"]} repeats of {settings["calls"]}'
        f' calls, {settings["seconds"]:g} s per count of images; {minutes:.0f} min in all.',
    ]


def _targets(targets: Sequence[Target], rows: Rows) -> list[str]:
    lines = ['| figure | target | measured | lowest, highest repeat | |', '|---|---|---|---|---|']
    for target in targets:
        row = target.find(rows)
        sign = '>=' if target.at_least else '<='
        limit = f'{sign} {number(target.limit)} {target.unit}'.rstrip()
        lines.append(f'| {target.what} | {limit} | {" | ".join(_reached(target, row))} |')
    return lines


def _reached(target: Target, row: Row | None) -> tuple[str, str, str]:
    if row is None:
        return 'not measured', '', ''
    verdict = 'met' if target.met(row) else '**missed**'
    return f'{number(figure_of(row))} {target.unit}'.rstrip(), spread(row), verdict


def number(value: float) -> str:
    """Three digits that count; all digits of large figures."""
    return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.3g}'


def spread(row: Row) -> str:
    """Lowest and highest repeat."""
    if row.spread is None or row.repeats < 2:
        return ''
    return ', '.join(number(value) for value in row.spread)


def pivot(rows: Rows, head: str, line: Label, column: Label, cell: Label) -> list[str]:
    """A table of rows: ``line`` and ``column`` say where the ``cell`` of each stands."""
    columns = list(dict.fromkeys(map(column, rows)))
    cells = {(line(row), column(row)): cell(row) for row in rows}
    lines = [f'| {" | ".join([head, *columns])} |', '|---' * (len(columns) + 1) + '|']
    for name in dict.fromkeys(map(line, rows)):
        lines.append(f'| {" | ".join([name, *(cells.get((name, c), "") for c in columns)])} |')
    return lines


def _latency(row: Row) -> str:
    assert row.p50_ms is not None and row.p99_ms is not None
    return f'{number(row.p50_ms)} / {number(row.p99_ms)}'


def _figure(row: Row) -> str:
    return f'{number(figure_of(row))} {row.unit}'.rstrip()


def _engine(row: Row) -> str:
    plural = '' if row.threads == 1 else 's'
    return f'{row.engine}, {row.threads} thread{plural}' if row.threads else row.engine


def _present(row: Row) -> str:
    return f'{row.case.replace("_", " ")}, {row.modalities} present'


def _ticks(rows: Rows) -> list[str]:
    chosen = [row for row in rows if row.case.endswith('_tick')]
    return pivot(chosen, 'p50 / p99, ms', _present, _engine, _latency)


def _stages(rows: Rows) -> list[str]:
    chosen = [row for row in rows if row.case.startswith('stage:')]
    return pivot(chosen, 'p50 / p99, ms', lambda r: f'`{r.case}`', _engine, _latency)


def _throughput(rows: Rows) -> list[str]:
    chosen = [row for row in rows if row.case.startswith('throughput')]
    return pivot(chosen, 'samples/s', lambda r: f'batch {r.case.split("_")[-1]}', _engine, _plain)


def _plain(row: Row) -> str:
    return number(figure_of(row))


def _scaling(rows: Rows) -> list[str]:
    chosen = [row for row in rows if row.p50_ms is not None]
    column: Label = lambda r: f'{r.case.replace("_", " ")}, {_engine(r)}'  # noqa: E731
    return pivot(chosen, 'modalities', lambda r: str(r.modalities), column, _latency)


def _training(rows: Rows) -> list[str]:
    def batch(row: Row) -> str:
        return f'batch {row.case.rsplit("_", 1)[1]}, {_engine(row)}'

    chosen = sorted(rows, key=lambda row: int(row.case.rsplit('_', 1)[1]))
    return pivot(chosen, 'samples/s', lambda r: r.case.rsplit('_batch_', 1)[0], batch, _plain)


def _latencies(rows: Rows) -> list[str]:
    lines = ['| latency | p50 / p99, ms | lowest, highest median |', '|---|---|---|']
    for row in rows:
        if row.p50_ms is not None:
            lines.append(f'| `{row.case}`, {_engine(row)} | {_latency(row)} | {spread(row)} |')
    return lines


def _others(rows: Rows) -> list[str]:
    lines = ['| case | engine | value | lowest, highest repeat |', '|---|---|---|---|']
    for row in rows:
        if row.p50_ms is None:
            lines.append(f'| `{row.case}` | {_engine(row)} | {_figure(row)} | {spread(row)} |')
    return lines


TABLES: Mapping[str, tuple[Callable[[Rows], list[str]], ...]] = {
    'engine': (_ticks, _stages, _throughput),
    'peers': (_latencies, _others),
    'node': (_latencies, _others),
    'scaling': (_scaling,),
    'training': (_training,),
}
"""Tables of each section."""
