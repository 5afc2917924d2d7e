"""What one tick is asked for, and what it gives. Knows no ROS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.fusion.health import NO_OUTPUT, Verdict
from mm_perception.fusion.session import Inference
from mm_perception.modalities.base import Array

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
    :param fallback: what to give while nothing is observed: silent, hold or prior.
    :param memory: whether what is missing is filled in from its last good value too, if the
        bundle has a memory; never from a sample.
    """

    missing: frozenset[str] = frozenset()
    always: frozenset[str] = frozenset()
    std: frozenset[str] = frozenset()
    std_samples: int = 16
    sample: bool = False
    fallback: str = NO_OUTPUT
    memory: bool = True


@dataclass(frozen=True)
class Fused:
    """
    Result of one tick of one stream.

    :param stamp_ns: of the newest value that the latent came from; of the tick if none did.
    :param verdicts: per modality.
    :param observed: model arrays of the modalities that took part.
    :param result: latent ``float32[D]`` and reconstructions ``float32[*shape]``; None if nothing
        was observed or stands in.
    :param std: uncertainty of what was generated, where wanted.
    :param stage_ms: duration of each stage.
    :param source: of the latent: observed, hold, prior, or none.
    :param disagree: whether the modalities contradict each other and none is to blame.
    :param errors: of what was generated for a modality that is switched off while its sensor goes
        on, as :meth:`Modality.error` tells it.
    """

    stamp_ns: int
    verdicts: Mapping[str, Verdict]
    observed: Mapping[str, Array]
    result: Inference | None
    std: Mapping[str, Array] = field(default_factory=dict)
    stage_ms: Mapping[str, float] = field(default_factory=dict)
    source: str = OBSERVED
    disagree: bool = False
    errors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """
    What :meth:`Perception.infer` gives; of several streams with a first axis N.

    :param latent: mean of the joint posterior, ``float32[D]``; the prior's 0 where nothing is
        observed.
    :param std: its standard deviation, ``float32[D]``; the prior's 1 where nothing is observed.
    :param mask: which modalities were used, ``bool[M]``, in the order of ``names``.
    :param reconstructions: model arrays of what was generated, ``float32[*shape]`` by name.
    :param health: how each modality stands, by name; of several streams a list.
    :param reconstruction_std: standard deviation of what the bundle's memory filled in,
        ``float32[*shape]`` by name; NaN for streams in which it did not.
    :param confidence: how likely the label that the latent gives is right; NaN if not known.
    """

    latent: Array
    std: Array
    mask: NDArray[Any]
    reconstructions: dict[str, Array]
    health: Any
    reconstruction_std: dict[str, Array] = field(default_factory=dict)
    confidence: Any = np.nan
