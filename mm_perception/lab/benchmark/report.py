"""Tables of a benchmark as Markdown, and the targets that are held against it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_perception.errors import DataError
from mm_perception.lab.benchmark.measurements import Measurement, read_measurement

GPU_GRAPH = 'torch-cuda-graph'
TOP_STAGE = 'top_batch_512'  # of config/mhd.yaml


@dataclass(frozen=True)
class Limit:
    """
    A limit for one figure: the row's value, or its ``p50_ms``.

    :param threads: of the row; None for any.
    :param at_least: whether more is better.
    """

    what: str
    limit: float
    section: str
    case: str
    engine: str = ''
    threads: int | None = None
    at_least: bool = False
    unit: str = ''

    def find(self, rows: Sequence[Measurement]) -> Measurement | None:
        """The row that it is about, with the most modalities; None if nothing was measured."""
        found = [
            row
            for row in rows
            if (row.section, row.case) == (self.section, self.case)
            and self.engine in ('', row.engine)
            and self.threads in (None, row.threads)
        ]
        return max(found, key=lambda row: row.modalities, default=None)

    def met(self, row: Measurement) -> bool:
        """Whether a row reaches it."""
        return row.main >= self.limit if self.at_least else row.main <= self.limit


_TICK = 'whole tick, all modalities new and decoded'
TARGETS = (
    Limit(
        f'{_TICK}, `onnx`, 2 threads: torch takes so many times longer',
        *(6.0, 'engine', 'torch_over_this', 'onnx', 2, True),
    ),
    Limit('its p99 over its p50', 2.0, 'engine', 'p99_over_p50', 'onnx', 2),
    Limit(
        'one new, one missing decoded, over the whole tick',
        *(1 / 3, 'engine', 'typical_over_full', 'onnx', 2),
    ),
    Limit(
        f'{_TICK}: MultiVae takes so many times longer, p50',
        *(12.0, 'peers', 'multivae_over_this', 'onnx', 2, True),
    ),
    Limit('the same, p99', 50.0, 'peers', 'multivae_over_this:p99', 'onnx', 2, True),
    Limit(
        'camera image published to latent, over an echo of the image: p50',
        *(2.0, 'node', 'end_to_end_over_bare_echo:p50'),
    ),
    Limit('the same of the camera image, p99', 3.0, 'node', 'end_to_end_over_bare_echo:p99'),
    Limit('images lost at 30 Hz, both reliabilities', 0.0, 'node', 'images_lost', unit='images'),
    Limit(
        'CPU of the node, 30 fusions per second',
        *(50.0, 'node', 'cpu_percent'),
        unit='% of a core',
    ),
    Limit('its memory with `onnx`', 300.0, 'node', 'memory', 'onnx', unit='MB'),
    Limit('its memory with torch', 800.0, 'node', 'memory', 'torch', unit='MB'),
    Limit('growth of its memory after warm-up', 5.0, 'node', 'memory_growth', unit='MB'),
    Limit('start of the process to first latent', 3.0, 'node', 'first_latent', unit='s'),
    Limit(
        'whole tick, 32 modalities over 4',
        *(8.0, 'scaling', 'full_tick:32_over_4', 'onnx'),
    ),
    Limit(
        'one new of all, one decoded, 32 modalities over 4',
        *(2.0, 'scaling', 'one_new_tick:32_over_4', 'onnx'),
    ),
    Limit(f'{_TICK}, CUDA graph', 0.15, 'engine', 'full_tick', GPU_GRAPH, unit='ms'),
    Limit(
        'the same: eager on that GPU takes so many times longer',
        *(10.0, 'engine', 'torch_over_this', GPU_GRAPH, None, True),
    ),
    Limit(
        'training of the top level on a GPU',
        *(1e5, 'training', TOP_STAGE, 'torch-cuda', None, True),
        unit='samples/s',
    ),
)
BEGIN = '<!-- written by mm-perception benchmark: begin -->'
END = '<!-- written by mm-perception benchmark: end -->'
Rows = Sequence[Measurement]
Label = Callable[[Measurement], str]


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
    rows = [read_measurement(plain) for plain in content['rows']]
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


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    head, *lines = (f'| {" | ".join(cells)} |' for cells in (heads, *rows))
    return [head, '|---' * len(heads) + '|', *lines]


def _targets(targets: Sequence[Limit], rows: Rows) -> list[str]:
    found = [(target, target.find(rows)) for target in targets]
    return table(
        ['figure', 'target', 'measured', 'lowest, highest repeat', 'verdict'],
        [[target.what, _limit(target), *_reached(target, row)] for target, row in found],
    )


def _limit(target: Limit) -> str:
    sign = '>=' if target.at_least else '<='
    return f'{sign} {number(target.limit)} {target.unit}'.rstrip()


def _reached(target: Limit, row: Measurement | None) -> tuple[str, str, str]:
    if row is None:
        return 'not measured', '', ''
    verdict = 'met' if target.met(row) else '**missed**'
    return f'{number(row.main)} {target.unit}'.rstrip(), spread(row), verdict


def number(value: float) -> str:
    """Three digits that count; all digits of large figures."""
    return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.3g}'


def spread(row: Measurement) -> str:
    """Lowest and highest repeat."""
    if row.spread is None or row.repeats < 2:
        return ''
    return ', '.join(number(value) for value in row.spread)


def pivot(rows: Rows, head: str, line: Label, column: Label, cell: Label) -> list[str]:
    """A table of rows: ``line`` and ``column`` say where the ``cell`` of each stands."""
    columns = list(dict.fromkeys(map(column, rows)))
    cells = {(line(row), column(row)): cell(row) for row in rows}
    lines = dict.fromkeys(map(line, rows))
    return table([head, *columns], [[n, *(cells.get((n, c), '') for c in columns)] for n in lines])


def _latency(row: Measurement) -> str:
    assert row.p50_ms is not None and row.p99_ms is not None
    return f'{number(row.p50_ms)} / {number(row.p99_ms)}'


def _engine(row: Measurement) -> str:
    plural = '' if row.threads == 1 else 's'
    return f'{row.engine}, {row.threads} thread{plural}' if row.threads else row.engine


def _present(row: Measurement) -> str:
    return f'{row.case.replace("_", " ")}, {row.modalities} present'


def _ticks(rows: Rows) -> list[str]:
    chosen = [row for row in rows if row.case.endswith('_tick')]
    return pivot(chosen, 'p50 / p99, ms', _present, _engine, _latency)


def _stages(rows: Rows) -> list[str]:
    chosen = [row for row in rows if row.case.startswith('stage:')]
    return pivot(chosen, 'p50 / p99, ms', lambda r: f'`{r.case}`', _engine, _latency)


def _throughput(rows: Rows) -> list[str]:
    chosen = [row for row in rows if row.case.startswith('throughput')]
    return pivot(chosen, 'samples/s', _of_batch, _engine, _plain)


def _of_batch(row: Measurement) -> str:
    return row.case.removeprefix('throughput_').replace('_', ' ')


def _plain(row: Measurement) -> str:
    return number(row.main)


def _scaling(rows: Rows) -> list[str]:
    chosen = [row for row in rows if row.p50_ms is not None]
    column: Label = lambda r: f'{r.case.replace("_", " ")}, {_engine(r)}'  # noqa: E731
    return pivot(chosen, 'modalities', lambda r: str(r.modalities), column, _latency)


def _training(rows: Rows) -> list[str]:
    def batch(row: Measurement) -> str:
        return f'batch {row.case.rsplit("_", 1)[1]}, {_engine(row)}'

    chosen = sorted(rows, key=lambda row: int(row.case.rsplit('_', 1)[1]))
    return pivot(chosen, 'samples/s', lambda r: r.case.rsplit('_batch_', 1)[0], batch, _plain)


def _latencies(rows: Rows) -> list[str]:
    return table(
        ['latency', 'p50 / p99, ms', 'lowest, highest median'],
        [
            [f'`{row.case}`, {_engine(row)}', _latency(row), spread(row)]
            for row in rows
            if row.p50_ms is not None
        ],
    )


def _others(rows: Rows) -> list[str]:
    return table(
        ['case', 'engine', 'value', 'lowest, highest repeat'],
        [
            [f'`{row.case}`', _engine(row), f'{number(row.main)} {row.unit}'.rstrip(), spread(row)]
            for row in rows
            if row.p50_ms is None
        ],
    )


TABLES: Mapping[str, tuple[Callable[[Rows], list[str]], ...]] = {
    'engine': (_ticks, _stages, _throughput),
    'peers': (_latencies, _others),
    'node': (_latencies, _others),
    'scaling': (_scaling,),
    'training': (_training,),
}
"""Tables of each section."""
