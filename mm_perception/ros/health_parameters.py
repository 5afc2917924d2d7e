"""The parameters ``health.*``: by what sensors are judged."""

from __future__ import annotations

from typing import Any, Protocol

from mm_perception.modalities.quality import Thresholds
from mm_perception.ros.checks import TOLERABLE, Checks
from mm_perception.ros.rows import Row, listed

HOUR_S = 3600.0

HEALTH_ROWS = (
    Row(
        'health.future_s',
        0.5,
        'How far a stamp may lie in the future before its message is rejected (s).',
        span=(0.0, HOUR_S),
    ),
    Row(
        'health.backwards_s',
        0.5,
        'How far a stamp may lie before the last one (s); beyond that, what was gathered is'
        ' forgotten.',
        span=(0.0, HOUR_S),
    ),
    Row(
        'health.frozen_s',
        0.7,
        'How long a camera or microphone may repeat exactly the same data while another sensor'
        ' changes, or a streamed pen the same point (s); 0: for ever.',
        span=(0.0, HOUR_S),
    ),
    Row(
        'health.silent_s',
        0.7,
        'How long a microphone may give nothing but digital zeros (s); 0: for ever.',
        span=(0.0, HOUR_S),
    ),
    Row(
        'health.min_contrast',
        0.1,
        'Std of an image below which it is black or saturated, in parts of the std of the'
        ' training data.',
        span=(0.0, 1.0),
    ),
    Row(
        'health.max_clipped',
        0.1,
        'Share of the samples of a sound that may be at full scale.',
        span=(0.0, 1.0),
    ),
    Row(
        'health.range_margin',
        1.0,
        'How far a vector or a trajectory may lie outside of its configured range, in parts of'
        ' the range.',
        span=(0.0, 1e6),
    ),
    Row(
        'health.max_invalid_fraction',
        0.5,
        'Share of the pixels of a float image that may be NaN or infinity.',
        span=(0.0, 1.0),
    ),
    Row(
        'health.tolerate',
        '',
        'Faults that are reported but take no modality out, separated by commas.',
        choices=TOLERABLE,
        several=True,
    ),
    Row(
        'health.flaps',
        5,
        'Dropouts within health.flap_s that hold a modality out until it is steady; 0: never.',
        span=(0, 1000),
    ),
    Row(
        'health.flap_s',
        5.0,
        'Time within which dropouts are counted (s).',
        span=(0.1, HOUR_S),
    ),
    Row(
        'health.steady_s',
        2.0,
        'How long a modality that was held out must be well before it is used again (s).',
        span=(0.0, HOUR_S),
    ),
    Row(
        'health.agreement',
        True,
        'Whether the modalities are compared with each other; needs a bundle that is calibrated'
        ' for it.',
    ),
    Row(
        'health.exclude_inconsistent',
        True,
        'Whether a modality that the others contradict is left out of the fusion.',
    ),
    Row(
        'health.inconsistent_s',
        0.5,
        'How long the others must contradict a modality before it is inconsistent (s).',
        span=(0.0, HOUR_S),
    ),
)


class Values(Protocol):
    """Parameters by name."""

    def __getitem__(self, name: str) -> Any:
        """Value of a parameter."""
        ...


def read_checks(values: Values) -> Checks:
    """Read the thresholds that hold for all modalities."""
    read = {row.name.removeprefix('health.'): values[row.name] for row in HEALTH_ROWS}
    names = ('min_contrast', 'max_clipped', 'range_margin', 'max_invalid_fraction')
    return Checks(
        frozen_s=float(read['frozen_s']),
        silent_s=float(read['silent_s']),
        thresholds=Thresholds(**{name: float(read[name]) for name in names}),
        tolerate=frozenset(listed(read['tolerate'])),
        flaps=read['flaps'],
        flap_s=float(read['flap_s']),
        steady_s=float(read['steady_s']),
        agreement=read['agreement'],
        exclude_inconsistent=read['exclude_inconsistent'],
        inconsistent_s=float(read['inconsistent_s']),
    )
