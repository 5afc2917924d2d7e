"""The reference engine: PyTorch, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from mm_perception.bundle import Bundle
from mm_perception.errors import EngineUnavailable, NothingObserved
from mm_perception.inference.graphs import SMALL_MODEL_THREADS
from mm_perception.inference.shapes import check_shapes
from mm_perception.modalities.raw import Array
from mm_perception.model.base import MultimodalModel, Posterior
from mm_perception.model.build import build_model


class TorchEngine:
    """
    Eager PyTorch in evaluation mode.

    :param device: ``auto``, ``cpu`` or ``cuda``.
    :param threads: of the processor, for the whole process; 0 for what suits small models.
    :param reason: why this engine and device.
    """

    name = 'torch'

    def __init__(
        self, bundle: Bundle, device: str = 'auto', threads: int = 0, reason: str = ''
    ) -> None:
        cuda = torch.cuda.is_available()
        if device == 'cuda' and not cuda:
            raise EngineUnavailable('device cuda: no CUDA GPU is usable here; use device cpu')
        self.device = 'cuda' if cuda and device != 'cpu' else 'cpu'
        self.reason = reason
        torch.set_num_threads(threads or min(SMALL_MODEL_THREADS, torch.get_num_threads()))
        self._device = torch.device(self.device)
        self._model = load_model(bundle).to(self._device)
        self.fuses = self._model.fuses
        self.predicts = self._model.predicts
        self.code_dims = self._model.code_dims

    @torch.inference_mode()
    def encode(self, name: str, data: Array) -> Array:
        """Code of a modality, see :class:`Engine`."""
        return _numpy(self._model.encode(name, self._tensor(data)))

    @torch.inference_mode()
    def fuse(self, codes: Mapping[str, Array], present: np.ndarray) -> tuple[Array, Array]:
        """Mean and standard deviation of the joint posterior, see :class:`Engine`."""
        joint = self._posterior(codes, present)
        return _numpy(joint.mean), _numpy(joint.std)

    @torch.inference_mode()
    def fuse_sample(self, codes: Mapping[str, Array], present: np.ndarray, seed: int) -> Array:
        """Sample of the joint posterior, see :class:`Engine`."""
        generator = torch.Generator(self._device).manual_seed(seed)
        return _numpy(self._posterior(codes, present).sample(generator))

    @torch.inference_mode()
    def predict(self, name: str, joint: Array) -> Array:
        """Expected latent of one modality, see :class:`Engine`."""
        return _numpy(self._model.predict(name, self._tensor(joint)))

    @torch.inference_mode()
    def decode(self, name: str, joint: Array) -> Array:
        """Expected data of one modality, see :class:`Engine`."""
        return _numpy(self._model.decode(name, self._tensor(joint)))

    @torch.inference_mode()
    def decode_sample(self, name: str, joint: Array, seed: int) -> Array:
        """Data of one modality with its own latent sampled, see :class:`Engine`."""
        generator = torch.Generator(self._device).manual_seed(seed)
        return _numpy(self._model.decode_sample(name, self._tensor(joint), generator))

    def _posterior(self, codes: Mapping[str, Array], present: np.ndarray) -> Posterior:
        if not present.any(axis=1).all():
            raise NothingObserved('no modality is present; at least one is needed to fuse')
        tensors = {name: self._tensor(code) for name, code in codes.items()}
        mask = torch.from_numpy(np.ascontiguousarray(present)).to(self._device)
        return self._model.fuse(tensors, mask)

    def _tensor(self, array: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self._device)


def load_model(bundle: Bundle) -> MultimodalModel:
    """
    Build the model of a bundle with its weights, in evaluation mode, on the CPU.

    :raises BundleError: if the weights do not fit the spec exactly.
    """
    check_shapes(bundle)
    model = build_model(bundle.spec)
    weights = {name: torch.from_numpy(np.array(array)) for name, array in bundle.weights.items()}
    model.load_state_dict(weights, strict=True)
    return model.eval()


def _numpy(tensor: torch.Tensor) -> Array:
    return tensor.float().cpu().numpy()
