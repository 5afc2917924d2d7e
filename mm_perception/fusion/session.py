"""The incremental session: encode what changed, decode what is wanted."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from mm_perception.bundle import Health
from mm_perception.engines.engine import Engine
from mm_perception.errors import InvalidInput, NothingObserved
from mm_perception.fusion.consistency import ConsistencyCheck, Judgement
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import Array
from mm_perception.spec import ModelSpec


@dataclass(frozen=True)
class Inference:
    """
    Result of one fusion.

    :param mean: of the joint posterior, ``float32[D]``.
    :param std: of the joint posterior, ``float32[D]``.
    :param reconstructions: expected data per wanted modality, ``float32[*shape]``.
    """

    mean: Array
    std: Array
    reconstructions: dict[str, Array]


class InferenceSession:
    """
    Fusion of a stream: a modality is encoded again only when its data changed.

    :param engine: the networks.
    :param spec: the model that they belong to.
    :param health: calibration of the health checks, as the bundle has it.
    :raises BundleError: if that calibration does not fit the model.
    """

    def __init__(self, engine: Engine, spec: ModelSpec, health: Health | None = None) -> None:
        self.engine = engine
        self.spec = spec
        self._agreement = ConsistencyCheck(engine, spec, health) if health else None
        self._evidence: dict[str, np.ndarray] = {}
        self._judged: tuple[set[str], Judgement] | None = None
        self._shapes = {m.name: build_modality(m).shape for m in spec.modalities}
        self._codes: dict[str, Array] = {
            name: np.zeros((1, size), np.float32) for name, size in engine.code_dims.items()
        }
        self._changed: dict[str, Array] = {}
        self._known: set[str] = set()
        self._generator = np.random.default_rng(0)
        self._joint: tuple[Array, Array] | None = None

    def update(self, name: str, array: Array) -> None:
        """
        Take new data of a modality; cheap, the encoder runs at the next :meth:`infer`.

        :param array: ``float32[*shape]``.
        :raises InvalidInput: if the shape is not the modality's.
        """
        if array.shape != self._shapes[name]:
            raise InvalidInput(
                f'{name} has shape {array.shape}; the model takes {self._shapes[name]}'
            )
        self._changed[name] = array
        self._known.add(name)

    def infer(
        self, present: Collection[str], wanted: Collection[str], sample: bool = False
    ) -> Inference:
        """
        Fuse the present modalities and generate the wanted ones.

        :param present: modalities to use; each must have been updated at least once.
        :param wanted: modalities to generate, from the joint posterior.
        :param sample: generate from a sample of the joint posterior instead of its mean.
        :raises NothingObserved: if nothing is present.
        """
        self._encode(present)
        mask = np.array([[name in present for name in self.spec.names]])
        mean, std = self.engine.fuse(self._codes, mask)
        self._joint = mean, std
        joint = self._sample(1) if sample else mean
        decoded = {name: self.engine.decode(name, joint)[0] for name in wanted}
        return Inference(mean[0], std[0], decoded)

    def judge(self, present: Collection[str]) -> Judgement | None:
        """
        Say whether the present modalities agree; worked out again only for other data.

        :param present: modalities to compare, those that were left out of the fusion as
            contradicted too; each must have been updated at least once.
        :returns: None if the bundle carries no calibration.
        :raises NothingObserved: if data of a present modality was never given.
        """
        if self._agreement is None:
            return None
        self._encode(present)
        if self._judged is None or self._judged[0] != set(present):
            new = [name for name in present if name not in self._evidence]
            if new:
                self._evidence |= self._agreement.read(self._codes, new)
            evidence = {name: self._evidence[name] for name in present}
            self._judged = set(present), self._agreement.judge(evidence)
        return self._judged[1]

    def reconstruction_std(self, wanted: Collection[str], samples: int = 16) -> dict[str, Array]:
        """
        Per-element standard deviation of what is generated, see :func:`generated_std`.

        :param samples: number of samples of the last joint posterior.
        :returns: ``float32[*shape]`` per wanted modality.
        :raises NothingObserved: before the first :meth:`infer`.
        """
        return generated_std(self.engine, self._sample(samples), wanted, self._generator)

    def _encode(self, present: Collection[str]) -> None:
        if not self._known.issuperset(present):
            missing = ', '.join(sorted(set(present) - self._known))
            raise NothingObserved(f'no data of {missing} was given yet')
        for name in [name for name in present if name in self._changed]:
            self._codes[name] = self.engine.encode(name, self._changed.pop(name)[None])
            self._evidence.pop(name, None)
            self._judged = None

    def _sample(self, count: int) -> Array:
        if self._joint is None:
            raise NothingObserved('nothing was fused yet')
        mean, std = self._joint
        noise = self._generator.standard_normal((count, mean.shape[1]), dtype=np.float32)
        return mean + std * noise


def generated_std(
    engine: Engine, joint: Array, wanted: Collection[str], random: np.random.Generator
) -> dict[str, Array]:
    """
    Per-element standard deviation of what is generated, over latent samples.

    :param joint: samples of one joint posterior, ``float32[samples, D]``; the latents below are
        sampled too where the engine draws.
    :returns: ``float32[*shape]`` per wanted modality.
    """

    def draw(name: str) -> Array:
        if not engine.draws:
            return engine.decode(name, joint)
        return engine.decode_sample(name, joint, int(random.integers(2**31)))

    return {name: draw(name).std(axis=0) for name in wanted}
