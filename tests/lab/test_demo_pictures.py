"""The pictures of the demonstration, from ticks that are made up."""

import sys

import numpy as np
import pytest

from mm_perception.cli.main import main
from mm_perception.errors import DataError
from mm_perception.modalities import build_modality

pytest.importorskip('rclpy', reason='rclpy is not installed')

from mm_perception.lab.demo import pictures
from mm_perception.lab.demo.label_judge import LabelJudge
from mm_perception.lab.demo.log import Phase, Received, Showing, Status, Tick
from mm_perception.ros.codecs import make_header, output_codec
from tests.helpers.small_bundle import make_bundle, small_spec, with_classifiers

MODALITIES = {spec.name: build_modality(spec) for spec in small_spec().modalities}
JUDGE = LabelJudge(with_classifiers(make_bundle()), MODALITIES)
PRESENT, OUT = Phase((), 0.0, 1.0), Phase(('image',), 1.0, 1.0)


def received(name, label, shows=''):
    modality = MODALITIES[name]
    array = np.random.default_rng(int(label)).random(modality.shape, np.float32)
    message = output_codec(modality.spec.kind).encode(modality, array, make_header(1))
    return Received(0, 1, message, shows)


def tick(missing, label, shows='7'):
    used = frozenset(MODALITIES) - set(missing)
    states = {name: 'ok' if name in used else 'stale' for name in MODALITIES}
    generated = {name: received(name, label, shows) for name in missing}
    filled = {name: received(name, label) for name in used}
    status = Status(0, 1, states, {}, used)
    return Tick(status, Received(0, 1), Showing(int(label), label, 0), generated, filled)


def test_phases_are_drawn_in_rows_and_wrong_readings_are_marked():
    ticks = {PRESENT: [tick((), '7')], OUT: [tick(('image',), '7')]}
    right = pictures.draw_phases(ticks, MODALITIES, JUDGE)
    assert right.shape[0] == pictures.HEAD + 2 * pictures.ROW
    wrong = pictures.draw_phases({**ticks, OUT: [tick(('image',), '7', '3')]}, MODALITIES, JUDGE)
    rows, columns = np.nonzero((right != wrong).any(axis=2))
    assert rows.min() > pictures.HEAD + pictures.ROW
    assert columns.max() < pictures.SIDE + pictures.PITCH
    empty = pictures.draw_phases({PRESENT: [], OUT: []}, MODALITIES, JUDGE)
    assert (empty[:, pictures.SIDE :] == 255)[pictures.HEAD :].all()


def test_gif_shows_every_phase_equally_long(tmp_path):
    image = pytest.importorskip('PIL.Image', reason='Pillow is not installed')
    file = tmp_path / 'demo.gif'
    ticks = {
        PRESENT: [tick((), label) for label in '77'],
        OUT: [tick(('image',), label) for label in '1234'] + [tick((), '5')],
    }
    pictures.write_gif(file, ticks, MODALITIES, JUDGE)
    with image.open(file) as moving:
        durations_ms = []
        for k in range(moving.n_frames):
            moving.seek(k)
            durations_ms.append(moving.info['duration'])
        assert 480 <= moving.width <= 640
    assert durations_ms == [1100, 360, 360, 360]


def test_gif_that_cannot_be_written_is_one_line(tmp_path):
    pytest.importorskip('PIL', reason='Pillow is not installed')
    with pytest.raises(DataError, match='no phase settled'):
        pictures.write_gif(tmp_path / 'x.gif', {OUT: [tick((), '5')]}, MODALITIES, JUDGE)
    with pytest.raises(DataError, match='cannot be written'):
        pictures.write_gif(
            tmp_path / 'no' / 'x.gif', {OUT: [tick(('image',), '5')]}, MODALITIES, JUDGE
        )


def test_gif_in_a_folder_that_does_not_exist_ends_before_it_runs(capsys, tmp_path):
    pytest.importorskip('PIL', reason='Pillow is not installed')
    assert main(['demo', '--gif', str(tmp_path / 'no' / 'x.gif')]) == 2
    assert 'x.gif: its folder does not exist' in capsys.readouterr().err


def test_gif_without_pillow_says_so_before_it_runs(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, 'PIL', None)
    assert main(['demo', '--gif', str(tmp_path / 'x.gif')]) == 2
    assert capsys.readouterr().err == (
        'mm-perception: error: --gif needs Pillow: pip install pillow\n'
    )
