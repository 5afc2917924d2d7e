"""From an environment of sensors to a dataset: recordings of episodes, or random states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from mm_perception.config import load_training
from mm_perception.data.dataset import (
    MANIFEST,
    RECORDING,
    Dataset,
    complete_folder,
    save_build,
    save_dataset,
    to_bytes,
)
from mm_perception.errors import DataError
from mm_perception.modalities import build_modality
from mm_perception.resources import share_directory
from mm_perception.rl.failures import PRESENT
from mm_perception.rl.observation import require_sensors
from mm_perception.spec import ModelSpec

LEAST = 100
# A split is a part of the random seed, so new ones go last.
SPLITS = ('train', 'validation', 'test')


def record(
    env: gymnasium.Env[Any, Any],
    act: Callable[[Any], Any] | None,
    spec: ModelSpec,
    episodes: int,
    rate_hz: float,
    seed: int = 0,
) -> Dataset:
    """
    Let a policy act, and keep what the sensors give: a recording per episode, a row per step.

    :param env: its observation is a dictionary of sensors; what ``info['present']`` calls missing
        is missing in the row.
    :param act: from such an observation to an action; None: actions by chance.
    :param spec: of the model; every modality has to be among the sensors.
    :param rate_hz: steps per second.
    :param seed: of the first episode; the next has the next.
    :raises ConfigError: if the environment lacks a modality.
    :raises DataError: for no episodes.
    """
    require_sensors(spec.names, env.observation_space)
    played = list(play(env, act, episodes, rate_hz, seed))
    steps = [step for episode in played for step in episode]
    names = [f'episode_{episode:04d}' for episode in range(episodes)]
    numbers = np.repeat(np.arange(episodes), [len(episode) for episode in played])
    return Dataset(
        names=spec.names,
        values=_arrays(spec, {name: [step.seen[name] for step in steps] for name in spec.names}),
        index=dict.fromkeys(spec.names, np.arange(len(steps))),
        present=np.array(
            [[step.present.get(name, True) for name in spec.names] for step in steps]
        ),
        attributes={RECORDING: (names, numbers)},
        time_s=np.concatenate([np.arange(len(episode)) / rate_hz for episode in played]),
    )


@dataclass(frozen=True)
class Step:
    """
    A step of an episode.

    :param seen: what the sensors gave, and ``present`` whether they gave something, by name.
    :param action: that was taken then; ``reward``: what came of it.
    """

    seen: Mapping[str, Any]
    present: Mapping[str, bool]
    action: Any
    reward: float


def play(
    env: gymnasium.Env[Any, Any],
    act: Callable[[Any], Any] | None,
    episodes: int,
    rate_hz: float,
    seed: int,
) -> Iterator[list[Step]]:
    """
    Play episodes, as :func:`record` says.

    :raises DataError: for none.
    """
    if episodes < 1 or rate_hz <= 0:
        raise DataError(f'{episodes} episodes at {rate_hz} Hz; give 1 or more, and a rate above 0')
    env.action_space.seed(seed)
    for episode in range(episodes):
        found, over = [], False
        seen, info = env.reset(seed=seed + episode)
        while not over:
            action = env.action_space.sample() if act is None else act(seen)
            later, reward, terminated, truncated, told = env.step(action)
            found.append(Step(seen, info.get(PRESENT, {}), action, float(reward)))
            seen, info, over = later, told, terminated or truncated
        yield found


def build_states(
    out: Path, name: str, states: int, seed: int, draw: Callable[[np.random.Generator], Any]
) -> dict[str, Any]:
    """
    Write what the sensors of a robot give in states drawn by chance.

    :param out: folder; appears when all of it is written.
    :param name: of the robot, whose configuration says what of it to write.
    :param states: of the split train; a tenth of it for each other.
    :param draw: gives what all sensors give in a state that a generator draws.
    :returns: counts and hashes, as written to ``build.json``.
    :raises DataError: for too few.
    """
    if states < LEAST:
        raise DataError(f'{name} needs {LEAST} states or more; --states is {states}')
    spec = load_training(share_directory() / 'config' / f'{name}.yaml').model
    with complete_folder(out, MANIFEST) as folder:
        about = {}
        for k, split in enumerate(SPLITS):
            rng = np.random.default_rng([seed, k])
            count = states if k == 0 else states // 10
            drawn = [draw(rng) for _ in range(count)]
            save_dataset(folder, split, _rows_of(spec, drawn))
            about[split] = {'rows': count}
        return save_build(folder, about, seed=seed, sources={name: 'generated'})


def _rows_of(spec: ModelSpec, drawn: Sequence[Mapping[str, Any]]) -> Dataset:
    index = dict.fromkeys(spec.names, np.arange(len(drawn)))
    arrays = _arrays(spec, {name: [seen[name] for seen in drawn] for name in spec.names})
    return Dataset(spec.names, arrays, index, np.ones((len(drawn), len(spec.names)), bool))


def _arrays(spec: ModelSpec, raws: Mapping[str, Sequence[Any]]) -> dict[str, NDArray[Any]]:
    """Model arrays of every modality as a dataset stores them: of images a 255th each."""
    found: dict[str, NDArray[Any]] = {}
    for modality in spec.modalities:
        array = build_modality(modality).to_models(raws[modality.name])
        found[modality.name] = to_bytes(array) if modality.kind == 'image' else array
    return found
