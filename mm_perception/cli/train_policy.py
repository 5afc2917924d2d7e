"""``mm-perception train-policy``: train a policy on the latent of a bundle, and export it."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

ENVIRONMENT = 'mm_perception.rl.pendulum:mm_perception/Pendulum-v0'
EXAMPLES = """examples:
  mm-perception train-policy pendulum
  mm-perception train-policy models/pendulum --seed 1 --out /tmp/policy
  mm-perception train-policy models/my_robot --env my_package:MyRobot-v0 --rate 50 --steps 100000
  mm-perception train-policy pendulum --dropout 0 --out /tmp/all_sensors_only
  mm-perception train-policy pendulum --sensor joints --out models/pendulum/policy/true_state

The environment's observation is a dictionary that holds every modality of the bundle by name.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to ``mm-perception``."""
    parser = subparsers.add_parser(
        'train-policy',
        help='train a policy on the latent of a bundle',
        description='Train soft actor-critic of Stable-Baselines3 on the joint latent of a bundle,'
        ' in an environment whose sensors fail by chance, and write the policy as ONNX and JSON.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('bundle', help='a name under models/, or a folder')
    parser.add_argument(
        '--env', default=ENVIRONMENT, metavar='ID', help='of gymnasium (default: the pendulum)'
    )
    parser.add_argument('--out', type=Path, help='folder (default: policy/ in that of the bundle)')
    parser.add_argument('--steps', type=int, default=10_000, help='(default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='(default: %(default)s)')
    parser.add_argument(
        '--rate', type=float, default=20.0, metavar='HZ', help='steps per second (default: 20)'
    )
    _add_reading_options(parser)
    parser.add_argument('--action', nargs='+', default=(), metavar='NAME', help='names of actions')
    parser.add_argument('--json', type=Path, help='write settings and returns to this file')
    parser.set_defaults(run=run)


def _add_reading_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--dropout',
        type=float,
        default=0.35,
        metavar='SHARE',
        help='of the time that each sensor is missing while training (default: %(default)s)',
    )
    parser.add_argument(
        '--sensor',
        nargs='+',
        default=(),
        metavar='NAME',
        help='read these sensors raw instead of the latent, as a reference',
    )
    parser.add_argument(
        '--parts',
        nargs='+',
        default=('mean', 'std', 'mask'),
        metavar='PART',
        help='of the latent that are read: mean, std, mask, age (default: mean std mask)',
    )


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit code."""
    from mm_perception.bundle import find_bundle
    from mm_perception.errors import ConfigError
    from mm_perception.rl.failures import Failures, RandomSpells
    from mm_perception.rl.training import SacSettings, export, make_env, train_sac

    if args.steps < 1 or not 0.0 <= args.dropout < 1.0 or not args.rate > 0.0:
        raise ConfigError('give --steps of 1 or more, --dropout of 0 to 1, a --rate above 0')
    env = make_env(args.env)
    observe, about = _observing(args, env)
    dropout = 0.0 if args.sensor else args.dropout
    failures = Failures(spells=RandomSpells(share=dropout) if dropout else None)
    settings = SacSettings(steps=args.steps, seed=args.seed)
    algorithm, seconds = train_sac(env, observe(1), failures, settings)
    about['algorithm'] = {**settings.plain(), 'environment': args.env, 'dropout': dropout}
    about['algorithm']['seconds'] = seconds
    policy = export(algorithm, about, args.action)
    returns = _returns(args, env, observe, policy)
    policy.spec = replace(policy.spec, returns=returns)
    out = args.out or find_bundle(args.bundle) / 'policy'
    policy.save(out)
    print(f'{out}: returns {json.dumps(returns)} after {seconds:.0f} s')
    if args.json:
        args.json.write_text(json.dumps({**about['algorithm'], 'returns': returns}, indent=1))
    return 0


def _observing(args: argparse.Namespace, env: Any) -> tuple[Any, dict[str, Any]]:
    """What makes observers, and what a policy's folder says of them."""
    from mm_perception.rl.agents import fusing, reading

    if args.sensor:
        return reading(env, args.sensor, args.rate)
    return fusing(args.bundle, env, args.rate, parts=tuple(args.parts))


def _returns(args: argparse.Namespace, env: Any, observe: Any, policy: Any) -> dict[str, float]:
    """Means over some starts: with all sensors, with each lost from the start, and by chance."""
    from mm_perception.rl.evaluation import Agent, Arena, Condition
    from mm_perception.rl.training import make_vector

    arena = Arena(lambda count: make_vector(args.env, count), episodes=10)
    names = () if args.sensor else tuple(env.observation_space.spaces)
    conditions = [Condition(), *(Condition((name,)) for name in names)]
    found = arena.returns(Agent(observe, policy.act), conditions).mean(1)
    titles = ['all', *(f'without {name}' for name in names)]
    means = dict(zip(titles, found), random=arena.by_chance().mean(), zero=arena.by_zero().mean())
    return {title: round(float(mean), 1) for title, mean in means.items()}
