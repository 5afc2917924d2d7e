"""What the command asks for, apart from what measures it: help loads this alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SECTIONS = {
    'engine': 'engines.measure_engines',
    'scaling': 'engines.measure_scaling',
    'peers': 'engines.measure_peers',
    'training': 'training.measure_training',
    'node': 'node.measure_node',
}
"""Each with its function; what it needs is imported when it runs."""
ALL = 'all'


@dataclass(frozen=True)
class Options:
    """
    What is measured, and for how long.

    :param bundle: name or folder.
    :param repeats: how often everything is measured over again.
    :param calls: timed calls per repeat, of ticks and stages.
    :param seconds: of each count of lost images.
    :param threads: of the engines.
    :param counts: numbers of modalities of the section ``scaling``.
    :param batches: sizes of the batches whose throughput is measured.
    :param config: training configuration of the section ``training``.
    :param peers: Python of the environment in which MultiVae is installed.
    """

    bundle: str = 'mhd'
    repeats: int = 10
    calls: int = 100
    seconds: float = 120.0
    threads: tuple[int, ...] = (1, 2)
    counts: tuple[int, ...] = (2, 4, 8, 16, 32)
    batches: tuple[int, ...] = (1, 4, 16, 64, 256)
    config: Path = Path('config/mhd.yaml')
    peers: Path = Path('checks/peers/.venv/bin/python')
