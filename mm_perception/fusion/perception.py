"""One bundle at work on one stream of sensors or many: the front door, and what the node uses."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.bundle import Bundle
from mm_perception.engines.engine import Engine
from mm_perception.errors import ConfigError
from mm_perception.fusion.assessment import Assessment, Assessor
from mm_perception.fusion.health import HOLD, PRIOR, Checks, Limits, limits_of
from mm_perception.fusion.losses import Entry, Losses
from mm_perception.fusion.memory import Memory
from mm_perception.fusion.results import NONE, OBSERVED, Demand, Fused, Result
from mm_perception.fusion.session import Inference, InferenceSession
from mm_perception.fusion.streams import Reading, Stream
from mm_perception.modalities import Modality, build_modality
from mm_perception.modalities.base import Array

USUAL_CHECKS = Checks()
Readings = Mapping[str, Reading | None]


class Perception:
    """
    Fuses what sensors give with one bundle, and generates what they do not.

    :meth:`update` and :meth:`infer` are all that a program needs. The node takes the steps apart:
    its executor feeds the streams, its worker thread calls :meth:`tick`.

    :param bundle: the trained model.
    :param engine: an engine of that bundle.
    :param streams: how many sets of sensors are fused as one batch.
    :raises BundleError: if the bundle's health calibration or memory does not fit its model.
    """

    def __init__(self, bundle: Bundle, engine: Engine, streams: int = 1) -> None:
        if streams < 1:
            raise ConfigError(f'streams is {streams}; give 1 or more')
        self.bundle = bundle
        self.engine = engine
        self.frame_id = bundle.frame_id
        self.names = bundle.spec.names
        self.modalities: dict[str, Modality[Any]] = {
            spec.name: build_modality(spec) for spec in bundle.spec.modalities
        }
        self.limits = {m.name: limits_of(m) for m in bundle.spec.modalities}
        self.streams = [
            {name: Stream(modality) for name, modality in self.modalities.items()}
            for _ in range(streams)
        ]
        self._session = InferenceSession(engine, bundle.spec, bundle.health, streams)
        self.memory = Memory(bundle.spec, bundle.memory) if bundle.memory else None
        self.holds = self.memory.holds if self.memory else ()
        self._losses = Losses(self.memory, engine, streams) if self.memory else None
        self._assessors = [Assessor(self.modalities, bundle.statistics) for _ in self.streams]
        self._given: list[dict[str, Array]] = [{} for _ in self.streams]
        self._stands_in = _prior(streams, bundle.spec.joint_latent_dim)
        self._held_ns: list[int | None] = [None] * streams
        self._newest_ns = 0

    def update(self, name: str, value: Any, stamp_ns: int | None = None) -> None:
        """
        Take what a sensor gave; cheap, the work is done at the next :meth:`infer`.

        A value that cannot be used is not an error: the next result's health says why.

        :param value: the raw value of the modality's kind: an image ``uint8[H, W(, 3)]``, a
            :class:`Waveform`, a :class:`Motion`, a vector, a label. With several streams one value
            per stream, None where there is no news.
        :param stamp_ns: time of the value (ns since 1970); None for now.
        :raises ConfigError: if there is no such modality, or not one value per stream.
        """
        if name not in self.modalities:
            raise ConfigError(f'no modality "{name}"; the bundle has: {", ".join(self.names)}')
        values = [value] if len(self.streams) == 1 else value
        if len(values) != len(self.streams):
            raise ConfigError(f'{name}: {len(values)} values for {len(self.streams)} streams')
        now_ns = time.time_ns()
        at_ns = now_ns if stamp_ns is None else stamp_ns
        for stream, each in zip(self.streams, values):
            if each is not None:
                stream[name].take(each, at_ns, max(now_ns, at_ns), self.limits[name])

    def infer(
        self,
        wanted: Sequence[str] | None = None,
        now_ns: int | None = None,
        memory: bool = True,
    ) -> Result:
        """
        Fuse what is there, and generate what is wanted.

        :param wanted: modalities to generate; None for those that are missing (in any stream).
        :param now_ns: time by which values are old or not (ns since 1970); None for now.
        :param memory: whether what is missing is filled in from its last good value too.
        :raises ConfigError: if a wanted modality does not exist.
        """
        unknown = set(wanted or ()) - set(self.names)
        if unknown:
            raise ConfigError(f'no modality "{unknown.pop()}"; there are: {", ".join(self.names)}')
        now_ns = time.time_ns() if now_ns is None else now_ns
        readings = []
        for stream in self.streams:
            for each in stream.values():
                each.advance(now_ns)
            readings.append({name: each.snapshot() for name, each in stream.items()})
        missing = frozenset(self.names) if wanted is None else frozenset[str]()
        demand = Demand(missing, frozenset(wanted or ()), memory=memory)
        assessments = self._assess(readings, self.limits, USUAL_CHECKS, now_ns)
        mask = _mask(assessments, self.names)
        inference = self._infer(mask, demand, _prior(len(mask), self._stands_in[0].shape[1]))
        std = self._recall(inference, assessments, demand, now_ns)
        health = [assessment.verdicts for assessment in assessments]
        if len(self.streams) > 1:
            many = inference.reconstructions, health, std, inference.confidence
            return Result(inference.mean, inference.std, mask, *many)
        one = inference.stream(0, inference.reconstructions)
        about = one.reconstructions, health[0], {n: a[0] for n, a in std.items()}
        return Result(one.mean, one.std, mask[0], *about, float(one.confidence))

    def tick(
        self,
        readings: Sequence[Readings],
        limits: Mapping[str, Limits],
        demand: Demand,
        now_ns: int,
        checks: Checks = USUAL_CHECKS,
    ) -> list[Fused]:
        """
        Fuse what is fresh in every stream, generate what is demanded; by one thread at a time.

        :param readings: newest reading per modality, of each stream.
        :param limits: thresholds per modality.
        :param now_ns: time of the tick, on the clock of the stamps.
        :param checks: thresholds of all modalities.
        """
        begin = time.perf_counter()
        assessments = self._assess(readings, limits, checks, now_ns)
        ready = time.perf_counter()
        mask = _mask(assessments, self.names)
        sources = [
            self._source(k, bool(each.observed), demand.fallback)
            for k, each in enumerate(assessments)
        ]
        std: dict[str, Array] = {}
        inference = None
        if any(source != NONE for source in sources):
            otherwise = self._stands_in
            if demand.fallback == PRIOR:
                otherwise = _prior(*self._stands_in[0].shape)
            inference = self._infer(mask, demand, otherwise)
            recalled = self._recall(inference, assessments, demand, now_ns)
            std = self._uncertainty(inference, recalled, demand)
        stage_ms = {'prepare': (ready - begin) * 1e3, 'infer': (time.perf_counter() - ready) * 1e3}
        return [
            self._fused(k, assessment, sources[k], inference, std, demand, now_ns, stage_ms)
            for k, assessment in enumerate(assessments)
        ]

    def forget(self, streams: Iterable[int] | None = None) -> None:
        """Forget how the modalities were, and the last latents, of all streams or of some."""
        for k in range(len(self.streams)) if streams is None else streams:
            self._assessors[k].forget()
            self._held_ns[k] = None
            if self._losses:
                self._losses.forget(k)

    def adopt(self, before: Perception) -> None:
        """Go on with the streams of another bundle of the same modalities."""
        self.streams = before.streams
        for stream in self.streams:
            for name, each in stream.items():
                each.adopt(self.modalities[name])

    def warm_up(self) -> None:
        """Run everything once, so that the first tick is as fast as the others."""
        session = InferenceSession(self.engine, self.bundle.spec, self.bundle.health)
        for count in range(1, len(self.names) + 1):  # as many rows are judged at once as are new
            for name in self.names[:count]:
                session.update(name, np.zeros(self.modalities[name].shape, np.float32))
            session.judge(self.names[:count])
        session.infer(self.names, self.names)
        session.reconstruction_std(self.names)

    def describe(self) -> dict[str, Any]:
        """Facts about the model that consumers need, as plain data."""
        return {
            'bundle': self.bundle.name,
            'hash': self.bundle.hash,
            'frame_id': self.frame_id,
            'latent_dim': self.bundle.spec.joint_latent_dim,
            'labels': list(self.bundle.labels),
            'engine': self.engine.name,
            'device': self.engine.device,
            'precision': self.engine.precision,
            'modalities': [
                {
                    'name': name,
                    'kind': modality.spec.kind,
                    'shape': list(modality.shape),
                    'latent_dim': modality.spec.latent_dim,
                    'labels': list(modality.labels),
                    'preprocessing': modality.plain_options(),
                    'holds': name in self.holds,
                }
                for name, modality in self.modalities.items()
            ],
        }

    def _assess(
        self,
        readings: Sequence[Readings],
        limits: Mapping[str, Limits],
        checks: Checks,
        now_ns: int,
    ) -> list[Assessment]:
        """Check, transform, hand what is new to the session, compare."""
        if now_ns < self._newest_ns:
            self.forget()
        self._newest_ns = now_ns
        pairs = list(zip(self._assessors, readings))
        found = [assessor.assess(each, limits, checks, now_ns) for assessor, each in pairs]
        for k, assessment in enumerate(found):
            for name, array in assessment.observed.items():
                if self._given[k].get(name) is not array:
                    self._given[k][name] = array
                    self._session.update(name, array, k)
        judgements = (
            self._session.judge(_mask(found, self.names))
            if checks.agreement
            else [None] * len(found)
        )
        compared = [
            assessor.compare(assessment, judgement, checks, now_ns)
            for assessor, assessment, judgement in zip(self._assessors, found, judgements)
        ]
        if self._losses:
            suspect_ns = now_ns - int(checks.inconsistent_s * 1e9)
            for k, (each, read) in enumerate(zip(compared, readings)):
                used = {n: Entry(_stamp_ns(read[n]), a) for n, a in each.observed.items()}
                self._losses.follow(k, used, each.verdicts, limits, suspect_ns)
        return compared

    def _infer(
        self, mask: NDArray[Any], demand: Demand, otherwise: tuple[Array, Array]
    ) -> Inference:
        lacking = {name for name, used in zip(self.names, mask.T) if not used.all()}
        wanted = demand.always | (demand.missing & lacking)
        names = [name for name in self.names if name in wanted]
        return self._session.infer(mask, names, demand.sample, otherwise)

    def _recall(
        self, inference: Inference, found: Sequence[Assessment], demand: Demand, now_ns: int
    ) -> dict[str, Array]:
        """Let the memory fill in what it can of what was generated; returns its std."""
        if self._losses is None or demand.sample or not demand.memory:
            return {}
        observed = [each.observed for each in found]
        return self._losses.recall(inference.reconstructions, observed, now_ns)

    def _uncertainty(
        self, inference: Inference, recalled: Mapping[str, Array], demand: Demand
    ) -> dict[str, Array]:
        """Std of what is generated, where wanted: the memory's, or over latent samples."""
        std = {name: recalled[name] for name in demand.std & recalled.keys()}
        wanted = [name for name in inference.reconstructions if name in demand.std]
        drawn = [name for name in wanted if name not in std or np.isnan(std[name]).any()]
        if drawn:
            made = self._session.reconstruction_std(drawn, demand.std_samples)
            for name, array in made.items():
                own = std.get(name, array)
                std[name] = np.where(np.isnan(own), array, own)
        return std

    def _source(self, k: int, observed: bool, fallback: str) -> str:
        if observed:
            return OBSERVED
        possible = fallback == PRIOR or (fallback == HOLD and self._held_ns[k] is not None)
        return fallback if possible else NONE

    def _fused(
        self,
        k: int,
        assessment: Assessment,
        source: str,
        inference: Inference | None,
        std: Mapping[str, Array],
        demand: Demand,
        now_ns: int,
        stage_ms: Mapping[str, float],
    ) -> Fused:
        verdicts, observed = assessment.verdicts, assessment.observed
        if inference is None or source == NONE:
            return Fused(now_ns, verdicts, {}, None, stage_ms=stage_ms, source=NONE)
        made = inference.reconstructions
        names = [name for name in made if name in demand.always or name not in observed]
        result = inference.stream(k, names)
        stamp_ns = self._held_ns[k] if source == HOLD else assessment.stamp_ns
        stamp_ns = now_ns if stamp_ns is None else stamp_ns
        if source == OBSERVED:
            self._held_ns[k] = stamp_ns
            self._stands_in[0][k], self._stands_in[1][k] = result.mean, result.std
        spread = {name: array[k] for name, array in std.items() if name in names}
        errors = {
            name: self.modalities[name].error(result.reconstructions[name], truth)
            for name, truth in assessment.switched_off.items()
            if name in names
        }
        disagree = assessment.disagree
        return Fused(
            stamp_ns, verdicts, observed, result, spread, stage_ms, source, disagree, errors
        )


def _stamp_ns(reading: Reading | None) -> int:
    return reading.value.stamp_ns if reading and reading.value else 0


def _prior(streams: int, latent_dim: int) -> tuple[Array, Array]:
    return np.zeros((streams, latent_dim), np.float32), np.ones((streams, latent_dim), np.float32)


def _mask(assessments: Sequence[Assessment], names: Sequence[str]) -> NDArray[Any]:
    """Which modalities can be used, ``bool[N, M]``."""
    return np.array([[name in each.observed for name in names] for each in assessments])
