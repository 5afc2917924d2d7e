"""What streams were like a moment ago, and when each modality of theirs was lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mm_perception.engines.engine import Engine
from mm_perception.fusion.displacement import Moments, State
from mm_perception.fusion.health import Limits, Verdict
from mm_perception.fusion.health import State as Standing
from mm_perception.fusion.memory import Filled, Memory, Query
from mm_perception.modalities.base import FROZEN, STILL, Array

EARLIEST, LATEST = 0.75, 3.0
"""A velocity is taken over at least and at most so many times the memory's time for it."""
SPACING = 0.5
"""Values closer than this part of that time are not all kept."""
SLACK_S = 0.5
ESTIMATED = 0.5
"""
How much what was itself filled in at the loss spoils what fills in from it: it adds so many stds
when it had been out for as long as the loss lasts. Chosen on validation episodes of the arm.
"""


class Entry(NamedTuple):
    """A value that was used: its stamp, and the model's array ``float32[*shape]``."""

    stamp_ns: int
    array: Array


class History:
    """
    The last values of one modality, as far back as a loss may be noticed late.

    :param velocity_s: time over which velocities are taken.
    """

    def __init__(self, velocity_s: float) -> None:
        self._velocity_ns = velocity_s * 1e9
        self._entries: deque[Entry] = deque()

    def add(self, entry: Entry, horizon_s: float) -> None:
        """Take a new value, and let go of what is older than the horizon."""
        entries = self._entries
        if entries and entry.array is entries[-1].array:
            return
        if entries and entry.stamp_ns < entries[-1].stamp_ns:
            entries.clear()
        if len(entries) > 1:
            gap_ns = entries[-1].stamp_ns - entries[-2].stamp_ns
            if gap_ns < SPACING * self._velocity_ns:
                entries.pop()
        entries.append(entry)
        while entry.stamp_ns - entries[0].stamp_ns > horizon_s * 1e9:
            entries.popleft()

    def at(self, stamp_ns: int, max_age_s: float) -> tuple[Entry, Entry | None] | None:
        """Newest value by then with the one that its velocity is taken from; None if too old."""
        known = [entry for entry in self._entries if entry.stamp_ns <= stamp_ns]
        if not known or stamp_ns - known[-1].stamp_ns > max_age_s * 1e9:
            return None
        latest = known[-1].stamp_ns - EARLIEST * self._velocity_ns
        earlier = [entry for entry in known if entry.stamp_ns <= latest]
        if not earlier or known[-1].stamp_ns - earlier[-1].stamp_ns > LATEST * self._velocity_ns:
            return known[-1], None
        return known[-1], earlier[-1]

    def last_good_ns(self, verdict: Verdict, suspect_ns: int) -> int | None:
        """
        Stamp of the last value that can be believed; None if there is none.

        What stood still is old since it began to; what the others contradicted is not believed
        since ``suspect_ns``.
        """
        known = list(self._entries)
        if verdict.state is Standing.INCONSISTENT:
            known = [entry for entry in known if entry.stamp_ns <= suspect_ns] or known[:1]
        if verdict.fault in (FROZEN, STILL):
            while len(known) > 1 and np.array_equal(known[-1].array, known[-2].array):
                known.pop()
        return known[-1].stamp_ns if known else None


@dataclass
class Loss:
    """
    A modality that is lost, and what is known of the moment of its last good value.

    :param states: features and velocities then, ``float32[1, d]``, its own among them.
    :param arrays: of all modalities then.
    :param out_s: how long those modalities had been lost then whose state and array are what
        the memory had filled in.
    :param generated: what the model generated from others then, by their names.
    """

    stamp_ns: int
    states: dict[str, State] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    out_s: dict[str, float] = field(default_factory=dict)
    generated: dict[tuple[str, ...], Array] = field(default_factory=dict)


