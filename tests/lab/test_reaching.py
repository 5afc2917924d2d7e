"""The arm that reaches for a ball: its sensors, its reward, its random states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mm_perception.config import load_training
from mm_perception.data.dataset import load_dataset
from mm_perception.errors import MissingDependency
from mm_perception.lab.arm.script import joint_angles
from mm_perception.resources import share_directory

gymnasium = pytest.importorskip('gymnasium')
from mm_perception.lab.arm import reaching  # noqa: E402 (first: it says how MuJoCo draws)

pytest.importorskip('mujoco', reason='MuJoCo is not installed: pip install ".[arm]"')
NAME = f'mm_perception.lab.arm.reaching:{reaching.ID}'


@pytest.fixture(scope='module')
def env():
    try:
        return gymnasium.make(NAME)
    except MissingDependency as error:
        pytest.skip(str(error))


def play(env, act, seed: int) -> tuple[float, list[float]]:
    """Return of an episode, and the gaps (m) between finger and ball."""
    env.reset(seed=seed)
    total, gaps, over = 0.0, [], False
    while not over:
        _, reward, _, over, _ = env.step(act(env.unwrapped))
        total += reward
        gaps.append(env.unwrapped.gap_m)
    return total, gaps


def to_the_ball(arm: reaching.Reaching) -> np.ndarray:
    """Action of one who knows where everything is, by inverse kinematics of two links."""
    (*joints, _), ball = arm.state
    upper, fore = reaching.UPPER_ARM_M, reaching.FOREARM_M + reaching.FINGER_M
    away = np.linalg.norm(ball) - reaching.TOUCH_M
    elbow = np.arccos((away**2 - upper**2 - fore**2) / (2 * upper * fore))
    inner = np.arctan2(fore * np.sin(elbow), upper + fore * np.cos(elbow))
    wanted = np.array([np.arctan2(ball[1], ball[0]) - inner, elbow])
    return np.clip(wanted - np.array(joints), -reaching.MOST_RAD, reaching.MOST_RAD)


def test_environment_passes_the_checker_of_gymnasium(env):
    from gymnasium.utils.env_checker import check_env

    check_env(env.unwrapped)


def test_who_knows_the_ball_touches_it_and_who_rests_does_not(env):
    for seed in (0, 1, 2):
        known, gaps = play(env, to_the_ball, seed)
        rested, _ = play(env, lambda arm: np.zeros(2), seed)
        assert known > -20.0 and known > rested + 20.0
        assert np.abs(gaps[20:]).max() < 0.03


def test_episodes_repeat_by_their_seed(env):
    first, again, other = (play(env, lambda arm: np.full(2, 0.05), seed) for seed in (4, 4, 5))
    assert first == again != other


def test_ranges_and_camera_tell_where_the_ball_is(env):
    places, reds = [], []
    for seed in range(6):
        seen, _ = env.reset(seed=seed)
        joints, ball = env.unwrapped.state
        away = np.linalg.norm(ball - reaching.ANCHORS_M, axis=1)
        np.testing.assert_allclose(seen[reaching.RANGE], away, atol=5 * reaching.RANGE_NOISE_M)
        np.testing.assert_allclose(seen[reaching.JOINTS], joints[:2], atol=0.01)
        image = seen[reaching.CAMERA].astype(int)
        red = np.argwhere((image[..., 0] > 150) & (image[..., 1] < 90))
        places.append(ball[0])
        reds.append(red[:, 1].mean())
    assert np.corrcoef(places, reds)[0, 1] > 0.99


def test_fingertip_is_where_joint_angles_bring_it():
    tips = np.array([[0.1, 0.4], [-0.2, 0.35]])
    there = reaching.fingertip(joint_angles(tips, np.array([1.5, 2.0])))
    np.testing.assert_allclose(there, tips, atol=1e-9)


def test_states_drawn_fill_the_ranges_of_the_configuration(tmp_path, env):
    from mm_perception.rl.record import build_states

    build_states(tmp_path / 'reaching', 'reaching', 150, 0, env.unwrapped.draw)
    dataset = load_dataset(tmp_path / 'reaching', 'train')
    spec = load_training(share_directory() / 'config' / 'reaching.yaml').model
    assert dataset.names == spec.names and len(dataset) == 150
    joints, ranges = dataset.values['joints'], dataset.values['range']
    assert joints.min() >= -0.01 and joints.max() <= 1.01 and (np.ptp(joints, 0) > 0.9).all()
    assert ranges.min() > 0.0 and ranges.max() < 1.0 and np.ptp(ranges, 0).min() > 0.3
    test = load_dataset(tmp_path / 'reaching', 'test')
    assert not np.array_equal(test.values['joints'][:15], joints[:15])


def test_localisation_is_measured_beside_not_looking(tmp_path, env, monkeypatch, capsys):
    from checks import localisation
    from mm_perception.bundle import save_bundle
    from mm_perception.engines.export import with_graphs
    from tests.helpers.small_bundle import make_bundle

    spec = load_training(share_directory() / 'config' / 'reaching.yaml').model
    sizes = {'camera': 40, 'joints': 2, 'range': 3}
    modalities = tuple(replace(m, latent_dim=sizes[m.name]) for m in spec.modalities)
    small = {'message_dim': 16, 'joint_hidden': (16,), 'decoder_hidden': (16,)}
    spec = replace(spec, modalities=modalities, joint_latent_dim=5, **small)
    folder = save_bundle(with_graphs(make_bundle('reaching', spec=spec)), tmp_path / 'b', '').path
    monkeypatch.setattr(localisation, 'HELD_OUT', 200)
    monkeypatch.setattr('sys.argv', ['localisation', str(folder), '--states', '800'])
    localisation.main()
    lines = capsys.readouterr().out.splitlines()
    found = {line.split(':')[0]: float(line.split('ball ')[1].split()[0]) for line in lines}
    assert list(found) == ['own', 'joint', 'nothing']
    assert found['own'] < 0.7 * found['nothing'] and 100.0 < found['nothing'] < 300.0
