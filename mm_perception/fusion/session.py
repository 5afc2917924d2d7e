"""The incremental session of one stream or many: encode what changed, decode what is wanted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.bundle import Health
from mm_perception.engines.engine import Engine
from mm_perception.errors import InvalidInput, NothingObserved
from mm_perception.fusion.confidence import read_confidence
from mm_perception.fusion.consistency import ConsistencyCheck, Judgement
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import Array
from mm_perception.spec import ModelSpec


@dataclass(frozen=True)
class Inference:
    """
    Result of one fusion, with a first axis of streams; :meth:`stream` takes that away.

    :param mean: of the joint posterior, ``float32[N, D]``; ``std``: likewise.
    :param reconstructions: expected data per wanted modality, ``float32[N, *shape]``.
    :param confidence: probability that the label that the mean gives is right, 0..1,
        ``float32[N]``; NaN where nothing is present, or the bundle cannot tell.
    """

    mean: Array
    std: Array
    reconstructions: dict[str, Array]
    confidence: Array

    def stream(self, k: int, names: Collection[str]) -> Inference:
        """Part of one stream, with the reconstructions of some modalities."""
        made = {name: self.reconstructions[name][k] for name in names}
        return Inference(self.mean[k], self.std[k], made, self.confidence[k])


class InferenceSession:
    """
    Fusion of streams: a modality is encoded again only when its data changed.

    :param engine: the networks.
    :param spec: the model that they belong to.
    :param health: calibration of the health checks, as the bundle has it.
    :param streams: how many are fused as one batch.
    :raises BundleError: if that calibration does not fit the model.
    """

    def __init__(
        self,
        engine: Engine,
        spec: ModelSpec,
        health: Health | None = None,
        streams: int = 1,
    ) -> None:
        self.engine = engine
        self.spec = spec
        self.streams = streams
        self._check = ConsistencyCheck(engine, spec, health) if health else None
        self._confidence = read_confidence(spec, health) if health else None
        self._evidence: list[dict[str, Array]] = [{} for _ in range(streams)]
        self._judged: list[tuple[tuple[str, ...], Judgement] | None] = [None] * streams
        self._shapes = {m.name: build_modality(m).shape for m in spec.modalities}
        self._codes: dict[str, Array] = {
            name: np.zeros((streams, size), np.float32) for name, size in engine.code_dims.items()
        }
        self._changed: dict[str, dict[int, Array]] = {name: {} for name in spec.names}
        self._known = np.zeros((streams, len(spec.names)), bool)
        self._generator = np.random.default_rng(0)
        self._joint: tuple[Array, Array] | None = None

    def update(self, name: str, array: Array, stream: int = 0) -> None:
        """
        Take new data of a modality; cheap, the encoder runs at the next :meth:`infer`.

        :param array: ``float32[*shape]``.
        :raises InvalidInput: if the shape is not the modality's.
        """
        if array.shape != self._shapes[name]:
            raise InvalidInput(
                f'{name} has shape {array.shape}; the model takes {self._shapes[name]}'
            )
        self._changed[name][stream] = array
        self._known[stream, self.spec.names.index(name)] = True

    def infer(
        self,
        present: Collection[str] | NDArray[Any],
        wanted: Collection[str],
        sample: bool = False,
        otherwise: tuple[Array, Array] | None = None,
    ) -> Inference:
        """
        Fuse the present modalities and generate the wanted ones.

        :param present: modalities to use, by name or as ``bool[N, M]``; each must have been
            updated at least once.
        :param wanted: modalities to generate, from the joint posterior.
        :param sample: generate from a sample of the joint posterior instead of its mean.
        :param otherwise: mean and std, ``float32[N, D]`` each, for streams with nothing present.
        :raises NothingObserved: if nothing is present in a stream, and nothing stands in.
        """
        mask = self._mask(present)
        self._encode(mask)
        self._joint = mean, std = self._fuse(mask, otherwise)
        joint = self._sample(1)[:, 0] if sample else mean
        made = {name: self.engine.decode(name, joint) for name in wanted}
        confidence = self._confide(mask, mean, std, {} if sample else made)
        return Inference(mean, std, made, confidence)

    def judge(self, present: Collection[str] | NDArray[Any]) -> list[Judgement | None]:
        """
        Say of each stream whether its modalities agree; worked out again only for other data.

        :param present: modalities to compare, those that were left out of the fusion as
            contradicted too; each must have been updated at least once.
        :returns: None where fewer than two are present, or the bundle carries no calibration.
        :raises NothingObserved: if data of a present modality was never given.
        """
        found: list[Judgement | None] = [None] * self.streams
        if self._check is None:
            return found
        mask = self._mask(present)
        self._encode(mask)
        groups: dict[tuple[str, ...], list[int]] = {}
        for k in np.flatnonzero(mask.sum(1) > 1).tolist():
            names = tuple(name for name, here in zip(self.spec.names, mask[k]) if here)
            judged = self._judged[k]
            if judged is not None and judged[0] == names:
                found[k] = judged[1]
            else:
                groups.setdefault(names, []).append(k)
        self._read(self._check, groups)
        for names, rows in groups.items():
            evidence = np.stack([[self._evidence[k][name] for name in names] for k in rows])
            for k, judgement in zip(rows, self._check.judge(names, evidence)):
                found[k] = judgement
                self._judged[k] = names, judgement
        return found

    def reconstruction_std(self, wanted: Collection[str], samples: int = 16) -> dict[str, Array]:
        """
        Per-element standard deviation of what is generated, over latent samples.

        Latents below the joint one are sampled too where the engine draws.

        :param samples: number of samples of the last joint posterior.
        :returns: ``float32[N, *shape]`` per wanted modality.
        :raises NothingObserved: before the first :meth:`infer`.
        """
        joint = self._sample(samples).reshape(self.streams * samples, -1)

        def draw(name: str) -> Array:
            if not self.engine.draws:
                return self.engine.decode(name, joint)
            return self.engine.decode_sample(name, joint, int(self._generator.integers(2**31)))

        made = {name: draw(name) for name in wanted}
        shape = (self.streams, samples)
        return {n: array.reshape(*shape, *array.shape[1:]).std(1) for n, array in made.items()}

    def _mask(self, present: Collection[str] | NDArray[Any]) -> NDArray[Any]:
        if isinstance(present, np.ndarray):
            return present
        row = [name in present for name in self.spec.names]
        return np.array([row] * self.streams)

    def _encode(self, mask: NDArray[Any]) -> None:
        unknown = (mask & ~self._known).any(0)
        if unknown.any():
            missing = ', '.join(sorted(np.array(self.spec.names)[unknown]))
            raise NothingObserved(f'no data of {missing} was given yet')
        for column, name in enumerate(self.spec.names):
            changed = self._changed[name]
            rows = [k for k in changed if mask[k, column]] if changed else []
            if not rows:
                continue
            data = [changed.pop(k) for k in rows]
            batch = data[0][None] if len(data) == 1 else np.stack(data)
            self._codes[name][rows] = self.engine.encode(name, batch)
            for k in rows:
                self._evidence[k].pop(name, None)
                self._judged[k] = None

    def _fuse(
        self, mask: NDArray[Any], otherwise: tuple[Array, Array] | None
    ) -> tuple[Array, Array]:
        rows = mask.any(1)
        if rows.all() or otherwise is None:
            return self.engine.fuse(self._codes, mask)
        mean, std = (part.copy() for part in otherwise)
        if rows.any():
            codes = {name: code[rows] for name, code in self._codes.items()}
            mean[rows], std[rows] = self.engine.fuse(codes, mask[rows])
        return mean, std

    def _confide(
        self, mask: NDArray[Any], mean: Array, std: Array, made: Mapping[str, Array]
    ) -> Array:
        """How likely the labels that the joint means give are right, ``float32[N]``."""
        found = np.full(self.streams, np.nan, np.float32)
        rows = np.flatnonzero(mask.any(1))
        if self._check is None or self._confidence is None or not len(rows):
            return found
        names = self.spec.names
        seen = {k: tuple(n for n, here in zip(names, mask[k]) if here) for k in rows.tolist()}
        self._read(
            self._check, {used: [k for k in seen if seen[k] == used] for used in seen.values()}
        )
        nothing = np.zeros(self._check.classes)
        evidence = np.stack(
            [[self._evidence[k][n] if n in seen[k] else nothing for n in names] for k in seen]
        )
        name = self._confidence.name
        labels = made[name][rows] if name in made else self.engine.decode(name, mean[rows])
        surprise = self._check.largest_surprise(evidence, mask[rows])
        found[rows] = self._confidence(labels, evidence, surprise, std[rows])
        return found

    def _read(self, check: ConsistencyCheck, groups: Mapping[tuple[str, ...], list[int]]) -> None:
        """Read what each modality alone says where it is not known, in one pass for all."""
        wanted = [
            (k, name)
            for names, rows in groups.items()
            for k in rows
            for name in names
            if name not in self._evidence[k]
        ]
        if not wanted:
            return
        rows, names = [k for k, _ in wanted], [name for _, name in wanted]
        codes = {name: code[rows] for name, code in self._codes.items()}
        for (k, name), evidence in zip(wanted, check.read(codes, names)):
            self._evidence[k][name] = evidence

    def _sample(self, count: int) -> Array:
        """Samples of the last joint posteriors, ``float32[N, count, D]``."""
        if self._joint is None:
            raise NothingObserved('nothing was fused yet')
        mean, std = self._joint
        shape = (len(mean), count, mean.shape[1])
        noise = self._generator.standard_normal(shape, dtype=np.float32)
        return mean[:, None] + std[:, None] * noise