class Losses:
    """
    Follows the modalities of some streams, and fills in for those that are lost.

    While all is well it only keeps references to the last values.

    :param streams: how many there are.
    """

    def __init__(self, memory: Memory, engine: Engine, streams: int) -> None:
        self._memory, self._engine = memory, engine
        self._histories: list[dict[str, History]] = [{} for _ in range(streams)]
        self._losses: list[dict[str, Loss]] = [{} for _ in range(streams)]
        self._features: list[dict[str, tuple[Array, Array]]] = [{} for _ in range(streams)]
        for k in range(streams):
            self.forget(k)

    def forget(self, k: int) -> None:
        """Forget all values of a stream, as after a jump in time."""
        names, velocity_s = self._memory.names, self._memory.velocity_s
        self._histories[k] = {name: History(velocity_s) for name in names}
        self._losses[k], self._features[k] = {}, {}

    def follow(
        self,
        k: int,
        used: Mapping[str, Entry],
        verdicts: Mapping[str, Verdict],
        limits: Mapping[str, Limits],
        suspect_ns: int,
    ) -> None:
        """
        Take the values of a stream that can be used, see which were lost and which are back.

        :param suspect_ns: since when a modality that the others contradict is not believed.
        """
        losses, histories = self._losses[k], self._histories[k]
        oldest_s = max(limit.max_age_s for limit in limits.values())
        horizon_s = oldest_s + LATEST * self._memory.velocity_s + SLACK_S
        for name, entry in used.items():
            histories[name].add(entry, horizon_s)
        for name, history in histories.items():
            if name in used:
                losses.pop(name, None)
            elif name not in losses:
                stamp_ns = history.last_good_ns(verdicts[name], suspect_ns)
                if stamp_ns is not None:
                    losses[name] = self._begin(k, stamp_ns, limits)

    def recall(
        self,
        reconstructions: dict[str, Array],
        observed: Sequence[Mapping[str, Array]],
        now_ns: int,
    ) -> dict[str, Array]:
        """
        Fill in for what is lost.

        :param reconstructions: what the model generates of each modality from all that is
            observed, ``float32[N, *shape]``; those of lost ones are replaced.
        :param observed: model arrays of what each stream observes.
        :returns: std of what was filled in, ``float32[N, *shape]``; NaN in other streams.
        """
        spread: dict[str, Array] = {}
        for name, made in list(reconstructions.items()):
            members = [k for k, losses in enumerate(self._losses) if name in losses]
            if not members:
                continue
            filled = self._fill(name, {k: observed[k] for k in members}, made, now_ns)
            value, std = made.copy(), np.full_like(made, np.nan)
            value[members], std[members] = filled
            reconstructions[name], spread[name] = value, std
        return spread

    def _fill(
        self,
        target: str,
        observed: Mapping[int, Mapping[str, Array]],
        made: Array | None,
        now_ns: int,
    ) -> Filled:
        """
        Fill in for a modality that is lost in some streams: one row for each.

        What was out at the loss and is back has a part by what was filled in for it then.
        """
        exact, all_known = {}, {}
        for k, arrays in observed.items():
            loss = self._losses[k][target]
            known = tuple(n for n in self._memory.names if n in arrays and n in loss.states)
            exact[k] = tuple(n for n in known if n not in loss.out_s)
            if exact[k] != known:
                all_known[k] = known
        filled = self._fill_from(target, exact, observed, made, now_ns)
        if not all_known:
            return filled
        more = self._fill_from(target, all_known, observed, made, now_ns)
        rows = [list(observed).index(k) for k in all_known]
        spoilt = [self._spoilt(self._losses[k][target], all_known[k], now_ns) for k in all_known]
        for row, value, std, worse in zip(rows, *more, spoilt):
            own, other = filled.std[row] ** 2, (std * np.float32(worse)) ** 2
            share = own / np.maximum(own + other, np.float32(1e-20))
            filled.value[row] += share * (value - filled.value[row])
            filled.std[row] += share * (std - filled.std[row])
        return filled

    def _fill_from(
        self,
        target: str,
        subsets: Mapping[int, tuple[str, ...]],
        observed: Mapping[int, Mapping[str, Array]],
        made: Array | None,
        now_ns: int,
    ) -> Filled:
        """Fill in for a modality from certain others: one row for each of some streams."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for k, subset in subsets.items():
            groups.setdefault(subset, []).append(k)
        rows: dict[int, tuple[Array, Array]] = {}
        for subset, members in groups.items():
            query = self._query(target, subset, members, observed, made, now_ns)
            filled = self._memory.fill(target, query)
            rows |= dict(zip(members, zip(*filled)))
        value, std = zip(*(rows[k] for k in subsets))
        return Filled(np.stack(value), np.stack(std))

    def _spoilt(self, loss: Loss, subset: Sequence[str], now_ns: int) -> float:
        """By what factor std grows with what was only filled in at the loss."""
        out_s = max(loss.out_s[name] for name in subset if name in loss.out_s)
        age_s = max((now_ns - loss.stamp_ns) * 1e-9, 1e-3)
        return float(np.hypot(1.0, ESTIMATED * out_s / age_s))

    def _begin(self, k: int, stamp_ns: int, limits: Mapping[str, Limits]) -> Loss:
        loss = Loss(stamp_ns)
        for name, history in self._histories[k].items():
            found = history.at(stamp_ns, limits[name].max_age_s)
            if found is None:
                continue
            entry, earlier = found
            feature = self._feature(name, entry.array)
            velocity = np.zeros_like(feature)
            if earlier is not None:
                elapsed_s = np.float32((entry.stamp_ns - earlier.stamp_ns) * 1e-9)
                velocity = (feature - self._feature(name, earlier.array)) / elapsed_s
            loss.states[name] = State(feature, velocity)
            loss.arrays[name] = entry.array
        self._estimate(k, loss)
        return loss

    def _estimate(self, k: int, loss: Loss) -> None:
        """Fill in, as of a loss, for what had been lost before."""
        seen = dict(loss.arrays)
        for name, earlier in self._losses[k].items():
            if name in seen or earlier.stamp_ns > loss.stamp_ns:
                continue
            array = self._fill(name, {k: seen}, None, loss.stamp_ns).value[0]
            feature = self._feature(name, array)
            loss.states[name] = State(feature, np.zeros_like(feature))
            loss.arrays[name] = array
            loss.out_s[name] = (loss.stamp_ns - earlier.stamp_ns) * 1e-9

    def _query(
        self,
        target: str,
        subset: tuple[str, ...],
        members: Sequence[int],
        observed: Mapping[int, Mapping[str, Array]],
        made: Array | None,
        now_ns: int,
    ) -> Query:
        losses = [self._losses[k][target] for k in members]
        before = {
            name: State(*(np.concatenate(part) for part in zip(*(x.states[name] for x in losses))))
            for name in (*subset, target)
        }
        now = {
            n: np.concatenate([self._now(k, n, observed[k][n]) for k in members]) for n in subset
        }
        age_s = np.array([(now_ns - loss.stamp_ns) * 1e-9 for loss in losses])
        value = np.stack([loss.arrays[target] for loss in losses])
        generated = None
        if subset and self._memory.generates(target, subset):
            generated = self._generated(target, subset, members, observed, made)
        return Query(value, age_s, Moments(before, now), generated)

    def _generated(
        self,
        target: str,
        subset: tuple[str, ...],
        members: Sequence[int],
        observed: Mapping[int, Mapping[str, Array]],
        made: Array | None,
    ) -> tuple[Array, Array]:
        """What the model makes of the subset now and at the loss; the latter is kept."""
        now, then = [], []
        for k in members:
            loss, arrays = self._losses[k][target], observed[k]
            if made is not None and len(subset) == len(arrays):
                now.append(made[k])
            else:
                now.append(self._generate(target, subset, arrays))
            if subset not in loss.generated:
                loss.generated[subset] = self._generate(target, subset, loss.arrays)
            then.append(loss.generated[subset])
        return np.stack(now), np.stack(then)

    def _generate(
        self, target: str, subset: tuple[str, ...], arrays: Mapping[str, Array]
    ) -> Array:
        sizes = self._engine.code_dims
        codes: dict[str, Array] = {n: np.zeros((1, d), np.float32) for n, d in sizes.items()}
        codes |= {name: self._engine.encode(name, arrays[name][None]) for name in subset}
        present = np.array([[name in subset for name in self._memory.names]])
        made: Array = self._engine.decode(target, self._engine.fuse(codes, present)[0])[0]
        return made

    def _feature(self, name: str, array: Array) -> Array:
        return self._memory.features[name].encode(array[None])

    def _now(self, k: int, name: str, array: Array) -> Array:
        """Features of a newest value, worked out once."""
        known = self._features[k].get(name)
        if known is None or known[0] is not array:
            known = self._features[k][name] = array, self._feature(name, array)
        return known[1]
