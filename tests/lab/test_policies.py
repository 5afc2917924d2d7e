"""The comparison of policies: many that learn at once, what they read, the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from mm_perception.errors import ConfigError
from mm_perception.lab.policies.contrastive import _contrast
from mm_perception.lab.policies.ensemble import Ensemble
from mm_perception.lab.policies.report import policies_markdown
from mm_perception.lab.policies.table import _Place
from mm_perception.lab.policies.variants import Together
from mm_perception.rl.baselines import RawSensors
from mm_perception.rl.evaluation import Condition, lies, losses, row
from mm_perception.rl.training import SacSettings

LOW, HIGH = np.float32([-3.0]), np.float32([1.0])


class Guessing(VectorEnv):
    """A number is shown; half of it is what should be done, plus what differs by environment."""

    def __init__(self, count: int) -> None:
        self.num_envs, self.metadata = count, {'autoreset_mode': AutoresetMode.NEXT_STEP}
        self._rng = np.random.default_rng(0)
        self.shift = np.linspace(-0.4, 0.4, count)
        self._over = True

    def reset(self, *, seed=None, options=None):
        self._shown = self._rng.uniform(-1, 1, (self.num_envs, 1)).astype(np.float32)
        return self._shown, {}

    def step(self, actions):
        rewards = -10 * (actions[:, 0] - self._shown[:, 0] / 2 - self.shift) ** 2
        seen, _ = self.reset()
        self._over = not self._over  # every other step only begins an episode
        ends = np.full(self.num_envs, not self._over)
        return seen, rewards * ends, ends, np.zeros(self.num_envs, bool), {}


def test_policies_learn_side_by_side_each_its_own():
    env = Guessing(3)
    settings = SacSettings(1600, (32, 32), learning_starts=100, gamma=0.0)
    ensemble = Ensemble(3, 1, LOW, HIGH, settings)
    ensemble.learn(env)
    shown = np.float32([[-0.8], [0.0], [0.8]])
    for k, shift in enumerate(env.shift):
        np.testing.assert_allclose(ensemble.policy(k)(shown), shown / 2 + shift, atol=0.25)


def test_policy_of_an_ensemble_is_the_mode_of_its_actor():
    ensemble = Ensemble(2, 3, LOW, HIGH, SacSettings(hidden=(8,)))
    seen = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    with torch.no_grad():
        mean = ensemble.actor(torch.from_numpy(seen).expand(2, 5, 3))[..., :1]
    for k in range(2):
        expected = LOW + (np.tanh(mean[k].numpy()) + 1) / 2 * (HIGH - LOW)
        np.testing.assert_allclose(ensemble.policy(k)(seen), expected, rtol=1e-4, atol=1e-5)


def test_policies_that_were_trained_before_act_as_they_did():
    seen = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    first = Ensemble(2, 3, LOW, HIGH, SacSettings(hidden=(8,)))
    again = Ensemble(2, 3, LOW, HIGH, SacSettings(hidden=(8,), seed=1))
    assert not np.allclose(first.policy(1)(seen), again.policy(1)(seen))
    again.load(json.loads(json.dumps(first.plain())))
    np.testing.assert_array_equal(first.policy(1)(seen), again.policy(1)(seen))


def test_what_was_found_is_not_sought_again(tmp_path: Path):
    place = _Place(tmp_path, tmp_path, 'key')
    assert place.known('policy', lambda: [1.5]) == place.known('policy', lambda: [2.5]) == [1.5]
    with pytest.raises(ConfigError, match='of other settings; remove it'):
        _Place(tmp_path, tmp_path, 'other').known('policy', lambda: [2.5])


def test_density_of_squashed_actions_is_that_of_torch():
    ensemble = Ensemble(1, 3, LOW, HIGH, SacSettings(hidden=(8,)))
    seen = torch.randn(1, 6, 3)
    actions, density = ensemble._sample(seen)
    mean, log_std = ensemble.actor(seen).chunk(2, -1)
    normal = torch.distributions.Normal(mean, log_std.exp())
    squashed = torch.distributions.TransformedDistribution(
        normal, torch.distributions.transforms.TanhTransform()
    )
    np.testing.assert_allclose(
        density.detach(), squashed.log_prob(actions).sum(-1, keepdim=True).detach(), atol=1e-3
    )


def test_raw_sensors_are_scaled_and_zero_or_held_where_missing():
    sensors = {'joint': spaces.Box(np.float32([0.0]), np.float32([4.0]))}
    values, here, gone = {'joint': np.float32([[3.0]])}, np.array([True]), np.array([False])
    for held, expected in ((False, 0.0), (True, 0.5)):
        observer = RawSensors(sensors, 1, held)
        assert observer.observe(values, {'joint': here}).tolist() == [[0.5, 1.0]]
        assert observer.observe(values, {'joint': gone}).tolist() == [[expected, 0.0]]
        observer.begin([0])
        assert observer.observe(values, {'joint': gone}).tolist() == [[0.0, 0.0]]


def test_observers_together_see_their_own_environments():
    one = {'a': spaces.Box(-1.0, 1.0, (1,)), 'b': spaces.Box(-1.0, 1.0, (2,))}
    together = Together([(RawSensors({'a': one['a']}, 2, True), 2), (RawSensors(one, 1, True), 1)])
    values = {'a': np.float32([[0.1], [0.2], [0.3]]), 'b': np.full((3, 2), 0.4, np.float32)}
    here, gone = dict.fromkeys(one, np.ones(3, bool)), dict.fromkeys(one, np.zeros(3, bool))
    first = together.observe(values, here)
    expected = [[0.1, 1, 0, 0, 0], [0.2, 1, 0, 0, 0], [0.3, 0.4, 0.4, 1, 1]]
    np.testing.assert_allclose(first, expected, rtol=1e-6)
    together.begin([2, 0])
    again = together.observe(values, gone)
    np.testing.assert_allclose(again[:, 0], [0.0, 0.2, 0.0], rtol=1e-6)


def test_contrast_is_lowest_for_encodings_of_the_same_moment():
    every = torch.eye(6)
    assert _contrast(every, every) < 0.01 < _contrast(every.roll(1, 0), every)


def test_conditions_cover_every_subset_and_moment():
    found = losses(('a', 'b', 'c'))
    assert len(found) == 1 + 6 * 4 + 3 and found[0] == Condition()
    assert len(lies(('a', 'b', 'c'), (5, 40))) == 3 * 4 * 2


@pytest.mark.parametrize(('mean', 'share'), [(-200.0, 1.0), (-600.0, 0.5), (-1500.0, 0.0)])
def test_returns_are_normalised_between_chance_and_all_sensors(mean: float, share: float):
    found = row(Condition(('a',), begin=5), np.array([mean - 50, mean + 50]), -200, -1000, -1200)
    assert found['normalised'] == pytest.approx(share) and found['return'] == mean
    zero = min(1.0, max(0.0, (mean + 1200) / 1000))
    assert found['normalised_zero'] == pytest.approx(zero, abs=1e-3)
    assert found['missing'] == ['a'] and found['at_step'] == 5 and found['end_step'] is None


def test_page_shows_mean_and_worst(tmp_path: Path):
    about = {'observation': 'latent', 'training': 'dropout', 'checks': False}
    rows = [
        {**about, 'seed': seed, **row(c, np.array([value]), -100, -1100, -1100)}
        for seed in (0, 1)
        for c, value in ((Condition(), -100), (Condition(('joints',)), -150 - 50 * seed))
    ]
    page = policies_markdown(rows, 8000)
    assert '| dropout | -100 (-100) | -175 (-200) |' in page
    assert '| dropout | 92.5 (90.0) |' in page and '2 seeds' in page
