"""Every section of the command, with tiny settings and a small bundle."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mm_perception.bundle import Bundle, save_bundle
from mm_perception.cli.main import main
from mm_perception.lab.benchmark.report import BEGIN, END, markdown
from tests.helpers.small_bundle import make_bundle

ROOT = Path(__file__).parents[2]
CONFIG = """
name: tiny
dataset: nowhere
model:
  message_dim: 16
  joint_hidden: [16]
  decoder_hidden: [16]
  modalities:
    - name: force
      kind: vector
      latent_dim: 2
      preprocessing: {low: [0, 0], high: [1, 1]}
      network: {hidden: [8]}
    - name: joints
      kind: vector
      latent_dim: 2
      preprocessing: {low: [0, 0], high: [1, 1]}
      network: {hidden: [8]}
unimodal:
  force: {epochs: 3, batch_size: 16}
  joints: {epochs: 3, batch_size: 64}
top: {epochs: 3, batch_size: 32}
"""


@pytest.fixture(scope='module')
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return save_bundle(make_bundle(), tmp_path_factory.mktemp('bundles') / 'small', '# small\n')


def benchmark(folder: Path, *arguments: str) -> dict[str, Any]:
    """Content of the JSON file of a run that succeeded."""
    file = folder / 'benchmark.json'
    tiny = ['--repeats', '2', '--calls', '3', '--threads', '1', '--batches', '1', '2']
    assert main(['benchmark', *arguments, *tiny, '--json', str(file)]) == 0
    content: dict[str, Any] = json.loads(file.read_text())
    check(content)
    return content


def check(content: dict[str, Any]) -> None:
    """Whether a file is as the interface says, and its figures can be true."""
    assert {'rows', 'machine', 'versions'} <= set(content)
    assert content['rows']
    assert {'cpu', 'cores', 'memory_gb', 'load_average'} <= set(content['machine'])
    keys = set()
    for row in content['rows']:
        assert {'section', 'case', 'engine', 'threads', 'modalities', 'repeats'} <= set(row)
        if 'value' in row:
            assert 'unit' in row
            assert 'p50_ms' not in row
        else:
            assert 0.0 < row['p50_ms'] <= row['p99_ms']
            low, high = row['spread']
            assert low <= row['p50_ms'] <= high
        keys.add((row['section'], row['case'], row['engine'], row['threads'], row['modalities']))
    assert len(keys) == len(content['rows'])


def values(content: dict[str, Any]) -> dict[str, float]:
    return {row['case']: row['value'] for row in content['rows'] if 'value' in row}


def test_benchmark_engine_measures_ticks_stages_and_throughput(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, pictures = tmp_path / 'page.md', tmp_path / 'pictures'
    outputs = ['--markdown', str(page), '--pictures', str(pictures)]
    content = benchmark(tmp_path, str(bundle.path), '--section', 'engine', *outputs)
    torch = [row for row in content['rows'] if row['engine'] == 'torch']
    present: dict[str, list[int]] = {}
    for row in torch:
        present.setdefault(row['case'], []).append(row['modalities'])
    assert present['full_tick'] == [1, 2, 3, 4]
    assert present['typical_tick'] == [1, 2, 3]
    names = bundle.spec.names
    stages = {'fuse', *(f'{part}_{name}' for part in ('encode', 'decode') for name in names)}
    assert {case for case in present if case.startswith('stage:')} == {
        f'stage:{s}' for s in stages
    }
    assert {'throughput_batch_1', 'throughput_batch_2'} <= set(present)
    assert {f'throughput_streams_in_{s}_64' for s in ('one_session', 'own_sessions')} <= set(
        present
    )
    assert '| streams in one session 64 |' in page.read_text()
    assert '| full tick, 4 present |' in page.read_text()
    assert '![Distribution of latencies](pictures/benchmark_latency.png)' in page.read_text()
    assert (pictures / 'benchmark_latency.png').read_bytes().startswith(b'\x89PNG')
    capsys.readouterr()
    assert main(['benchmark', '--render', str(tmp_path / 'benchmark.json')]) == 0
    assert capsys.readouterr().out == markdown(content, {}) + '\n'


def test_benchmark_scaling_measures_every_count_and_draws_it(tmp_path: Path) -> None:
    arguments = ['--section', 'scaling', '--counts', '1', '2', '--pictures', str(tmp_path)]
    content = benchmark(tmp_path, *arguments)
    ticks = {(r['case'], r['modalities']) for r in content['rows'] if r['engine'] == 'torch'}
    assert {(c, n) for c in ('full_tick', 'one_new_tick') for n in (1, 2)} <= ticks
    assert (tmp_path / 'benchmark_scaling.png').read_bytes().startswith(b'\x89PNG')


def test_benchmark_training_measures_every_stage_at_both_batch_sizes(tmp_path: Path) -> None:
    config = tmp_path / 'tiny.yaml'
    config.write_text(CONFIG)
    content = benchmark(tmp_path, '--section', 'training', '--config', str(config))
    stages = (
        'force_batch_16',
        'force_batch_64',
        'joints_batch_64',
        'top_batch_32',
        'top_batch_64',
    )
    assert set(values(content)) == set(stages)
    assert min(values(content).values()) > 10.0


def test_benchmark_node_measures_latency_loss_and_use(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip('rclpy', reason='rclpy is not installed')
    # In a process of its own: it sets the environment of its nodes.
    file = tmp_path / 'node.json'
    command = [sys.executable, '-m', 'mm_perception.cli.main', 'benchmark', str(bundle.path)]
    command += ['--section', 'node', '--repeats', '1', '--seconds', '1.5', '--json', str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    content = json.loads(file.read_text())
    check(content)
    found = values(content)
    cases = {row['case'] for row in content['rows']}
    assert {'end_to_end', 'bare_echo', 'images_lost', 'cpu_percent', 'first_latent'} <= cases
    for reliability in ('best_effort', 'reliable'):
        sent = found[f'images_sent:{reliability}']
        assert 5 <= sent <= 1.5 * 30 + 10
        assert 0 <= found[f'images_lost:{reliability}'] < sent
        assert 0 <= found[f'images_lost:{reliability}:plain_subscriber'] < sent
    assert 0.0 < found['end_to_end:answered'] <= 100.0
    assert 20.0 < found['memory'] < 2000.0
    assert 0.0 < found['cpu_percent'] < 400.0
    assert 0.0 < found['first_latent'] < 60.0


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--repeats', '0'], '--repeats: must be greater than 0'),
        (['--threads', '1', '0'], '--threads: must be greater than 0'),
        (['no_such_bundle', '--section', 'engine'], 'no bundle "no_such_bundle"'),
        (['--section', 'engine', '--json', '/nowhere/x.json'], '/nowhere/x.json: its folder'),
        (['--render', '/nowhere.json'], '/nowhere.json: not the JSON of a benchmark'),
        (['--section', 'peers', '--peers', '/nowhere/python'], '/nowhere/python: not there'),
        (['--section', 'training', '--config', '/nowhere.yaml'], '/nowhere.yaml: cannot be read'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_benchmark_says_in_one_line_what_is_wrong(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['benchmark', *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_benchmark_of_peers_starts_only_where_they_are(tmp_path: Path) -> None:
    python = ROOT / 'checks' / 'peers' / '.venv' / 'bin' / 'python'
    if not python.is_file():
        pytest.skip('checks/peers/install.sh was not run')
    content = benchmark(tmp_path, '--section', 'peers', '--peers', str(python))
    assert 'multivae' in {row['engine'] for row in content['rows']}
    assert values(content)['multivae_over_this'] > 0.0


def test_performance_page_shows_the_figures_of_its_json() -> None:
    page = (ROOT / 'docs' / 'performance.md').read_text()
    content = json.loads((ROOT / 'docs' / 'performance.json').read_text())
    shown = page.split(BEGIN)[1].split(END)[0].strip()
    pictures = dict(re.findall(r'!\[(.*?)\]\((.*?)\)', shown))
    assert shown == markdown(content, pictures).strip()
