"""Training with Stable-Baselines3, export, and judgement, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from mm_perception.cli.main import main
from mm_perception.rl.failures import Failures
from mm_perception.rl.policy import Layout, load_policy

baselines = pytest.importorskip('stable_baselines3')
training = pytest.importorskip('mm_perception.rl.training')

ABOUT = {
    'bundle': 'pendulum',
    'bundle_hash': '0' * 64,
    'observation': Layout(('joints',), 3, ('mean',)),
    'rate_hz': 20.0,
}


@pytest.mark.parametrize('kind', ['SAC', 'TD3', 'PPO'])
def test_exported_policy_acts_as_that_of_stable_baselines(kind: str, tmp_path: Path):
    algorithm = getattr(baselines, kind)('MlpPolicy', gymnasium.make('Pendulum-v1'), seed=0)
    training.export(algorithm, ABOUT, ('torque',)).save(tmp_path)
    seen = np.random.default_rng(1).normal(0, 3, (50, 3)).astype(np.float32)
    expected, _ = algorithm.predict(seen, deterministic=True)
    policy = load_policy(tmp_path)
    np.testing.assert_allclose(policy.act(seen), expected, atol=1e-4)
    assert policy.spec.actions.names == ('torque',) and policy.spec.actions.high == (2.0,)


def test_training_follows_the_seed(folder: Path):
    observe = [training_observer(folder) for _ in range(3)]
    seeds = 1, 1, 2
    weights = []
    for observer, seed in zip(observe, seeds):
        settings = training.SacSettings(steps=60, learning_starts=20, seed=seed)
        env = training.make_env('mm_perception.rl.pendulum:mm_perception/Pendulum-v0')
        algorithm, _ = training.train_sac(env, observer, Failures(), settings)
        weights.append(next(algorithm.policy.parameters()).detach().numpy().copy())
    assert np.array_equal(weights[0], weights[1]) and not np.array_equal(weights[0], weights[2])


def training_observer(folder: Path):
    """One environment seen through the bundle."""
    from mm_perception.rl.observation import Fusion

    return Fusion(str(folder), 20.0)


def test_commands_train_and_judge(folder: Path, tmp_path: Path, capsys):
    words = ['--steps', '550', '--action', 'torque']
    assert main(['train-policy', str(folder), *words, '--parts', 'mean', 'mask']) == 0
    policy = load_policy(folder)
    assert policy.spec.observation.parts == ('mean', 'mask')
    assert policy.spec.algorithm['steps'] == 550 and policy.spec.actions.names == ('torque',)
    assert {'all', 'without camera', 'random', 'zero'} <= set(policy.spec.returns)
    state = ['--sensor', 'joints', '--out', str(folder / 'policy' / 'true_state')]
    assert main(['train-policy', str(folder), *words, *state]) == 0
    file = tmp_path / 'rows.json'
    picture = tmp_path / 'returns.png'
    command = ['evaluate-policy', str(folder), '--episodes', '1', '--json', str(file)]
    assert main([*command, '--picture', str(picture)]) == 0
    rows = json.loads(file.read_text())['rows']
    assert picture.stat().st_size > 1000
    lost = [r for r in rows if r['fault'] == 'missing' and r['end_step'] is None]
    assert len(lost) == 6 * 4
    whole = [r for r in rows if r['policy'] == 'trained' and not r['missing']]
    assert [r['normalised'] for r in whole if r['return'] > by(rows, 'random')] in ([], [1.0] * 2)
    assert all(0.0 <= r['normalised'] <= 1.0 for r in rows)
    assert {'trained', 'random', 'zero', 'true state'} == {r['policy'] for r in rows}
    assert '| trained | latent | one missing |' in capsys.readouterr().out
    # The state at the start is the same for everybody, and so is what no action comes to.
    assert by(rows, 'zero') == pytest.approx(zero_return(), abs=0.1)


def by(rows, policy: str) -> float:
    """Return of a policy with all sensors."""
    return next(r['return'] for r in rows if r['policy'] == policy)


def zero_return() -> float:
    """Return of gymnasium's own pendulum, left alone, from the first start."""
    env = gymnasium.make('Pendulum-v1')
    env.reset(seed=1000)
    return sum(float(env.step(np.zeros(1, np.float32))[1]) for _ in range(200))


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--env', 'Nowhere-v0'], 'environment Nowhere-v0'),
        (['--env', 'CartPole-v1', '--steps', '5'], 'a Dict of Box, one each'),
        (['--steps', '0'], 'give --steps of 1 or more'),
        (['--sensor', 'nose'], 'no sensor "nose"'),
        (['--parts', 'median'], 'give some of mean, std, mask, age'),
    ],
)
def test_bad_options_are_one_line(folder: Path, words, message: str, capsys):
    assert main(['train-policy', str(folder), *words]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and message in errors[0]


def test_policy_of_another_bundle_is_one_line(folder: Path, tmp_path: Path, capsys):
    algorithm = baselines.SAC('MlpPolicy', gymnasium.make('Pendulum-v1'))
    training.export(algorithm, ABOUT).save(tmp_path)
    words = ['--policy', str(tmp_path), '--env', 'mm_perception/Pendulum-v0']
    assert main(['evaluate-policy', str(folder), *words]) == 2
    assert 'reads the latent of pendulum@00000000, and this one' in capsys.readouterr().err
