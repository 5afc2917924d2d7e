"""Judges a policy on disk: rows of returns, a table and a picture of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.bundle import find_bundle
from mm_perception.errors import ConfigError
from mm_perception.markdown import markdown_table
from mm_perception.rl.agents import load_agent
from mm_perception.rl.evaluation import Arena, Condition, lies, losses, row
from mm_perception.rl.observation import QUICK_CHECKS
from mm_perception.rl.policy import ABOUT, FOLDER, load_policy
from mm_perception.rl.training import make_env, make_vector

TRUE_STATE = 'true_state'
LIE_MOMENTS = (15,)
BELIEVED, CHECKED = 'latent', 'latent with health checks'


def judge_policy(
    bundle: str, folder: Path | None, name: str | None, episodes: int
) -> list[dict[str, Any]]:
    """
    Let a policy act under every failure, and the references from the same starts.

    :param bundle: a name under ``models/``, or a folder.
    :param folder: of the policy; None: ``policy/`` in that of the bundle.
    :param name: of the environment; None: that it was trained in.
    :returns: rows, see :func:`mm_perception.rl.evaluation.row`.
    :raises ConfigError: if the environment is not known.
    """
    folder = folder or find_bundle(bundle) / FOLDER
    trained = load_policy(folder).spec.algorithm
    name = name or trained.get('environment')
    if not name:
        raise ConfigError(f'{folder}: does not say in which environment; give --env')
    env, arena = make_env(name), Arena(lambda count: make_vector(name, count), episodes)
    _, agent = load_agent(folder, bundle, env)
    random, zero = arena.by_chance(), arena.by_zero()
    least = float(random.mean()), float(zero.mean())
    sensors = tuple(env.observation_space.spaces)  # type: ignore[attr-defined]
    lost, lying = losses(sensors), lies(sensors, LIE_MOMENTS)
    others = arena.elsewhere(agent)
    found = arena.returns(agent, [*lost, *lying], others)
    whole = float(found[0].mean())
    seed = trained.get('seed', 0)
    rows = _rows(BELIEVED, seed, [*lost, *lying], found, (whole, *least))
    _, checking = load_agent(folder, bundle, env, QUICK_CHECKS)
    checked = [Condition(), *lying]
    found = arena.returns(checking, checked, others)
    rows += _rows(CHECKED, seed, checked, found, (float(found[0].mean()), *least))
    for title, returns in (('random', random), ('zero', zero)):
        rows += _rows('none', 0, [Condition()], returns[None], (whole, *least), title)
    if (folder / TRUE_STATE / ABOUT).is_file():
        _, knowing = load_agent(folder / TRUE_STATE, bundle, env)
        returns = arena.returns(knowing, [Condition()])
        rows += _rows('true state', 0, [Condition()], returns, (whole, *least), 'true state')
    return rows


def _rows(
    observation: str,
    seed: int,
    conditions: Sequence[Condition],
    found: Any,
    scale: tuple[float, float, float],
    policy: str = 'trained',
) -> list[dict[str, Any]]:
    about = {'policy': policy, 'observation': observation, 'seed': seed}
    return [about | row(c, returns, *scale) for c, returns in zip(conditions, found)]


def table_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """
    Summarise rows as Markdown: the mean over sensors and moments, and the worst of them.

    :returns: lines.
    """
    lines = []
    for (policy, observation, what), found in _groups(rows).items():
        shares = [each['normalised'] for each in found]
        returns = [each['return'] for each in found]
        worst = min(found, key=lambda each: each['return'])
        where = f'{" and ".join(worst["missing"])} at step {worst["at_step"]}'
        lines.append(
            (
                policy,
                observation,
                what,
                f'{np.mean(returns):.0f}',
                f'{min(returns):.0f}',
                f'{100 * np.mean(shares):.1f}',
                f'{100 * min(shares):.1f}',
                where if worst['missing'] else '',
            )
        )
    heads = 'policy', 'observation', 'sensors', 'return', 'worst', 'in %', 'worst in %', 'that is'
    return markdown_table(heads, lines)


def _groups(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for each in rows:
        count = {0: 'all', 1: 'one', 2: 'two'}[len(each['missing'])]
        what = count if not each['missing'] else f'{count} {each["fault"]}'
        what += ' for a while' if each['end_step'] else ''
        groups.setdefault((each['policy'], each['observation'], what), []).append(each)
    return groups


def draw_rows(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw the returns of each kind of failure, and the worst, as bars."""
    import matplotlib

    matplotlib.use('agg')
    from matplotlib import pyplot

    groups = {key: [r['return'] for r in found] for key, found in _groups(rows).items()}
    figure, axes = pyplot.subplots(figsize=(8, 0.28 * len(groups) + 1.2), layout='constrained')
    titles = [' · '.join(part for part in key if part != 'trained') for key in groups]
    places = np.arange(len(groups))[::-1]
    axes.barh(places, [np.mean(each) for each in groups.values()], color='#4c78a8')
    worst = [min(each) for each in groups.values()]
    axes.scatter(
        worst, places, marker='|', color='black', label='worst sensor and moment', zorder=3
    )
    axes.set_yticks(places, titles, fontsize=7)
    axes.set_xlabel('return')
    axes.legend(fontsize=7)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=90)
    pyplot.close(figure)
