"""
Cross-modality inference for robots: fuse whatever sensors deliver, fill in the rest.

The front door: :func:`load` a bundle, :meth:`Perception.update` what sensors give,
:meth:`Perception.infer` the latent and what is missing. It needs neither ROS nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm_perception.fusion.perception import Perception
    from mm_perception.fusion.results import Result
    from mm_perception.modalities import Motion, Waveform

__version__ = '0.1.0'
__all__ = ['Motion', 'Perception', 'Result', 'Waveform', 'load']
_PLACES = {
    'Motion': 'mm_perception.modalities',
    'Perception': 'mm_perception.fusion.perception',
    'Result': 'mm_perception.fusion.perception',
    'Waveform': 'mm_perception.modalities',
}


def load(
    bundle: str = 'mhd',
    device: str = 'auto',
    engine: str = 'auto',
    threads: int = 1,
    precision: str = 'float32',
    streams: int = 1,
) -> Perception:
    """
    Load a bundle, ready to fuse.

    :param bundle: a name under ``models/``, or a folder.
    :param device: ``auto``, ``cpu`` or ``cuda``; ``engine``, ``threads`` and ``precision``: see
        :func:`mm_perception.engines.build.build_engine`.
    :param streams: how many sets of sensors are fused as one batch.
    :raises MMPerceptionError: if there is no such bundle, it is broken, or cannot run here.
    """
    from mm_perception.fusion.loading import load_perception

    choices = {'device': device, 'engine': engine, 'threads': threads, 'precision': precision}
    return load_perception(bundle, streams, **choices)


def __getattr__(name: str) -> Any:
    """Import the public classes when they are asked for, so that the package itself is light."""
    if name not in _PLACES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)
