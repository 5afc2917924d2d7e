"""One bundle at work: readings in, verdicts, latent and reconstructions out. Knows no ROS."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mm_perception.bundle import Bundle
from mm_perception.errors import InvalidInput
from mm_perception.inference import Engine, Inference, InferenceSession
from mm_perception.modalities import Modality, Stamped, build_modality
from mm_perception.ros.health import Limits, State, Verdict, judge
from mm_perception.ros.slots import Reading


@dataclass(frozen=True)
class Demand:
    """
    What somebody wants to have generated.

    :param missing: modalities wanted while they are missing.
    :param always: modalities wanted in any case.
    :param std: modalities whose uncertainty is wanted.
    :param std_samples: latent samples for the uncertainty.
    :param sample: generate from a sample of the joint posterior, not from its mean.
    """

    missing: frozenset[str] = frozenset()
    always: frozenset[str] = frozenset()
    std: frozenset[str] = frozenset()
    std_samples: int = 16
    sample: bool = False


@dataclass(frozen=True)
class Fused:
    """
    Result of one tick.

    :param stamp_ns: of the newest value that took part; of the tick if nothing did.
    :param verdicts: per modality.
    :param observed: model arrays of the modalities that took part.
    :param result: latent and reconstructions; None if nothing was observed.
    :param std: uncertainty of what was generated, where wanted.
    :param stage_ms: duration of each stage.
    """

    stamp_ns: int
    verdicts: Mapping[str, Verdict]
    observed: Mapping[str, np.ndarray]
    result: Inference | None
    std: Mapping[str, np.ndarray] = field(default_factory=dict)
    stage_ms: Mapping[str, float] = field(default_factory=dict)


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
        self._session = InferenceSession(self.engine, self.bundle.spec)
        self._prepared: dict[str, tuple[Stamped, np.ndarray | str]] = {}

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
        session = InferenceSession(self.engine, self.bundle.spec)
        for name, modality in self.modalities.items():
            session.update(name, np.zeros(modality.shape, np.float32))
        session.infer(self.modalities, self.modalities)

    def tick(
        self,
        readings: Mapping[str, Reading | None],
        limits: Mapping[str, Limits],
        demand: Demand,
        now_ns: int,
    ) -> Fused:
        """
        Fuse what is fresh, generate what is wanted.

        :param readings: newest reading per modality.
        :param limits: thresholds per modality.
        :param now_ns: time of the tick, on the clock of the stamps.
        """
        begin = time.perf_counter()
        verdicts, observed, stamps = {}, {}, []
        for name in self.modalities:
            reading = readings[name]
            verdict = judge(reading, limits[name], now_ns)
            if verdict.used and reading is not None and reading.value is not None:
                array = self._prepare(name, reading.value)
                if isinstance(array, str):
                    verdict = replace(verdict, state=State.REJECTED, used=False, reason=array)
                else:
                    observed[name] = array
                    stamps.append(reading.value.stamp_ns)
            verdicts[name] = verdict
        prepared = time.perf_counter()
        result, std = self._infer(observed, demand) if observed else (None, {})
        stage_ms = {
            'prepare': (prepared - begin) * 1e3,
            'infer': (time.perf_counter() - prepared) * 1e3,
        }
        stamp_ns = max(stamps, default=now_ns)
        return Fused(stamp_ns, verdicts, observed, result, std, stage_ms)

    def _prepare(self, name: str, value: Stamped) -> np.ndarray | str:
        """Model array of a value, or why there is none; worked out once per value."""
        known = self._prepared.get(name)
        if known is not None and known[0] is value:
            return known[1]
        array: np.ndarray | str
        try:
            array = self.modalities[name].to_model(value.raw)
            self._session.update(name, array)
        except InvalidInput as error:
            array = str(error)
        self._prepared[name] = (value, array)
        return array

    def _infer(
        self, observed: Mapping[str, np.ndarray], demand: Demand
    ) -> tuple[Inference, dict[str, np.ndarray]]:
        wanted = [m for m in self.modalities if self._is_wanted(m, observed, demand)]
        result = self._session.infer(observed, wanted, demand.sample)
        uncertain = [name for name in wanted if name in demand.std]
        if not uncertain:
            return result, {}
        return result, self._session.reconstruction_std(uncertain, demand.std_samples)

    def _is_wanted(self, name: str, observed: Mapping[str, np.ndarray], demand: Demand) -> bool:
        return name in demand.always or (name in demand.missing and name not in observed)
