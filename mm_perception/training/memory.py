"""Learn what :class:`~mm_perception.fusion.memory.Memory` needs, from recordings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mm_perception.bundle import Arrays, Bundle
from mm_perception.data.dataset import RECORDING, Dataset, load_dataset, splits
from mm_perception.engines.build import reference_engine
from mm_perception.engines.engine import Engine
from mm_perception.evaluation.generation import batches
from mm_perception.evaluation.recall import Generator, query_of, states_of
from mm_perception.fusion.displacement import Head, Layout, Regression
from mm_perception.fusion.memory import PARTS, Features, far_of, pack, select
from mm_perception.modalities.base import Array
from mm_perception.spec import ModelSpec, TrainingSpec
from mm_perception.training.calibration import SPLIT
from mm_perception.training.intervals import Spread, correction, learn_spread
from mm_perception.training.mixing import Cell
from mm_perception.training.regressions import (
    ELEMENTS,
    FOLDS,
    Age,
    Recordings,
    Rows,
    evenly,
    learn_features,
)

AGES_S = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
FEWEST_PAIRS = 50
"""Of an age that is learned."""
SHOWN = 256
"""Elements of an array that weights are learned on, evenly spread."""
REFERENCE_ROWS, REFERENCE_PAIRS = 4096, 2000
QUERIES = 120
"""Of one fold, subset and age; of the held-out recordings five times as many."""
TINY = 1e-12
LEAST = 1e-3
"""Half of an interval of vectors, at least, in stds of the training rows."""
FASTEST_S = 0.1
"""Velocities are taken over at least so long."""


def with_memory(
    bundle: Bundle, spec: TrainingSpec, dataset: Dataset, device: str = 'cpu'
) -> Bundle:
    """
    Give a trained bundle a memory, where its data tell time.

    :param dataset: the training set; its folder's split ``validation`` is held out, if there.
    """
    folder = Path(spec.dataset)
    held = load_dataset(folder, SPLIT) if SPLIT in splits(folder) else None
    arrays = learn_memory(reference_engine(bundle, device), bundle.spec, dataset, held)
    return replace(bundle, memory=arrays or {})


def learn_memory(
    engine: Engine, spec: ModelSpec, dataset: Dataset, held: Dataset | None = None
) -> Arrays | None:
    """
    Learn a memory.

    :param engine: of the trained model.
    :param dataset: recordings to learn from.
    :param held: recordings that the model was not trained on; without them what it generates has
        no part in what fills in.
    :returns: content of ``memory.safetensors``; None if the data tell no time, or are too short.
    """
    if dataset.time_s is None or RECORDING not in dataset.attributes:
        return None
    steps = np.concatenate([np.diff(r.time_s) for r in dataset.recordings()])
    if len(steps) < FEWEST_PAIRS:
        return None
    period_s = float(np.median(steps))
    velocity_s = max(period_s, FASTEST_S)
    features = {name: learn_features(dataset, name) for name in spec.names}
    learner = _Learner(spec, features, _recordings(dataset, features, velocity_s), period_s)
    if held is not None and len(held):
        learner.hold_out(_recordings(held, features, velocity_s), Generator(engine, held))
    arrays = learner.learn()
    if arrays:
        arrays['velocity_s'] = np.array([velocity_s], np.float32)
    return arrays or None


def _recordings(dataset: Dataset, features: dict[str, Features], velocity_s: float) -> Recordings:
    fold = np.zeros(len(dataset), np.intp)
    recordings = dataset.recordings()
    for number, recording in enumerate(recordings):
        count = len(recording.rows)
        apart = np.full(count, number % FOLDS)
        fold[recording.rows] = (
            apart if len(recordings) >= FOLDS else FOLDS * np.arange(count) // count
        )
    return Recordings(dataset, states_of(dataset, features, velocity_s), fold)


class _Learner:
    """
    Learns everything, age by age.

    :param period_s: usual time between rows.
    """

    def __init__(
        self, spec: ModelSpec, features: dict[str, Features], data: Recordings, period_s: float
    ) -> None:
        self._spec, self._features, self._data = spec, features, data
        self._period_s = period_s
        self._layout = Layout({name: len(f.scale) for name, f in features.items()})
        self._held: tuple[Recordings, Generator] | None = None
        self._references = self._reference_rows()
        self._subsets = {name: _subsets(spec.names, name) for name in spec.names}
        self._shown = {name: _shown(len(f.centre)) for name, f in features.items()}
        self._textures: dict[str, Array] = {}
        self._values: dict[tuple[int, str], Array] = {}
        self._made: dict[tuple[str, tuple[str, ...]], Array] = {}

    def hold_out(self, held: Recordings, generator: Generator) -> None:
        """Learn the part of what the model generates on these."""
        self._held = held, generator

    def learn(self) -> dict[str, np.ndarray]:
        """Everything that a memory stores but ``velocity_s``; empty if the data are too short."""
        ages = {a: self._data.pairs(a, self._period_s) for a in AGES_S}
        ages = {
            a: rows
            for a, rows in ages.items()
            if a > 0.75 * self._period_s and len(rows[0]) >= FEWEST_PAIRS
        }
        if not ages:
            return {}
        arrays = {'ages_s': np.array(list(ages), np.float32)}
        arrays |= self._fixed(list(ages.values())[len(ages) // 2])
        found: dict[str, list[np.ndarray]] = {}
        for k, (age_s, rows) in enumerate(ages.items()):
            age = Age(self._data, self._layout, age_s, rows)
            pairs = self._reference_pairs(rows)
            numbers = [self._references[part] for part in pairs]
            arrays[f'pairs.{k}'] = np.stack(numbers, 1).astype(np.int32)
            arrays[f'inputs.{k}'] = np.stack(
                [age.inputs.low, age.inputs.high, age.inputs.mean, age.inputs.scale]
            )
            for name in self._spec.names:
                number = self._learn_target(name, age, pairs, found)
                arrays[f'{name}.gram'] = np.array([number], np.int32)
            arrays |= {f'gram.{k}.{g}': pack(gram) for g, gram in enumerate(age.grams)}
        return arrays | {key: np.stack(parts).astype(np.float32) for key, parts in found.items()}

    def _learn_target(
        self,
        target: str,
        age: Age,
        pairs: tuple[Rows, Rows],
        found: dict[str, list[np.ndarray]],
    ) -> int:
        """Learn one age of a target; returns the number of its Gram matrix."""

        def last(key: str) -> np.ndarray | None:
            return found[f'{target}.{key}'][-1] if f'{target}.{key}' in found else None

        before, weights = last('penalty'), last('weight')
        regressions, number = age.regression(target, before)
        learned: list[tuple[np.ndarray, Spread, Array]] = []
        for s, subset in enumerate(self._subsets[target]):
            cell = self._cross_validated(target, subset, age, regressions, pairs)
            held = self._held_out(target, subset, age, regressions[-1], pairs)
            near = None
            if weights is not None:
                near = np.append(max(1.0 - weights[s].sum(), 0.0), weights[s]) + 1e-9
            learned.append(self._mix(target, cell, held, near, age.age_s))
        recordings = len(self._held[0].dataset.recordings()) if self._held else 0
        factor = correction([part for *_, part in learned], recordings)
        spreads = [spread.times(factor) for _, spread, _ in learned]
        parts: dict[str, np.ndarray] = {
            'cross': regressions[-1].cross,
            'penalty': regressions[-1].penalty,
            'damping_s': np.array(regressions[-1].damping_s),
            'weight': np.stack([weight for weight, *_ in learned]),
            'still': np.stack([spread.still for spread in spreads]),
            'spread': np.stack([spread.moving for spread in spreads]),
        }
        for key, part in parts.items():
            found.setdefault(f'{target}.{key}', []).append(part)
        return number

    def _cross_validated(
        self,
        target: str,
        subset: tuple[str, ...],
        age: Age,
        regressions: Sequence[Regression],
        pairs: tuple[Rows, Rows],
    ) -> Cell:
        """Errors on folds left out; what the model generates is not among them."""
        parts = []
        fold = self._data.fold
        known = self._data.known((target, *subset), age.first, age.second)
        first, second = age.first[known], age.second[known]
        for f in range(FOLDS):
            left = np.flatnonzero(fold[first] == f)
            if not len(left):
                continue
            some = evenly(left, QUERIES)
            others = tuple(part[fold[pairs[0]] != f] for part in pairs)
            references = select(self._data.states, target, np.stack(others, 1))
            head = Head(self._layout, regressions[f], target, subset, references)
            rows = first[some], second[some]
            parts.append(self._errors(self._data, head, target, subset, rows))
        return Cell(parts)

    def _held_out(
        self,
        target: str,
        subset: tuple[str, ...],
        age: Age,
        regression: Regression,
        pairs: tuple[Rows, Rows],
    ) -> Cell | None:
        """Errors of all ways on the recordings that the model was not trained on."""
        if self._held is None or not subset:
            return None
        data, _ = self._held
        first, second = data.pairs(age.age_s, self._period_s)
        known = data.known((target, *subset), first, second)
        if known.sum() < QUERIES // 2:
            return None
        some = evenly(np.flatnonzero(known), FOLDS * QUERIES)
        rows = first[some], second[some]
        references = select(self._data.states, target, np.stack(pairs, 1))
        head = Head(self._layout, regression, target, subset, references)
        errors = self._errors(data, head, target, subset, rows)
        then, now = (self._generated(target, subset)[r] for r in rows)
        errors[4] = now - self._data_at(data, target, rows[1])
        errors[5] = errors[0] + now - then
        fold = data.fold[rows[0]]
        return Cell([errors[:, fold == f] for f in np.unique(fold)])

    def _generated(self, target: str, subset: tuple[str, ...]) -> Array:
        """What the model makes of the target in all held-out rows, ``float32[N, E']``."""
        assert self._held is not None
        if (target, subset) not in self._made:
            data, generator = self._held
            made = generator(target, subset, np.arange(len(data.dataset)))
            self._made[target, subset] = made.reshape(len(made), -1)[:, self._shown[target]]
        return self._made[target, subset]

    def _errors(
        self,
        data: Recordings,
        head: Head,
        target: str,
        subset: tuple[str, ...],
        rows: tuple[Rows, Rows],
    ) -> Array:
        """Error of each way, ``float32[7, Q, E']``; of what the model generates 0."""
        moments = query_of(data.dataset, data.states, target, subset, rows).moments
        lost, truth = (self._data_at(data, target, r) for r in rows)
        errors = np.zeros((1 + len(PARTS), *truth.shape), np.float32)
        errors[0] = lost - truth
        features = self._features[target].at(self._shown[target])
        for k, moved in enumerate(head(moments), 1):
            errors[k] = errors[0] + features.decode(moved)
        errors[-1] = features.centre - truth
        return errors

    def _data_at(self, data: Recordings, target: str, rows: Rows) -> Array:
        """Shown elements of some rows, ``float32[len(rows), E']``."""
        key = id(data), target
        if key not in self._values:
            known, shown = data.dataset.shown(), self._shown[target]
            parts = [
                known.unique(target, part).reshape(len(part), -1)[:, shown]
                for part in batches(len(known.values[target]))
            ]
            self._values[key] = np.concatenate(parts)[known.index[target]]
        return self._values[key][rows]

    def _mix(
        self, target: str, cell: Cell, held: Cell | None, near: np.ndarray | None, age_s: float
    ) -> tuple[np.ndarray, Spread, Array]:
        """
        Weights of the parts, the spread of what is left, and errors held out in parts of it.

        Of what the model gains on the few recordings held out, the spread believes a half.
        """
        weight = cell.best(near)
        error, texture = cell.mixed(weight), self._textures[target][self._shown[target]]
        left, far, count = np.abs(error), far_of(error - cell.held), len(self._data.dataset)
        if held is not None and self._held:
            usual = float((error**2).mean())
            alone, rest = held.mixed(weight), held.cross_mixed(weight, usual)
            ratio = np.sqrt((rest**2).mean() / max(float((alone**2).mean()), 1e-12))
            left = np.concatenate([left * (1.0 + ratio) / 2.0, np.abs(rest)])
            far = np.concatenate([far, far_of(rest - held.held)])
            weight = held.towards(weight, usual)
            count += len(self._held[0].dataset)
        features, left = self._features[target], left / texture
        least = features.scale if features.basis is None else np.zeros(1, np.float32)
        least = (LEAST * least).astype(np.float32)
        spread = learn_spread(left.astype(np.float32), far, count * self._period_s / age_s, least)
        new = slice(len(error), None)
        return weight[1:], spread, left[new] / np.maximum(spread.half(far[new]), TINY)

    def _reference_rows(self) -> NDArray[np.intp]:
        """Number of each row among the references; -1 where it is none of them."""
        numbers = np.full(len(self._data.dataset), -1)
        recordings = self._data.dataset.recordings()
        share = min(1.0, REFERENCE_ROWS / len(numbers))
        wanted = np.diff(np.floor(share * np.arange(len(recordings) + 1)).astype(int))
        chosen = recordings if share == 1.0 else [r for r, w in zip(recordings, wanted) if w]
        chosen = chosen or recordings[:1]
        rows = np.concatenate([r.rows for r in chosen])[:REFERENCE_ROWS]
        numbers[rows] = np.arange(len(rows))
        return numbers

    def _reference_pairs(self, rows: tuple[Rows, Rows]) -> tuple[Rows, Rows]:
        first, second = rows
        known = np.flatnonzero((self._references[first] >= 0) & (self._references[second] >= 0))
        some = evenly(known, REFERENCE_PAIRS)
        return first[some], second[some]

    def _fixed(self, rows: tuple[Rows, Rows]) -> dict[str, np.ndarray]:
        """What is the same at all ages; textures from what changes between these rows."""
        arrays: dict[str, np.ndarray] = {}
        kept = np.flatnonzero(self._references >= 0)
        kept = kept[np.argsort(self._references[kept])]
        for name, features in self._features.items():
            self._textures[name] = self._texture(name, rows)
            low, high = _bounds(self._data.dataset, name)
            state = self._data.states[name]
            stored = np.stack([state.feature[kept], state.velocity[kept]])
            members = [[n in subset for n in self._spec.names] for subset in self._subsets[name]]
            arrays |= {
                f'{name}.centre': features.centre,
                f'{name}.scale': features.scale,
                f'{name}.subsets': np.array(members),
                f'{name}.texture': self._textures[name],
                f'{name}.bounds': np.array([low, high], np.float32),
                f'{name}.references': np.clip(stored, -6e4, 6e4).astype(np.float16),
            }
            if features.basis is not None:
                arrays[f'{name}.basis'] = features.basis.astype(np.float16)
        return arrays

    def _texture(self, name: str, rows: tuple[Rows, Rows]) -> Array:
        """How much each of many elements changes, 1 on average; 1 of each of few."""
        count = len(self._features[name].centre)
        first, second = (part[self._data.known([name], *rows)] for part in rows)
        if count <= ELEMENTS or not len(first):
            return np.ones(count, np.float32)
        some = evenly(np.arange(len(first)), QUERIES)
        data = self._data.dataset
        change = data.rows(name, first[some]) - data.rows(name, second[some])
        change = np.sqrt((change.reshape(len(some), -1) ** 2).mean(0))
        mean = max(float(change.mean()), 1e-6)
        return np.maximum(change / mean, 0.05).astype(np.float32)


def _bounds(dataset: Dataset, name: str) -> tuple[float, float]:
    """What is filled in lies within; nearly all kinds give arrays in 0..1."""
    values = dataset.only(name).shown().values[name]
    scale = 255.0 if values.dtype == np.uint8 else 1.0
    return min(float(values.min()) / scale, 0.0), max(float(values.max()) / scale, 1.0)


def _shown(count: int) -> Rows:
    if count <= ELEMENTS:
        return np.arange(count)
    return evenly(np.arange(count), SHOWN)


def _subsets(names: Sequence[str], target: str) -> list[tuple[str, ...]]:
    """Others that are observed: all, all but one, each alone, none."""
    others = tuple(name for name in names if name != target)
    found: dict[tuple[str, ...], None] = {}
    for size in (len(others), len(others) - 1, 1, 0):
        for subset in itertools.combinations(others, size) if size >= 0 else ():
            found[subset] = None
    return list(found)
