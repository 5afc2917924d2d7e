"""The model as a method of the protocol, without memory."""

from __future__ import annotations

import numpy as np

from mm_perception.data.dataset import Dataset
from mm_perception.engines.engine import Engine
from mm_perception.evaluation.generation import encode_all, presence
from mm_perception.modalities.base import Array


class ModelAlone:
    """Generate the lost modality from what the observed ones show now; nothing is remembered."""

    name = 'ours:no_memory'

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: tuple[Dataset, dict[str, Array]] | None = None

    def fit(self, dataset: Dataset) -> None:
        """Learn nothing: the model is trained."""

    def predict(
        self,
        dataset: Dataset,
        target: str,
        observed: tuple[str, ...],
        lost: np.ndarray,
        now: np.ndarray,
    ) -> Array:
        """Fuse the observed modalities of ``now``, and decode the target."""
        if self._kept is None or self._kept[0] is not dataset:
            self._kept = dataset, encode_all(self._engine, dataset)
        codes = {name: code[now] for name, code in self._kept[1].items()}
        present = np.repeat(presence(dataset.names, observed)[None], len(now), axis=0)
        mean, _ = self._engine.fuse(codes, present)
        return self._engine.decode(target, mean)
