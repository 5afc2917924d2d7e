"""What the figures are to reach, and which of them do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mm_perception.benchmark.rows import Row

GPU_GRAPH = 'torch-cuda-graph'
TOP_STAGE = 'top_batch_512'  # of config/mhd.yaml


@dataclass(frozen=True)
class Target:
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

    def find(self, rows: Sequence[Row]) -> Row | None:
        """The row that it is about, with the most modalities; None if nothing was measured."""
        found = [
            row
            for row in rows
            if (row.section, row.case) == (self.section, self.case)
            and self.engine in ('', row.engine)
            and self.threads in (None, row.threads)
        ]
        return max(found, key=lambda row: row.modalities, default=None)

    def met(self, row: Row) -> bool:
        """Whether a row reaches it."""
        figure = figure_of(row)
        return figure >= self.limit if self.at_least else figure <= self.limit


def figure_of(row: Row) -> float:
    """The figure that a target is about."""
    figure = row.value if row.p50_ms is None else row.p50_ms
    assert figure is not None
    return figure


_TICK = 'whole tick, all modalities new and decoded'
TARGETS = (
    Target(
        f'{_TICK}, `onnx`, 2 threads: torch takes so many times longer',
        *(6.0, 'engine', 'torch_over_this', 'onnx', 2, True),
    ),
    Target('its p99 over its p50', 2.0, 'engine', 'p99_over_p50', 'onnx', 2),
    Target(
        'one new, one missing decoded, over the whole tick',
        *(1 / 3, 'engine', 'typical_over_full', 'onnx', 2),
    ),
    Target(
        f'{_TICK}: MultiVae takes so many times longer, p50',
        *(12.0, 'peers', 'multivae_over_this', 'onnx', 2, True),
    ),
    Target('the same, p99', 50.0, 'peers', 'multivae_over_this:p99', 'onnx', 2, True),
    Target(
        'camera image published to latent, over an echo of the image: p50',
        *(2.0, 'node', 'end_to_end_over_bare_echo:p50'),
    ),
    Target('the same of the camera image, p99', 3.0, 'node', 'end_to_end_over_bare_echo:p99'),
    Target('images lost at 30 Hz, both reliabilities', 0.0, 'node', 'images_lost', unit='images'),
    Target(
        'CPU of the node, 30 fusions per second',
        *(50.0, 'node', 'cpu_percent'),
        unit='% of a core',
    ),
    Target('its memory with `onnx`', 300.0, 'node', 'memory', 'onnx', unit='MB'),
    Target('its memory with torch', 800.0, 'node', 'memory', 'torch', unit='MB'),
    Target('growth of its memory after warm-up', 5.0, 'node', 'memory_growth', unit='MB'),
    Target('start of the process to first latent', 3.0, 'node', 'first_latent', unit='s'),
    Target(
        'whole tick, 32 modalities over 4',
        *(8.0, 'scaling', 'full_tick:32_over_4', 'onnx'),
    ),
    Target(
        'one new of all, one decoded, 32 modalities over 4',
        *(2.0, 'scaling', 'one_new_tick:32_over_4', 'onnx'),
    ),
    Target(f'{_TICK}, CUDA graph', 0.15, 'engine', 'full_tick', GPU_GRAPH, unit='ms'),
    Target(
        'the same: eager on that GPU takes so many times longer',
        *(10.0, 'engine', 'torch_over_this', GPU_GRAPH, None, True),
    ),
    Target(
        'training of the top level on a GPU',
        *(1e5, 'training', TOP_STAGE, 'torch-cuda', None, True),
        unit='samples/s',
    ),
)
