"""One bundle at work: readings in, verdicts, latent and reconstructions out. Knows no ROS."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.engines.engine import Engine
from mm_perception.fusion.assessment import Assessment, Assessor
from mm_perception.fusion.health import (
    WHEN_HOLD,
    WHEN_PRIOR,
    WHEN_SILENT,
    Checks,
    Limits,
    Reading,
    Verdict,
)
from mm_perception.fusion.session import Inference, InferenceSession, generated_std
from mm_perception.modalities import Modality, build_modality


@dataclass(frozen=True)
class Substitute:
    """
    A latent that no sensor gave.

    :param source: ``hold`` or ``prior``.
    :param stamp_ns: of the values that a held latent came from; of the tick for the prior.
    """

    source: str
    stamp_ns: int
    mean: np.ndarray
    std: np.ndarray


class Fallback:
    """
    Remembers the last latent, and stands in for one.

    :param engine: generates from the latent.
    :param latent_dim: size of the latent.
    """

    def __init__(self, engine: Engine, latent_dim: int) -> None:
        self._engine = engine
        self._prior = np.zeros(latent_dim, np.float32), np.ones(latent_dim, np.float32)
        self._random = np.random.default_rng(0)
        self._last: Substitute | None = None

    def keep(self, result: Inference, stamp_ns: int) -> None:
        """Remember a latent that sensors gave."""
        self._last = Substitute(WHEN_HOLD, stamp_ns, result.mean, result.std)

    def forget(self) -> None:
        """Forget it, as after a jump in time."""
        self._last = None

    def substitute(self, when_nothing: str, now_ns: int) -> Substitute | None:
        """What to publish now: the last latent, the prior, or nothing."""
        if when_nothing == WHEN_PRIOR:
            return Substitute(WHEN_PRIOR, now_ns, *self._prior)
        return self._last if when_nothing == WHEN_HOLD else None

    def generate(self, latent: Substitute, wanted: Collection[str], sample: bool) -> Inference:
        """Generate the wanted modalities from it."""
        joint = self._samples(latent, 1) if sample else latent.mean[None]
        decoded = {name: self._engine.decode(name, joint)[0] for name in wanted}
        return Inference(latent.mean, latent.std, decoded)

    def generated_std(
        self, latent: Substitute, wanted: Collection[str], samples: int
    ) -> dict[str, np.ndarray]:
        """Per-element standard deviation of what is generated from it."""
        joint = self._samples(latent, samples)
        return generated_std(self._engine, joint, wanted, self._random)

    def _samples(self, latent: Substitute, count: int) -> np.ndarray:
        noise = self._random.standard_normal((count, len(latent.mean)), dtype=np.float32)
        return latent.mean + latent.std * noise


USUAL_CHECKS = Checks()
OBSERVED, NONE = 'observed', 'none'


@dataclass(frozen=True)
class Demand:
    """
    What somebody wants to have generated.

    :param missing: modalities wanted while they are missing.
    :param always: modalities wanted in any case.
    :param std: modalities whose uncertainty is wanted.
    :param std_samples: latent samples for the uncertainty.
    :param sample: generate from a sample of the joint posterior, not from its mean.
    :param when_nothing: what to give while nothing is observed: silent, hold or prior.
    """

    missing: frozenset[str] = frozenset()
    always: frozenset[str] = frozenset()
    std: frozenset[str] = frozenset()
    std_samples: int = 16
    sample: bool = False
    when_nothing: str = WHEN_SILENT


@dataclass(frozen=True)
class Fused:
    """
    Result of one tick.

    :param stamp_ns: of the newest value that the latent came from; of the tick if none did.
    :param verdicts: per modality.
    :param observed: model arrays of the modalities that took part.
    :param result: latent and reconstructions; None if nothing was observed or stands in.
    :param std: uncertainty of what was generated, where wanted.
    :param stage_ms: duration of each stage.
    :param source: of the latent: observed, hold, prior, or none.
    :param disagree: whether the modalities contradict each other and none is to blame.
    """

    stamp_ns: int
    verdicts: Mapping[str, Verdict]
    observed: Mapping[str, np.ndarray]
    result: Inference | None
    std: Mapping[str, np.ndarray] = field(default_factory=dict)
    stage_ms: Mapping[str, float] = field(default_factory=dict)
    source: str = OBSERVED
    disagree: bool = False


class Fusion:
    """
    Fuses readings with one bundle; used by one thread at a time.

    :param bundle: the trained model.
    :param engine: an engine of that bundle.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.bundle = bundle
        self.engine = engine
        self.modalities: dict[str, Modality[Any]] = {
            spec.name: build_modality(spec) for spec in bundle.spec.modalities
        }
        self._session = InferenceSession(engine, bundle.spec, bundle.health)
        self._supervision = Assessor(self.modalities, bundle.statistics, self._session)
        self._fallback = Fallback(engine, bundle.spec.joint_latent_dim)
        self._newest_ns = 0

    def describe(self) -> dict[str, Any]:
        """Facts about the model that consumers need, as plain data."""
        return {
            'bundle': self.bundle.name,
            'hash': self.bundle.hash,
            'frame_id': self.bundle.frame_id,
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
                }
                for name, modality in self.modalities.items()
            ],
        }

    def warm_up(self) -> None:
        """Run everything once, so that the first tick is as fast as the others."""
        names = list(self.modalities)
        for count in range(1, len(names) + 1):  # as many rows are judged at once as are new
            session = InferenceSession(self.engine, self.bundle.spec, self.bundle.health)
            for name in names[:count]:
                session.update(name, np.zeros(self.modalities[name].shape, np.float32))
            session.judge(names[:count])
        session.infer(names, names)
        session.reconstruction_std(names)

    def forget(self) -> None:
        """Forget how the modalities were, and the last latent."""
        self._supervision.forget()
        self._fallback.forget()

    def tick(
        self,
        readings: Mapping[str, Reading | None],
        limits: Mapping[str, Limits],
        demand: Demand,
        now_ns: int,
        checks: Checks | None = None,
    ) -> Fused:
        """
        Fuse what is fresh, generate what is wanted.

        :param readings: newest reading per modality.
        :param limits: thresholds per modality.
        :param now_ns: time of the tick, on the clock of the stamps.
        :param checks: thresholds of all modalities; None for the usual ones.
        """
        begin = time.perf_counter()
        if now_ns < self._newest_ns:
            self.forget()
        self._newest_ns = now_ns
        survey = self._supervision.survey(readings, limits, checks or USUAL_CHECKS, now_ns)
        prepared = time.perf_counter()
        infer = self._infer if survey.observed else self._stand_in
        fused = infer(survey, demand, now_ns)
        stage_ms = {
            'prepare': (prepared - begin) * 1e3,
            'infer': (time.perf_counter() - prepared) * 1e3,
        }
        return replace(fused, stage_ms=stage_ms)

    def _infer(self, survey: Assessment, demand: Demand, now_ns: int) -> Fused:
        observed = survey.observed
        wanted = self._wanted(observed, demand)
        result = self._session.infer(observed, wanted, demand.sample)
        stamp_ns = now_ns if survey.stamp_ns is None else survey.stamp_ns
        self._fallback.keep(result, stamp_ns)
        uncertain = [name for name in wanted if name in demand.std]
        std = self._session.reconstruction_std(uncertain, demand.std_samples) if uncertain else {}
        return Fused(stamp_ns, survey.verdicts, observed, result, std, disagree=survey.disagree)

    def _stand_in(self, survey: Assessment, demand: Demand, now_ns: int) -> Fused:
        """Give what is wanted while nothing is observed."""
        latent = self._fallback.substitute(demand.when_nothing, now_ns)
        if latent is None:
            return Fused(now_ns, survey.verdicts, {}, None, source=NONE)
        wanted = self._wanted({}, demand)
        uncertain = [name for name in wanted if name in demand.std]
        return Fused(
            latent.stamp_ns,
            survey.verdicts,
            {},
            self._fallback.generate(latent, wanted, demand.sample),
            self._fallback.generated_std(latent, uncertain, demand.std_samples),
            source=latent.source,
        )

    def _wanted(self, observed: Mapping[str, np.ndarray], demand: Demand) -> list[str]:
        missing = demand.missing - set(observed)
        return [name for name in self.modalities if name in demand.always or name in missing]
