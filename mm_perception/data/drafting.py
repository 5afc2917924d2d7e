"""Drafts of modalities from what recordings show, and the configuration that holds them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_perception.modalities.vector import usual_range

LEAST_AGE_S, AGE_PERIODS = 0.3, 3.0
SYMBOL_AGE_S = 1.0
FROZEN_PERIODS, LEAST_FROZEN_S = 8.0, 0.5
"""Frames that a camera may repeat, and the time below which repetition is no fault."""
IMAGE_SIDE, IMAGE_STEP = 64, 4
MOST_LABELS, MOST_LABEL = 40, 64
MOST_GROUPS = 6
DULL_STD = 0.025
"""Contrast of a frame, in parts of full scale, below which it shows nothing."""
GENERIC = frozenset(
    (
        *('image', 'image_raw', 'image_rect', 'image_color', 'image_rect_color', 'compressed'),
        *('data', 'raw', 'color', 'rgb', 'state', 'states', 'observation', 'images'),
    )
)
"""Parts of topics that tell no sensor from another."""


@dataclass(frozen=True)
class Timing:
    """
    When messages came.

    :param count: how many.
    :param period_s: between two of them: the median, and what 95 % of the times stay below.
    :param gap_s: longest time between two.
    """

    count: int
    period_s: float = 0.0
    late_s: float = 0.0
    gap_s: float = 0.0

    @property
    def rate_hz(self) -> float:
        """Messages per second, 0 if there are too few to tell."""
        return 1.0 / self.period_s if self.period_s > 0.0 else 0.0

    @property
    def max_age_s(self) -> float:
        """How long a value of such a sensor may count as fresh."""
        return max(LEAST_AGE_S, _rounded_up(AGE_PERIODS * self.late_s))


def timing(times_s: Sequence[float] | NDArray[Any]) -> Timing:
    """Find the timing of messages of one recording; ``times_s`` are in seconds."""
    steps = np.diff(np.sort(np.asarray(times_s, np.float64)))
    if not len(steps):
        return Timing(len(times_s))
    median, late = np.quantile(steps, (0.5, 0.95))
    return Timing(len(times_s), float(median), float(late), float(steps.max()))


@dataclass(frozen=True)
class Draft:
    """
    A modality as the configuration will have it.

    :param preprocessing: options of its kind.
    :param remarks: what a reader of the configuration should know.
    """

    name: str
    kind: str
    preprocessing: Mapping[str, Any]
    max_age_s: float = 1.0
    frozen_s: float = 0.0
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seen:
    """
    What recordings hold of a topic, or of a feature of a LeRobot dataset.

    :param message: type of its messages, or of its values.
    :param drafts: modalities that it gives; none if it cannot be used.
    :param remarks: what is wrong with it, and why it is not used.
    """

    topic: str
    message: str
    timing: Timing
    drafts: tuple[Draft, ...] = ()
    remarks: tuple[str, ...] = ()


def name_of(topic: str) -> str:
    """Name a modality after its topic, such as ``camera`` for ``/camera/image_raw``."""
    parts = [_plain(part) for part in re.split(r'[/.]', topic) if part]
    telling = [part for part in parts if part not in GENERIC]
    name = telling[-1] if telling else (parts or ['sensor'])[0]
    return name if name[:1].isalpha() else f'sensor_{name}'


def _plain(text: str) -> str:
    words = re.sub(r'([a-z0-9])([A-Z])', r'\1_\2', text)
    return re.sub(r'\W+', '_', words).strip('_').lower()


def group_names(names: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """
    Group the names of joints by the word that tells them apart, such as arm and gripper.

    :returns: label and names of each group; one without a label if there is nothing to group.
    """
    words = [[w for w in _plain(name).split('_') if not w.isdigit()] for name in names]
    while len(words) > 1 and all(len(w) > 1 and w[0] == words[0][0] for w in words):
        words = [w[1:] for w in words]
    groups: dict[str, list[str]] = {}
    for name, found in zip(names, words, strict=True):
        groups.setdefault(found[0] if found else '', []).append(name)
    merged: list[tuple[str, tuple[str, ...]]] = []
    for label, members in groups.items():
        if merged and (len(members) == 1 or len(merged[-1][1]) == 1):
            before, earlier = merged.pop()
            label, members = f'{before}_{label}', [*earlier, *members]
        merged.append((label, tuple(members)))
    if not 1 < len(merged) <= MOST_GROUPS:
        return [('', tuple(names))]
    return merged


def draft_vector(
    name: str, labels: Sequence[str], values: NDArray[Any], when: Timing, key: str = 'names'
) -> tuple[Draft | None, tuple[str, ...]]:
    """
    Draft a vector from its values.

    :param labels: of its elements; empty where they have no names.
    :param values: ``float[N, n]``; NaN is no value.
    :param key: option that picks elements by their labels.
    :returns: the draft, None if nothing in it changes, and what is left out of it.
    """
    finite = np.isfinite(values).all(axis=0)
    usable = np.where(np.isfinite(values), values, 0.0)
    moving = np.ptp(usable, axis=0) > 1e-6 * np.maximum(1.0, np.abs(usable).max(axis=0))
    kept = finite & (moving | (len(values) < 2))
    shown = list(labels) or [f'element {k}' for k in range(values.shape[1])]
    broken = [label for label, good in zip(shown, finite, strict=True) if not good]
    still = [s for s, good, moves in zip(shown, finite, moving, strict=True) if good and not moves]
    remarks = []
    if broken:
        remarks.append(f'NaN or infinity in {", ".join(broken)}')
    if still and len(values) > 1:
        remarks.append(f'never changes: {", ".join(still)}')
    if not kept.any() or (broken and not labels):
        return None, tuple(remarks)
    if not labels:
        kept[:] = True  # without names none can be left out
    options: dict[str, Any] = {}
    if labels:
        options[key] = [label for label, keep in zip(labels, kept, strict=True) if keep]
    options['low'], options['high'] = _short(*usual_range(values[:, kept]))
    return Draft(name, 'vector', options, when.max_age_s), tuple(remarks)


def draft_image(name: str, frames: Frames, when: Timing) -> tuple[Draft | None, tuple[str, ...]]:
    """Draft a camera from some of its frames; none if they show nothing."""
    remarks = []
    if frames.dull:
        remarks.append(f'{frames.dull} of {frames.count} frames looked at are black or uniform')
    if frames.count > 1 and not frames.changes:
        remarks.append('all frames looked at are the same')
        return None, tuple(remarks)
    if frames.dull == frames.count:
        return None, tuple(remarks)
    height, width = frames.size
    scale = min(1.0, IMAGE_SIDE / max(height, width))
    options: dict[str, Any] = {
        'height': _stepped(scale * height),
        'width': _stepped(scale * width),
        'channels': 3 if frames.colour else 1,
        'square': False,
    }
    if frames.full_scale:
        options['full_scale'] = float(f'{frames.full_scale:.3g}')
    frozen_s = max(LEAST_FROZEN_S, FROZEN_PERIODS * when.period_s)
    repeated_s = frames.repeats * when.period_s
    if repeated_s > 0.5 * frozen_s:
        frozen_s = 2.0 * repeated_s
        remarks.append(f'repeats the same frame for up to {repeated_s:.2g} s, as without noise')
    draft = Draft(name, 'image', options, when.max_age_s, _rounded_up(frozen_s))
    return draft, tuple(remarks)


@dataclass
class Frames:
    """
    What some frames of a camera show.

    :param dull: frames without contrast.
    :param repeats: most frames in a row that equal the one before.
    :param full_scale: value of white of 16-bit and float frames, 0 of others.
    """

    count: int = 0
    dull: int = 0
    size: tuple[int, int] = (0, 0)
    colour: bool = False
    changes: bool = False
    repeats: int = 0
    full_scale: float = 0.0
    _last: int | None = field(default=None, repr=False)
    _row: int = field(default=0, repr=False)

    def take(self, frame: NDArray[Any]) -> None:
        """Look at a frame: ``[H, W]`` or RGB ``[H, W, 3]``."""
        small = frame[:: max(1, frame.shape[0] // 60), :: max(1, frame.shape[1] // 80)]
        self.count, self.size = self.count + 1, (frame.shape[0], frame.shape[1])
        if small.ndim == 3 and not self.colour:
            self.colour = bool(np.ptp(small.astype(np.int32), axis=2).max() > 0)
        finite = small[np.isfinite(small)] if small.dtype.kind == 'f' else small
        if small.dtype != np.uint8 and finite.size:
            self.full_scale = max(self.full_scale, 1.1 * float(np.quantile(finite, 0.995)))
        full = 255.0 if small.dtype == np.uint8 else max(self.full_scale, 1e-9)
        self.dull += not finite.size or float(finite.std()) < DULL_STD * full

    def follow(self, mark: int) -> None:
        """Compare a frame with the one before; ``mark`` is equal for equal frames."""
        same = mark == self._last
        self.changes |= self._last is not None and not same
        self._row = self._row + 1 if same else 0
        self.repeats = max(self.repeats, self._row)
        self._last = mark


def draft_symbol(
    name: str, labels: Iterable[str], when: Timing
) -> tuple[Draft | None, tuple[str, ...]]:
    """Draft a symbol from all labels that were seen; none if they are no labels."""
    known = sorted(set(labels))
    longest = max((len(label) for label in known), default=0)
    if not known or len(known) > MOST_LABELS or longest > MOST_LABEL:
        return None, (f'{len(known)} different texts of up to {longest} characters: no labels',)
    if len(known) == 1 and when.count > 1:
        return None, (f'always says {known[0]!r}',)
    age_s = max(SYMBOL_AGE_S, when.max_age_s)
    return Draft(name, 'symbol', {'labels': known}, age_s), ()


def _short(low: NDArray[Any], high: NDArray[Any]) -> tuple[list[float], list[float]]:
    """Both ends of ranges, with as many digits as a thousandth of each range needs."""
    digits = [max(0, 3 - math.floor(math.log10(span))) for span in high - low]
    return (
        [round(float(x), n) for x, n in zip(low, digits, strict=True)],
        [round(float(x), n) for x, n in zip(high, digits, strict=True)],
    )


def _stepped(pixels: float) -> int:
    return max(2 * IMAGE_STEP, IMAGE_STEP * round(pixels / IMAGE_STEP))


def _rounded_up(value: float) -> float:
    """Value with two digits, not below it."""
    if value <= 0.0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f'{math.ceil(value / step - 1e-3) * step:.3g}')


def distinct(seen: Sequence[Seen]) -> list[Seen]:
    """Give every draft a name of its own."""
    counts: dict[str, int] = {}
    for each in seen:
        for draft in each.drafts:
            counts[draft.name] = counts.get(draft.name, 0) + 1
    used: set[str] = set()
    result = []
    for each in seen:
        drafts = []
        for draft in each.drafts:
            name = draft.name
            if counts[name] > 1:
                name = '_'.join(dict.fromkeys([*_plain(each.topic).split('_'), *name.split('_')]))
            while name in used:
                name += '_2'
            used.add(name)
            drafts.append(replace(draft, name=name))
        result.append(replace(each, drafts=tuple(drafts)))
    return result


def configuration(
    name: str, seen: Sequence[Seen], head: Sequence[str], messages: bool, calibrated: bool
) -> str:
    """
    Write a configuration that ``import`` and ``train`` take as it is.

    :param name: of the bundle.
    :param head: first lines, which say what to do next.
    :param messages: whether ``message`` is a type of ROS.
    :param calibrated: whether there is enough data to hold some out for the std.
    """
    lines = [*(f'# {line}'.rstrip() for line in head), f'name: {name}', f'dataset: data/{name}']
    lines += ['model:', f'  calibrated: {str(calibrated).lower()}', '  modalities:']
    for each in (s for s in seen if s.drafts):
        lines += ['', f'    # {fact(each)}', *(f'    # {remark}' for remark in each.remarks)]
        for draft in each.drafts:
            lines += _modality(each, draft, messages)
    unused = [s for s in seen if not s.drafts]
    if unused:
        lines += ['', '# Not used:']
    for each in unused:
        lines += [f'#   {fact(each)}', *(f'#     {remark}' for remark in each.remarks)]
    return '\n'.join(lines) + '\n'


def fact(seen: Seen) -> str:
    """One line about a topic: type, number of messages, rate, gap."""
    when = seen.timing
    rate = f', {when.rate_hz:.3g} Hz, longest gap {when.gap_s:.3g} s' if when.period_s else ''
    plural = '' if when.count == 1 else 's'
    return f'{seen.topic}: {seen.message}, {when.count} message{plural}{rate}'


def _modality(seen: Seen, draft: Draft, messages: bool) -> list[str]:
    lines = [*(f'    # {remark}' for remark in draft.remarks), f'    - name: {draft.name}']
    lines += [f'      kind: {draft.kind}', f'      topic: {seen.topic}']
    lines += [f'      message: {seen.message}'] if messages else []
    lines += [f'      max_age_s: {draft.max_age_s:g}']
    lines += [f'      frozen_s: {draft.frozen_s:g}'] if draft.frozen_s else []
    lines += ['      preprocessing:']
    for key, value in draft.preprocessing.items():
        lines += _option(key, value)
    return lines


def _option(key: str, value: Any) -> list[str]:
    """Lines of an option, lists broken at a readable width."""
    if not isinstance(value, (list, tuple)):
        return [f'        {key}: {json.dumps(value)}']
    lines = [f'        {key}: [']
    words = [json.dumps(item) for item in value]
    for word, following in pairwise([*words, '']):
        if len(lines[-1]) + len(word) > 95:
            lines[-1] = lines[-1].rstrip()
            lines.append('          ')
        lines[-1] += f'{word}, ' if following else f'{word}]'
    return lines
