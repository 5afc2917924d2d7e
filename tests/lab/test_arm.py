"""The simulated arm: its script, its sensors, its dataset."""

from __future__ import annotations

import numpy as np
import pytest

from mm_perception.data.dataset import load_dataset
from mm_perception.errors import DataError, MissingDependency
from mm_perception.lab.arm import script
from mm_perception.lab.arm.build import ArmOptions, arm_spec, build_arm
from mm_perception.lab.arm.simulation import Simulation
from mm_perception.lab.replay.episodes import load_episodes
from mm_perception.resources import share_directory

SEEDS = range(12)


def open_simulation():
    """The simulation, where it can run."""
    pytest.importorskip('mujoco', reason='MuJoCo is not installed: pip install ".[arm]"')
    try:
        return Simulation()
    except MissingDependency as error:
        pytest.skip(str(error))


def fingertip(joints):
    """Position (m) and direction (rad) of the finger."""
    angles = np.cumsum(joints, axis=1)
    lengths = np.array([script.UPPER_ARM_M, script.FOREARM_M, script.FINGER_M])
    return np.stack((np.cos(angles) @ lengths, np.sin(angles) @ lengths), axis=1), angles[:, 2]


@pytest.fixture(scope='module')
def scripts():
    return [script.write_script(30.0, np.random.default_rng(seed)) for seed in SEEDS]


def test_joint_angles_bring_the_finger_there():
    tip = np.array([[0.1, 0.4], [-0.2, 0.35], [0.3, 0.3]])
    direction = np.array([1.5, 2.0, 0.6])
    there, pointing = fingertip(script.joint_angles(tip, direction))
    np.testing.assert_allclose(there, tip, atol=1e-9)
    np.testing.assert_allclose(pointing, direction, atol=1e-9)


def test_episodes_begin_and_end_at_home_and_never_jump(scripts):
    for played in scripts:
        assert len(played.joints) == len(played.ball) == round(30.0 / script.PERIOD_S)
        for k in (0, -1):
            np.testing.assert_allclose(played.joints[k], script.HOME, atol=1e-6)
            np.testing.assert_allclose(played.ball[k], script.HOME_BALL, atol=1e-6)
        assert np.abs(np.diff(played.joints, axis=0)).max() < 10.0 * script.PERIOD_S
        assert np.abs(np.diff(played.ball, axis=0)).max() < 2.0 * script.PERIOD_S


def test_the_arm_stays_within_the_ranges_of_its_modalities(scripts):
    spec = arm_spec()
    for name, values in (
        ('joints', np.concatenate([s.joints for s in scripts])),
        ('target', np.concatenate([s.ball for s in scripts])),
    ):
        options = spec.modality(name).preprocessing
        assert (values > options['low']).all() and (values < options['high']).all(), name


def test_the_arm_presses_waits_and_turns_away(scripts):
    gaps = []
    for played in scripts:
        tip, _ = fingertip(played.joints)
        gaps.append(np.linalg.norm(tip - played.ball, axis=1) - script.TOUCH_M)
    gaps = np.concatenate(gaps)
    assert 0.2 < (gaps < 0).mean() < 0.7 and (gaps > 0.1).mean() > 0.05
    moving = np.concatenate([np.abs(np.diff(s.joints, axis=0)).max(axis=1) for s in scripts])
    assert 0.1 < (moving < 1e-6).mean() < 0.7


@pytest.mark.parametrize('wrong', [{'seconds': 2.0}, {'episodes': (3, 0, 1)}])
def test_too_little_is_refused(wrong):
    with pytest.raises(DataError, match='an episode per split'):
        ArmOptions(**wrong)


def test_the_episodes_that_ship_are_of_the_arm_and_small():
    folder = share_directory() / 'models' / 'arm'
    recorded = load_episodes(folder / 'recordings')
    spec = arm_spec()
    assert tuple(recorded.channels) == spec.names
    for m in spec.modalities:
        channel = recorded.channels[m.name]
        assert (channel.topic, channel.kind, channel.message) == (m.topic, m.kind, m.message)
    assert sum(episode.seconds for episode in recorded.episodes) >= 60.0
    files = [file for file in folder.rglob('*') if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 15e6


@pytest.fixture(scope='module')
def simulated():
    """An episode of some seconds: script and tracks."""
    simulation = open_simulation()
    played = script.write_script(15.0, np.random.default_rng(3))
    tracks = simulation.run(played, np.random.default_rng(0))
    simulation.close()
    return played, tracks


def test_sensors_run_at_their_rates(simulated):
    _, tracks = simulated
    rates_hz = {name: 1.0 / np.diff(track.times_s).mean() for name, track in tracks.items()}
    assert rates_hz == pytest.approx({'camera': 25, 'joints': 50, 'force': 50, 'target': 25})


def test_the_arm_follows_its_script(simulated):
    played, tracks = simulated
    away = np.abs(tracks['joints'].values - played.joints)
    assert away.mean() < 0.05 and away.max() < 0.4


def test_force_is_there_where_the_finger_dents_the_ball(simulated):
    _, tracks = simulated
    tip, _ = fingertip(tracks['joints'].values[::2].astype(float))
    dent = script.TOUCH_M - np.linalg.norm(tip - tracks['target'].values, axis=1)
    force = np.linalg.norm(tracks['force'].values[::2, :2], axis=1)
    assert force[dent > 0.02].min() > 4.0
    still = np.r_[True, np.abs(np.diff(tracks['joints'].values[::2], axis=0)).max(axis=1) < 0.004]
    assert np.median(force[(dent < -0.01) & still]) < 0.3
    pressed = dent > 0.005
    assert np.corrcoef(dent[pressed], force[pressed])[0, 1] > 0.9


def test_the_camera_sees_where_the_ball_is(simulated):
    _, tracks = simulated
    frames = tracks['camera'].values.astype(int)
    red = (frames[..., 0] > 150) & (frames[..., 1] < 90)
    assert (red.sum(axis=(1, 2)) > 20).all()
    weights = red / red.sum(axis=(1, 2), keepdims=True)
    column = (weights.sum(axis=1) * np.arange(64)).sum(axis=1)
    row = (weights.sum(axis=2) * np.arange(64)).sum(axis=1)
    ball = tracks['target'].values
    for seen, true in ((column, ball[:, 0]), (-row, ball[:, 1])):
        slope, start = np.polyfit(true, seen, 1)
        assert np.abs(seen - slope * true - start).max() < 1.5 and 60 < slope < 90


def test_dataset_holds_what_the_node_would_have_used(tmp_path):
    open_simulation().close()
    options = ArmOptions(seed=1, episodes=(2, 1, 1), seconds=6.0, progress=False)
    build_arm(tmp_path / 'arm', options)
    training = load_dataset(tmp_path / 'arm', 'train')
    recordings = training.recordings()
    assert [len(r.rows) for r in recordings] == [60, 60]
    np.testing.assert_allclose(recordings[1].time_s, np.arange(60) / 10)
    assert training.present.all() and training.values['camera'].dtype == np.uint8
    names = {r.name for split in ('train', 'validation', 'test')
             for r in load_dataset(tmp_path / 'arm', split).recordings()}  # fmt: skip
    assert len(names) == 4
    first, second = (training.rows('joints', r.rows) for r in recordings)
    assert np.abs(first[:5] - second[:5]).max() < 0.01 < np.abs(first - second).max()
    build_arm(tmp_path / 'again', options)
    again = load_dataset(tmp_path / 'again', 'train')
    for name in training.names:
        np.testing.assert_array_equal(training.values[name], again.values[name])
