"""What the sensors of the pendulum give, and many pendulums at once."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mm_perception.rl.pendulum import ID, SIDE, feel, hear, see


@pytest.mark.filterwarnings('ignore')
def test_pendulum_is_an_environment_of_gymnasium():
    check_env(gymnasium.make(ID).unwrapped, skip_render_check=True)


def test_microphones_hear_the_doppler_effect_and_the_distance():
    """Upright, the tip is 1 m below the microphone above and moves past it."""
    still, moving = hear(0.0, 0.0), hear(0.0, 5.0)
    np.testing.assert_allclose(still[:3], 440.0)
    assert still[5] == pytest.approx(0.0, abs=1e-5)
    distance = np.hypot(2.0, 3.0)
    assert still[3] == pytest.approx(20 * np.log10(1 / distance**2), abs=1e-4)
    assert moving[2] == pytest.approx(440.0, abs=1e-3)
    # It moves to the left at 5 m/s, of which 2 of 3.606 m point to the microphone.
    assert moving[0] == pytest.approx(440.0 * 20 / (20 - 5.0 * 2.0 / distance), rel=1e-5)


def test_camera_shows_where_the_pole_was_and_is():
    pixels = see(np.pi / 2, 0.0)[..., 1]
    rows, columns = np.nonzero(pixels > 128)
    assert columns.mean() < SIDE / 2 - 4 and abs(rows.mean() - (SIDE - 1) / 2) < 0.6
    frames = see(0.3, 4.0)
    np.testing.assert_array_equal(frames[..., 0], see(0.3 - 4.0 / 20, 0.0)[..., 1])
    assert np.ptp(see(1.0, 0.0)[..., 2]) == 0 and np.ptp(frames[..., 2]) > 100


def test_many_pendulums_are_each_as_one():
    many = gymnasium.make_vec(ID, 2, vectorization_mode='vector_entry_point')
    ones = [gymnasium.make(ID) for _ in range(2)]
    seen, _ = many.reset(seed=3)
    each = [one.reset(seed=3 + k)[0] for k, one in enumerate(ones)]
    rng = np.random.default_rng(0)
    for _ in range(200):
        for k, single in enumerate(each):
            assert np.abs(seen['camera'][k].astype(int) - single['camera']).max() <= 2
            np.testing.assert_allclose(seen['joints'][k], single['joints'], atol=1e-4)
            np.testing.assert_allclose(seen['microphones'][k], single['microphones'], rtol=1e-4)
        actions = rng.uniform(-2, 2, (2, 1)).astype(np.float32)
        seen, rewards, _, cut, _ = many.step(actions)
        steps = [one.step(action) for one, action in zip(ones, actions)]
        each = [step[0] for step in steps]
        np.testing.assert_allclose(rewards, [step[1] for step in steps], rtol=1e-5)
    assert cut.all() and all(step[3] for step in steps)
    before = many.states.copy()
    _, rewards, _, cut, _ = many.step(actions)
    assert not rewards.any() and not cut.any() and (np.abs(many.states[:, 1]) <= 1.0).all()
    assert not np.array_equal(before, many.states)


def test_joint_feels_the_state():
    np.testing.assert_allclose(feel(np.pi / 2, -1.0), [0.0, 1.0, -1.0], atol=1e-6)
