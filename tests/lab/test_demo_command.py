"""The whole demonstration, over real topics."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from mm_perception.bundle import save_bundle
from mm_perception.lab.digits.recordings import save_recordings

pytest.importorskip('rclpy', reason='rclpy is not installed')
pytest.importorskip('torch', reason='torch is not installed')

from tests.helpers.small_bundle import make_bundle, with_classifiers
from tests.helpers.spoken_digits import make_recordings

DATA = Path(os.environ.get('MM_PERCEPTION_DATA', Path(__file__).parents[3] / 'shared' / 'data'))
SENSORS = {'image', 'trajectory', 'sound', 'symbol'}


def demo(*options, timeout_s=200):
    command = [sys.executable, '-m', 'mm_perception.cli.main', 'demo', *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)


def failures(summary):
    return [target for target in summary['targets'] if not target['met']]


@pytest.fixture(scope='module')
def untrained(tmp_path_factory):
    """A bundle that knows nothing, with classifiers that know nothing."""
    path = tmp_path_factory.mktemp('bundles') / 'untrained'
    save_bundle(with_classifiers(make_bundle()), path, '# untrained\n')
    save_recordings(path / 'recordings', make_recordings())
    return path


def test_demo_runs_and_admits_what_is_missed(untrained, tmp_path):
    out = tmp_path / 'report'
    done = demo('--bundle', untrained, '--out', out, '--seconds-scale', 0.3, '--json',
                tmp_path / 'summary.json')  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert 'Traceback' not in done.stderr
    assert 'missed' in done.stdout
    assert sum('filled' in line for line in done.stdout.splitlines()) == 14
    summary = json.loads((out / 'summary.json').read_text())
    assert summary == json.loads((tmp_path / 'summary.json').read_text())
    assert not summary['ok']
    assert summary['latent_rate_hz'] == pytest.approx(10, rel=0.2)
    assert set(summary['latency_ms']) == {'p50', 'p99'}
    assert len(summary['phases']) == 16
    published = []
    for phase in summary['phases']:
        assert set(phase['modalities']) == set(phase['missing'])
        published += [scores['published_fraction'] for scores in phase['modalities'].values()]
    # The shortest phases last half a second: a busy machine may have no tick in one of them.
    measured = [fraction for fraction in published if fraction is not None]
    assert len(measured) > 0.8 * len(published) and min(measured) > 0.5
    assert set(summary['one_sensor_out']) == SENSORS
    assert cv2.imread(str(out / 'mosaic.png')).shape[0] > 1000
    assert (out / 'index.html').is_file()


def test_demo_with_bad_input_is_one_line(untrained, tmp_path):
    bare = tmp_path / 'bare'
    shutil.copytree(untrained, bare, ignore=shutil.ignore_patterns('recordings'))
    for options, says in (
        (('--bundle', tmp_path), 'no bundle'),
        (('--bundle', bare), 'recordings.json: cannot be read'),
        (('--bundle', untrained, '--recordings', 'real', '--data', tmp_path), 'fsdd'),
    ):
        done = demo(*options, '--no-report')
        assert done.returncode == 2
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_demo_that_is_interrupted_leaves_nothing_behind(untrained, tmp_path, number):
    command = [sys.executable, '-m', 'mm_perception.cli.main', 'demo', '--bundle', str(untrained)]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    children = psutil.Process(process.pid).children
    end_s = time.monotonic() + 60
    while len(nodes := children()) < 2:
        assert time.monotonic() < end_s, 'the nodes did not start'
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert 'Traceback' not in errors
    assert not [node for node in nodes if node.is_running()]
    assert not list(tmp_path.iterdir())


def test_demo_of_the_shipped_bundle_meets_its_targets(tmp_path):
    begin_s = time.monotonic()
    done = demo('--out', tmp_path)
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert done.returncode == 0, (failures(summary), done.stderr)
    assert summary['ok']
    assert time.monotonic() - begin_s < 90 + 20  # a busy test machine


@pytest.mark.skipif(not DATA.is_dir(), reason='the raw recordings (../shared/data) are not here')
def test_demo_with_real_recordings_meets_the_same_targets(tmp_path):
    real = '--recordings', 'real', '--data', DATA
    done = demo('--out', tmp_path, '--seconds-scale', 0.5, *real)
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert done.returncode == 0, (failures(summary), done.stderr)


def test_demo_of_the_arm_measures_its_error_beside_that_of_holding(tmp_path):
    done = demo('--robot', 'arm', '--out', tmp_path, '--seconds-scale', 0.2)
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert done.returncode in (0, 1) and 'Traceback' not in done.stderr, done.stderr
    missed = [t['name'] for t in failures(summary) if not t['name'].startswith('error of')]
    assert not missed, summary
    for name, figures in summary['one_sensor_out'].items():
        assert figures['ticks'] > 5 and figures['hold'] > 0, (name, figures)
    # Over all phases, a second and more after the loss: geometric mean of the ratios.
    late = [
        entry for e in summary['errors_by_age'].values() for entry in e if entry['from_s'] >= 1
    ]
    late = [entry for entry in late if entry['ticks']]
    ratios = [np.log(entry['error'] / entry['hold']) for entry in late]
    weights = [entry['ticks'] for entry in late]
    assert np.exp(np.average(ratios, weights=weights)) < 0.9, summary['errors_by_age']
    assert cv2.imread(str(tmp_path / 'errors.png')).shape[1] == 1000
    assert 'error of hold' in (tmp_path / 'index.html').read_text()
