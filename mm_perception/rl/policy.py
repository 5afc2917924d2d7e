"""A trained policy on disk: an ONNX graph, and what it reads and gives. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.bundle import read_hashed, read_object
from mm_perception.config import from_plain, to_plain
from mm_perception.engines.onnx_engine import session_options
from mm_perception.errors import BundleError, ConfigError, InvalidInput
from mm_perception.modalities.base import Array

FORMAT = 1
ABOUT, GRAPH, FOLDER = 'policy.json', 'policy.onnx', 'policy'
MEAN, STD, MASK, AGE = PARTS = ('mean', 'std', 'mask', 'age')
DEFAULT_PARTS = (MEAN, STD, MASK)
OLDEST_S = 10.0
"""Ages stop here, those of modalities that never came too."""
MAX_ACTION = 1e9
_MAX_ABOUT_BYTES, _MAX_GRAPH_BYTES = 1 << 20, 256 << 20


@dataclass(frozen=True)
class Layout:
    """
    How a fused latent becomes the vector that a policy reads.

    :param modalities: of the bundle, in the order of its mask.
    :param latent_dim: D, size of the joint latent.
    :param parts: some of mean (D numbers), std (D), mask (one per modality, 0 or 1) and age (one
        per modality, in seconds, up to 10), in this order.
    """

    modalities: tuple[str, ...]
    latent_dim: int
    parts: tuple[str, ...] = DEFAULT_PARTS

    def __post_init__(self) -> None:
        known = tuple(part for part in PARTS if part in self.parts)
        if not known or known != self.parts or self.latent_dim < 1:
            raise ConfigError(
                f'observation: parts are {", ".join(self.parts)[:200] or "none"} of a latent of'
                f' {self.latent_dim}; give some of {", ".join(PARTS)}, in this order'
            )

    @property
    def size(self) -> int:
        """How many numbers an observation has."""
        sizes = {MEAN: self.latent_dim, STD: self.latent_dim}
        return sum(sizes.get(part, len(self.modalities)) for part in self.parts)

    def build(
        self, mean: Array, std: Array, mask: NDArray[Any], age_s: NDArray[Any] | None = None
    ) -> Array:
        """
        Put an observation together.

        :param mean: of the joint posterior, ``float32[..., D]``; ``std``: likewise.
        :param mask: which modalities were used, ``bool[..., M]``.
        :param age_s: of each modality's newest value, ``float[..., M]``; infinite if none came.
        :returns: ``float32[..., size]``.
        """
        ages = np.full(mask.shape, OLDEST_S) if age_s is None else age_s
        values = {MEAN: mean, STD: std, MASK: mask, AGE: np.clip(ages, 0.0, OLDEST_S)}
        chosen = [np.asarray(values[part], np.float32) for part in self.parts]
        return np.concatenate(chosen, axis=-1)


@dataclass(frozen=True)
class Actions:
    """
    What a policy gives.

    :param names: one per number, such as those of joints.
    :param low: least value of each, in the actuator's unit; ``high``: the greatest.
    :param scaled: whether the graph gives -1 to 1, which is brought to low to high; else its
        numbers are in the actuator's unit.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    scaled: bool = True

    def __post_init__(self) -> None:
        pairs = list(zip(self.low, self.high))
        fits = 0 < len(self.names) == len(self.low) == len(self.high)
        if not fits or not all(-MAX_ACTION <= a < b <= MAX_ACTION for a, b in pairs):
            raise ConfigError(
                f'actions: names, low and high need one pair low < high within {MAX_ACTION:g} per'
                ' name'
            )

    def limited(self, given: NDArray[Any]) -> Array:
        """Actions in the actuator's unit and within its limits, ``float32[..., A]``."""
        low, high = np.asarray(self.low), np.asarray(self.high)
        scaled = low + (given + 1.0) / 2.0 * (high - low) if self.scaled else given
        return np.clip(scaled, low, high).astype(np.float32)


@dataclass(frozen=True)
class PolicySpec:
    """
    Everything about a policy but its graph.

    :param bundle: name of the bundle whose latent it reads; ``bundle_hash``: its hash.
    :param rate_hz: how often it acts.
    :param algorithm: that trained it, with its settings.
    :param returns: that it reached, as far as they were measured.
    :param graph_sha256: of the file of the graph.
    """

    bundle: str
    bundle_hash: str
    observation: Layout
    actions: Actions
    rate_hz: float
    algorithm: Mapping[str, Any] = field(default_factory=dict)
    returns: Mapping[str, Any] = field(default_factory=dict)
    graph_sha256: str = ''


