"""From bags and a bundle to a LeRobot dataset: latents, and sensors without holes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.data.dataset import complete_folder
from mm_perception.data.lerobot_writer import MARKER, Column, LeRobotWriter, whole_rate
from mm_perception.errors import ConfigError, DataError
from mm_perception.fusion.health import HOLD
from mm_perception.fusion.perception import Perception
from mm_perception.fusion.results import Demand, Fused
from mm_perception.modalities import Modality
from mm_perception.ros.bag_files import Say, silent
from mm_perception.ros.bag_import import Bags, Player, nothing_usable

LATENT, PRESENT, ACTION = 'observation.environment_state', 'observation.present', 'action'


@dataclass
class Exported:
    """
    What was exported.

    :param filled: per modality, at how many frames it was generated.
    """

    episodes: int = 0
    frames: int = 0
    filled: dict[str, int] = field(default_factory=dict)


def export_bags(
    perception: Perception,
    bags: Bags,
    out: Path,
    action: str = '',
    task: str = '',
    say: Say = silent,
) -> Exported:
    """
    Write what a node with this perception would have made of bags, at their ticks.

    A bag is an episode; where nothing works for a minute it ends, and another begins. Frames
    before anything works are left out; later the last latent stands in where nothing does.

    :param bags: of which the rate is whole frames per second.
    :param out: a folder; of another LeRobot dataset it is replaced.
    :param action: modality that is what the robot was told to do.
    :param task: what the robot does, in words.
    :raises ConfigError: if the bundle has no such modality, or the rate is no whole number.
    :raises DataError: if a bag cannot be read, nothing in it can be used, or the folder is taken.
    """
    bundle = perception.bundle
    fps = whole_rate(bags.rate_hz)
    if action and action not in perception.names:
        raise ConfigError(f'--action is {action}; it has {", ".join(perception.names)}')
    keys = {n: ACTION if n == action else _key(m) for n, m in perception.modalities.items()}
    columns = _columns(perception, keys)
    player = Player(bundle.spec, bags.namespace)
    exported = Exported(filled=dict.fromkeys(perception.names, 0))
    with complete_folder(out, MARKER) as folder:
        writer = LeRobotWriter(folder, fps, columns, task or bundle.name, bundle.name)
        for frames in _episodes(perception, player, bags, say):
            writer.add(_episode(frames, perception, keys, exported))
            exported.episodes += 1
            exported.frames += len(frames)
        if not exported.frames:
            raise DataError(nothing_usable(bags.paths, player.accounts))
        writer.close()
    return exported


def _key(modality: Modality[Any]) -> str:
    group = 'observation.images' if modality.spec.kind == 'image' else 'observation'
    return f'{group}.{modality.spec.name}'


def _columns(perception: Perception, keys: dict[str, str]) -> dict[str, Column]:
    size = perception.bundle.spec.joint_latent_dim
    names = tuple(f'{part}_{k}' for part in ('mean', 'std') for k in range(size))
    found = {LATENT: Column('float32', (2 * size,), names)}
    found[PRESENT] = Column('bool', (len(perception.names),), tuple(perception.names))
    for name, modality in perception.modalities.items():
        kind, shape = modality.spec.kind, modality.shape
        if kind == 'image':
            column = Column('image', (*shape[1:], shape[0]), ('height', 'width', 'channels'))
        elif modality.classes:
            column = Column('string', (1,))
        else:
            labels = modality.labels if len(modality.labels) == np.prod(shape) else ()
            column = Column('float32', (int(np.prod(shape)),), tuple(labels))
        found[keys[name]] = column
    return found


def _episodes(
    perception: Perception, player: Player, bags: Bags, say: Say
) -> Iterator[list[Fused]]:
    """Frames of each episode, without those before anything worked."""
    demand = Demand(missing=frozenset(perception.names), fallback=HOLD)
    period_s = 1.0 / bags.rate_hz
    frames: list[Fused] = []
    before: tuple[int, float] | None = None
    for number, tick in bags.ticks(player, say):
        if before is None or number != before[0] or tick.time_s - before[1] > 1.5 * period_s:
            if frames:
                yield frames
            frames = []
            perception.forget()
        before = number, tick.time_s
        (fused,) = perception.tick([tick.readings], player.limits, demand, tick.now_ns)
        if fused.result is not None:
            frames.append(fused)
    if frames:
        yield frames


def _episode(
    frames: list[Fused], perception: Perception, keys: dict[str, str], exported: Exported
) -> dict[str, list[Any]]:
    """Features of an episode: what was used of each sensor, and else what was generated."""
    episode: dict[str, list[Any]] = {name: [] for name in (LATENT, PRESENT, *keys.values())}
    for fused in frames:
        result = fused.result
        assert result is not None
        latent = np.concatenate((np.ravel(result.mean), np.ravel(result.std)))
        episode[LATENT].append(latent.astype(np.float32))
        episode[PRESENT].append(np.array([n in fused.observed for n in perception.names]))
        for name, modality in perception.modalities.items():
            array = fused.observed.get(name)
            if array is None:
                array = result.reconstructions[name]
                exported.filled[name] += 1
            episode[keys[name]].append(_value(modality, array))
    return episode


def _value(modality: Modality[Any], array: Any) -> Any:
    """Value of a frame: a picture, a label, a vector in the sensor's unit, else model values."""
    kind = modality.spec.kind
    if kind == 'image' or modality.classes:
        return modality.from_model(array)
    if kind == 'vector':
        return np.asarray(modality.from_model(array), np.float32)
    return np.asarray(array, np.float32).reshape(-1)
