"""From a bundle's folder to a perception that has run once; what fails on the way is one line."""

from __future__ import annotations

from typing import Any

from mm_perception.bundle import load_bundle
from mm_perception.engines.build import build_engine
from mm_perception.errors import BundleError, MMPerceptionError
from mm_perception.fusion.perception import Perception

MAX_REASON = 300


def load_perception(bundle: str, streams: int = 1, **choices: Any) -> Perception:
    """
    Load a bundle and run everything in it once, so that the first tick finds no surprise.

    :param bundle: a name under ``models/``, or a folder.
    :param streams: how many sets of sensors are fused as one batch.
    :param choices: of :func:`~mm_perception.engines.build.build_engine`.
    :raises MMPerceptionError: if there is no such bundle, it is broken, or cannot run here.
    """
    loaded = load_bundle(bundle)
    try:
        perception = Perception(loaded, build_engine(loaded, **choices), streams)
        perception.warm_up()
    except MMPerceptionError:
        raise
    except Exception as error:  # what a bundle of anybody's making can raise has no end
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:MAX_REASON]
        raise BundleError(
            f'{loaded.path}: cannot be run ({reason}); get the bundle again, or train it anew'
        ) from error
    return perception