class Policy:
    """
    A policy, ready to act.

    :param spec: what it reads and gives.
    :param graph: ONNX with one input ``float32[B, size]`` and one output ``float32[B, A]``.
    :param path: its folder, for messages.
    :raises BundleError: if the graph cannot be run, or does not fit the spec.
    """

    def __init__(self, spec: PolicySpec, graph: bytes, path: Path | None = None) -> None:
        import onnxruntime

        self.spec, self.path, self._graph = spec, path, graph
        options = session_options(threads=1)
        try:
            self._session = onnxruntime.InferenceSession(graph, options, ['CPUExecutionProvider'])
            (taken,), (_,) = self._session.get_inputs(), self._session.get_outputs()
            self._input = taken.name
            given = self._run(np.zeros((2, spec.observation.size), np.float32))
            if given.shape != (2, len(spec.actions.names)):
                raise ValueError(f'gives {list(given.shape[1:])} numbers')
        except Exception as error:  # what a graph of anybody's making can raise has no end
            reason = ' '.join(str(error).split())[:200]
            raise BundleError(
                f'{self._where}: its graph does not take {spec.observation.size} numbers and give'
                f' {len(spec.actions.names)} ({reason}); export the policy again'
            ) from error

    @property
    def _where(self) -> str:
        return f'{self.path or "policy"}'

    def check_bundle(self, bundle_hash: str) -> None:
        """
        Refuse the latent of another bundle: its numbers mean something else.

        :param bundle_hash: of the bundle that the latent is of.
        :raises BundleError: if it is not the one that the policy was trained on.
        """
        if bundle_hash != self.spec.bundle_hash:
            raise BundleError(
                f'{self._where}: reads the latent of {self.spec.bundle}@'
                f'{self.spec.bundle_hash[:8]}, and this one is of {bundle_hash[:8]}; use that'
                ' bundle, or train the policy again: mm-perception train-policy'
            )

    def act(self, observation: Array) -> Array:
        """
        Choose actions.

        :param observation: ``float32[size]`` or ``float32[B, size]``, as the layout builds it.
        :returns: within limits, in the actuator's unit: ``float32[A]`` or ``float32[B, A]``.
        :raises InvalidInput: if the graph gives NaN.
        """
        single = observation.ndim == 1
        given = self._run(observation[None] if single else observation)
        actions = self.spec.actions.limited(given)
        if np.isnan(actions).any():
            raise InvalidInput('the policy gives NaN')
        return actions[0] if single else actions

    def save(self, folder: Path) -> None:
        """Write the policy into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(self._graph).hexdigest()
        about = {'format': FORMAT, **to_plain(self.spec), 'graph_sha256': digest}
        (folder / GRAPH).write_bytes(self._graph)
        (folder / ABOUT).write_text(json.dumps(about, indent=1) + '\n')

    def _run(self, observation: Array) -> Array:
        given: Array = self._session.run(None, {self._input: observation})[0]
        return given


def load_policy(path: str | Path) -> Policy:
    """
    Read a policy.

    :param path: its folder, or that of a bundle that has one in ``policy/``.
    :raises BundleError: if it is missing, truncated, altered, of another format or broken.
    """
    given = Path(path).expanduser()
    folder = next((f for f in (given, given / FOLDER) if (f / ABOUT).is_file()), None)
    if folder is None:
        raise BundleError(f'{given}: no policy (no {ABOUT}); make one: mm-perception train-policy')
    about = read_object(folder / ABOUT, _MAX_ABOUT_BYTES)
    if about.pop('format', None) != FORMAT:
        raise BundleError(f'{folder / ABOUT}: of another format; train the policy again')
    try:
        spec = from_plain(PolicySpec, about)
    except ConfigError as error:
        raise BundleError(f'{folder / ABOUT}: {error}') from error
    if not 0.0 < spec.rate_hz < math.inf:
        raise BundleError(f'{folder / ABOUT}: rate_hz is {spec.rate_hz}; give more than 0')
    graph = read_hashed(folder / GRAPH, _MAX_GRAPH_BYTES, spec.graph_sha256)
    return Policy(spec, graph, folder)
