"""The shapes that a bundle's spec asks for against those of its weights."""

from __future__ import annotations

import torch

from mm_perception.bundle import Bundle
from mm_perception.errors import BundleError, MMPerceptionError
from mm_perception.model.build import build_model


def check_shapes(bundle: Bundle) -> None:
    """
    Compare spec and weights before a network of the spec's sizes takes any memory.

    :raises BundleError: if they do not fit exactly, or the spec cannot be built.
    """
    try:
        with torch.device('meta'):
            model = build_model(bundle.spec)
    except (MMPerceptionError, RuntimeError, ValueError, TypeError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise BundleError(f'{bundle.path}: its spec cannot be built: {reason}') from error
    # Numbers alone are saved as arrays of one.
    asked = {name: tuple(value.shape) or (1,) for name, value in model.state_dict().items()}
    there = {name: array.shape or (1,) for name, array in bundle.weights.items()}
    for name in (*asked, *there):
        if asked.get(name) != there.get(name):
            raise BundleError(
                f'{bundle.path}: weights do not fit the spec: {name[:80]!r} has shape'
                f' {there.get(name)}, the spec asks for {asked.get(name)}; get the bundle again'
            )
