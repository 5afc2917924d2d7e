"""The arithmetic of the benchmark on known durations; its tables and targets on known rows."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_perception.lab.benchmark.engines import growth_ratios, peer_ratios, tick_ratios
from mm_perception.lab.benchmark.measurements import (
    Case,
    Measurement,
    clocked,
    figure,
    interleave,
    latency,
    ratio,
    read_measurement,
)
from mm_perception.lab.benchmark.node import END_TO_END, latency_rows, over_both
from mm_perception.lab.benchmark.remote import BenchmarkFailed
from mm_perception.lab.benchmark.report import BEGIN, END, TARGETS, markdown, write_markdown

CASE = Case('full_tick', 'onnx', 2, 4)
SPEEDS = np.array([[1.0], [2.0], [1.5]])  # of a machine that is slower for a while


def steady(duration_ms: float, calls: int = 100) -> np.ndarray:
    """Durations of a machine whose speed drifts from repeat to repeat."""
    return duration_ms * SPEEDS * np.ones((1, calls))


def row_of(rows: list[Measurement], case: str, engine: str = 'onnx') -> Measurement:
    found = [row for row in rows if (row.case, row.engine) == (case, engine)]
    assert len(found) == 1, [row.key for row in rows]
    return found[0]


def test_figures_latency_is_of_all_calls_and_its_spread_that_of_repeats() -> None:
    repeats = np.tile(np.arange(1.0, 101.0), (2, 1))
    repeats[1] += 100.0
    row = latency(CASE, repeats, distribution=True)
    assert (row.p50_ms, row.p99_ms) == pytest.approx((100.5, np.percentile(repeats, 99)), rel=1e-4)
    assert row.spread == (50.5, 150.5)
    assert row.repeats == 2
    assert row.percentiles_ms is not None
    assert len(row.percentiles_ms) == 101
    assert row.percentiles_ms[0] == 1.0
    assert row.percentiles_ms[100] == 200.0


def test_figures_ratio_does_not_see_a_drifting_machine() -> None:
    row = ratio(CASE, steady(6.0), steady(1.0))
    assert (row.value, row.spread, row.unit, row.repeats) == (6.0, (6.0, 6.0), 'ratio', 3)


def test_figures_ratio_takes_repeats_of_different_lengths() -> None:
    over, under = [np.full(3, 4.0), np.full(5, 9.0)], [np.full(7, 2.0), np.full(2, 3.0)]
    assert ratio(CASE, over, under).spread == (2.0, 3.0)


def test_figures_of_ticks_compare_with_the_fastest_reference() -> None:
    ticks = {
        CASE: steady(1.0),
        CASE._replace(case='typical_tick', modalities=3): steady(0.25),
        Case('full_tick', 'torch', 1, 4): steady(5.0),
        Case('full_tick', 'torch', 2, 4): steady(8.0),
        Case('full_tick', 'torch', 2, 1): steady(2.0),
    }
    rows = tick_ratios(ticks)
    assert row_of(rows, 'torch_over_this').value == 5.0
    assert row_of(rows, 'typical_over_full').value == 0.25
    assert row_of(rows, 'p99_over_p50').value == 1.0
    assert not [r for r in rows if r.case == 'torch_over_this' and r.engine == 'torch']


def test_figures_of_ticks_on_a_gpu_compare_with_eager_on_the_gpu() -> None:
    names = {'torch': 5.0, 'torch-cuda': 2.0, 'torch-cuda-graph': 0.1}
    rows = tick_ratios({Case('full_tick', n, 1, 4): steady(ms) for n, ms in names.items()})
    assert row_of(rows, 'torch_over_this', 'torch-cuda-graph').value == 20.0
    assert not [r for r in rows if (r.case, r.engine) == ('torch_over_this', 'torch-cuda')]


def test_figures_of_peers_compare_the_same_percentile() -> None:
    late = steady(1.0)
    late[:, :2] *= 60.0  # two calls of a hundred
    ticks = {CASE: steady(1.0), Case('full_tick', 'multivae', 1, 4): late}
    rows = peer_ratios(ticks)
    assert row_of(rows, 'multivae_over_this').value == 1.0
    assert row_of(rows, 'multivae_over_this:p99').value == pytest.approx(60.0)


def test_figures_of_growth_are_from_4_to_32_modalities() -> None:
    ticks = {Case('full_tick', 'onnx', 1, count): steady(float(count)) for count in (2, 4, 8, 32)}
    (row,) = growth_ratios(ticks)
    assert (row.case, row.modalities, row.value) == ('full_tick:32_over_4', 32, 8.0)


def test_figures_of_the_node_leave_out_images_without_an_answer() -> None:
    answers = {
        END_TO_END: [np.array([4.0, np.nan, 4.0, 4.0])] * 2,
        'bare_echo': [np.array([2.0, 2.0])] * 2,
    }
    rows = latency_rows(answers, 'onnx')
    assert row_of(rows, END_TO_END).p50_ms == 4.0
    assert row_of(rows, f'{END_TO_END}:answered').value == 75.0
    assert row_of(rows, f'{END_TO_END}_over_bare_echo:p50').value == 2.0
    with pytest.raises(BenchmarkFailed, match='no image of a whole repeat was answered'):
        latency_rows({END_TO_END: [np.array([np.nan])], 'bare_echo': [np.ones(1)]}, 'onnx')


def test_figures_of_both_reliabilities_are_added_or_the_larger() -> None:
    rows = [
        figure(Case(f'{name}:{reliability}', 'onnx'), [value], '')
        for name, values in {
            'images_lost': (1, 2),
            'cpu_percent': (30, 20),
            'memory_growth': (0.5, 3.0),
        }.items()
        for reliability, value in zip(('best_effort', 'reliable'), values)
    ]
    together = over_both(rows)
    assert {row.case: row.value for row in together} == {
        'images_lost': 3.0,
        'cpu_percent': 30.0,
        'memory_growth': 3.0,
    }


def test_figures_are_measured_in_another_order_each_time() -> None:
    order = []

    def case(name: str) -> Any:
        def measure(calls: int) -> np.ndarray:
            order.append(name)
            return np.full(calls, 1.0)

        return measure

    names = ['a', 'b', 'c']
    durations = interleave({name: case(name) for name in names}, 3, 5, 'test')
    assert order == ['a', 'b', 'c', 'b', 'c', 'a', 'c', 'a', 'b']
    assert {d.shape for d in durations.values()} == {(3, 5)}


def test_figures_of_a_clock_are_at_least_what_the_call_takes() -> None:
    durations_ms = clocked(lambda: time.sleep(0.002))(4)
    assert durations_ms.shape == (4,)
    assert (durations_ms >= 2.0).all()


def content(rows: list[Measurement]) -> dict[str, Any]:
    return {
        'rows': [replace(row, section='engine').plain() for row in rows],
        'notes': ['peers: not measured: not there'],
        'machine': {
            'cpu': 'a processor',
            'cores': 2,
            'memory_gb': 8.0,
            'system': 'Linux',
            'load_average': [0.1, 0, 0],
            'load_average_after': [0.9, 0, 0],
        },
        'versions': {'python': '3.11'},
        'settings': {'bundle': 'latent/x', 'repeats': 3, 'calls': 100, 'seconds': 120.0},
        'seconds': {'engine': 60.0},
    }


def test_report_says_which_targets_are_met() -> None:
    ticks = {CASE: steady(1.0), Case('full_tick', 'torch', 2, 4): steady(5.0)}
    rows = [latency(case, repeats) for case, repeats in ticks.items()]
    text = markdown(content(rows + tick_ratios(ticks)), {'A picture': 'images/a.png'})
    lines = text.splitlines()
    missed = next(line for line in lines if 'torch takes so many times longer' in line)
    assert missed.endswith('| >= 6 | 5 | 5, 5 | **missed** |')
    assert any(line.endswith('| <= 2 | 1 | 1, 1 | met |') for line in lines)
    assert any(
        line.startswith('| one new, one missing') and 'not measured' in line for line in lines
    )
    assert '| full tick, 4 present | 1.5 / 2 | 7.5 / 10 |' in lines
    assert '![A picture](images/a.png)' in lines
    assert '- peers: not measured: not there' in lines
    assert 'images lost' not in text  # that section was not asked for


def test_report_replaces_only_what_is_between_the_marks(tmp_path: Path) -> None:
    file = tmp_path / 'page.md'
    file.write_text(f'above\n\n{BEGIN}\nold\n{END}\n\nbelow\n')
    write_markdown(file, 'new\n')
    write_markdown(file, 'newer\n')
    assert file.read_text() == f'above\n\n{BEGIN}\n\nnewer\n\n{END}\n\nbelow\n'


def test_report_targets_are_of_rows_that_exist() -> None:
    known = {'engine', 'peers', 'node', 'scaling', 'training'}
    assert {target.section for target in TARGETS} == known
    assert len({target.what for target in TARGETS}) == len(TARGETS)


def test_rows_survive_json() -> None:
    rows = [
        latency(CASE, steady(1.0), distribution=True),
        figure(Case('images_lost'), [0.0], 'images'),
    ]
    assert [
        read_measurement(plain) for plain in json.loads(json.dumps([r.plain() for r in rows]))
    ] == rows
    assert 'value' not in rows[0].plain()
    assert 'p50_ms' not in rows[1].plain()
