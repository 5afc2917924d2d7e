"""How often a bundle tells the right digit under strange conditions, and beside what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mm_perception.bundle import Bundle
from mm_perception.engines.build import reference_engine
from mm_perception.engines.classifiers import load_classifiers
from mm_perception.errors import ConfigError, DataError, InvalidInput
from mm_perception.evaluation.calibration import auroc
from mm_perception.evaluation.confidence import AUROC, confidence_of, tell
from mm_perception.evaluation.generation import batches, presence, subsets
from mm_perception.lab.digits.conditions import Condition, levels
from mm_perception.lab.digits.handwriting import in_turn
from mm_perception.lab.digits.mnist import mnist_digits
from mm_perception.lab.digits.pen import DIGITS, load_pen_digits, render_stroke
from mm_perception.lab.digits.speech import (
    read_fsdd,
    speak_digits,
    split_utterances,
    validation_voices,
)
from mm_perception.markdown import markdown_table
from mm_perception.modalities import Modality, Motion, Waveform, build_modality
from mm_perception.modalities.base import Array
from mm_perception.progress import tqdm

NAMES = ('image', 'trajectory', 'sound', 'symbol')
PER_LABEL = 50
SPLITS = ('test', 'validation')
LEAD_S, TRAIL_S, CHUNK_S = 3.0, 0.6, 0.1
USUAL, MNIST, UNHEARD = 'usual', 'mnist', 'unheard_speaker'
WITHOUT_LEVEL = (USUAL, MNIST, UNHEARD)
LABEL, BEST_SINGLE, PRODUCT = 'label', 'best_single', 'product'


@dataclass(frozen=True)
class Row:
    """
    Share of digits that are told rightly.

    :param modality: that was observed; several joined by ``+``.
    :param strange: the one that the condition is of.
    :param metric: ``label`` (of the bundle), ``best_single`` (of the bundle, from the best of
        these modalities alone), ``product`` (of the evaluation classifiers' probabilities), or
        ``confidence_auroc`` (of the bundle's confidence, right labels against wrong ones).
    """

    modality: str
    strange: str
    condition: str
    level: float
    metric: str
    value: float
    n: int


@dataclass(frozen=True)
class Seen:
    """
    Some raw data of one modality as the model takes them.

    :param codes: ``float32[N, C]``.
    :param log_probabilities: of the evaluation classifier, ``float32[N, 10]``.
    :param usable: which could be used at all, ``bool[N]``.
    """

    codes: Array
    log_probabilities: Array
    usable: NDArray[np.bool_]


class Judge:
    """
    Tells digits from raw data with a bundle.

    :raises ConfigError: if the bundle's modalities are not those of the digits, or it carries no
        classifiers.
    """

    def __init__(self, bundle: Bundle) -> None:
        if bundle.spec.names != NAMES or not bundle.classifiers:
            raise ConfigError(
                f'{bundle.name}: --conditions takes a bundle with classifiers and the modalities'
                f' {", ".join(NAMES)}'
            )
        self.modalities: dict[str, Modality[Any]] = {
            spec.name: build_modality(spec) for spec in bundle.spec.modalities
        }
        self._engine = reference_engine(bundle)
        self._confidence = confidence_of(self._engine, bundle)
        self._classifiers = load_classifiers(bundle)

    def see(self, name: str, raws: Iterable[Any]) -> Seen:
        """Take raw data of one modality; None counts as data that cannot be used."""
        arrays, usable = [], []
        for raw in raws:
            array = self._array(name, raw)
            usable.append(array is not None)
            arrays.append(np.zeros(self.modalities[name].shape) if array is None else array)
        stacked = np.stack(arrays).astype(np.float32)
        parts = [stacked[rows] for rows in batches(len(stacked))]
        codes = np.concatenate([self._engine.encode(name, part) for part in parts])
        read = np.concatenate([self._classifiers.log_probabilities(name, p) for p in parts])
        return Seen(codes, read, np.array(usable))

    def _array(self, name: str, raw: Any) -> Array | None:
        try:
            return None if raw is None else self.modalities[name].to_model(raw)
        except InvalidInput:
            return None

    def labels(
        self, seen: dict[str, Seen], observed: Sequence[str]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
        """
        What the bundle tells from some modalities; -1 where none of them can be used.

        :returns: labels, and the confidence in them, 0 for -1; None where the bundle has none.
        """
        codes = {name: one.codes for name, one in seen.items()}
        present = np.repeat(presence(NAMES, observed)[None], len(codes['image']), axis=0)
        for column, name in enumerate(NAMES):
            present[:, column] &= seen[name].usable
        labels, chance = np.full(len(present), -1), np.zeros(len(present))
        rows = np.flatnonzero(present.any(axis=1))
        part = {name: code[rows] for name, code in codes.items()}
        if len(rows) and self._confidence:
            found = tell(self._engine, *self._confidence, part, present[rows])
            labels[rows], chance[rows] = found
        elif len(rows):
            joint, _ = self._engine.fuse(part, present[rows])
            labels[rows] = np.argmax(self._engine.decode('symbol', joint), axis=1)
        return labels, chance if self._confidence else None


@dataclass(frozen=True)
class Data:
    """
    Raw data of the same digits, and others whose modality nothing in training was like.

    :param labels: of the rows, label by label.
    :param strokes: and ``speech``, one per row.
    :param foreign: of the same labels: condition, modality and raw data.
    """

    labels: NDArray[np.int64]
    strokes: Sequence[Motion]
    speech: Sequence[Waveform]
    foreign: Sequence[tuple[str, str, Sequence[Any]]]


def load_data(data_root: Path, split: str, voices: Path, per_label: int = PER_LABEL) -> Data:
    """
    Read strokes, speech, images of MNIST, and speakers that training never hears.

    :param data_root: folder of the raw recordings.
    :param split: ``test``, or ``validation``, whose unheard speakers are generated.
    :param voices: folder that keeps generated voices.
    :raises DataError: if recordings are missing or broken, or there is no such split.
    """
    if split not in SPLITS:
        raise DataError(f'no split "{split}" for --conditions; known: {", ".join(SPLITS)}')
    rng = np.random.default_rng(0)
    spoken = split_utterances(read_fsdd(data_root))
    digits = load_pen_digits(data_root)[split]
    labels = np.repeat(np.arange(10), per_label)
    strokes = [digits[k].motion for k in _chosen([d.label for d in digits], per_label, rng)]
    heard = spoken[split]
    speech = [heard[k].waveform for k in _chosen([u.label for u in heard], per_label, rng)]
    if split == 'test':
        strangers = spoken['test_speaker']
    else:
        requests = [(voice, digit) for voice in validation_voices() for digit in range(10)]
        strangers = speak_digits(requests, voices, progress=False)
    images, shown = mnist_digits(data_root, split)
    rows = _chosen([str(label) for label in shown], per_label, rng)
    others = [strangers[k].waveform for k in _chosen([u.label for u in strangers], per_label, rng)]
    foreign = (
        (MNIST, 'image', [np.asarray(255 - images[k], np.uint8) for k in rows]),
        (UNHEARD, 'sound', others),
    )
    return Data(labels, strokes, speech, foreign)


def _chosen(labels: Sequence[str], per_label: int, rng: np.random.Generator) -> list[int]:
    """So many positions of every digit, label by label."""
    found = np.asarray(labels)
    parts = [in_turn(np.flatnonzero(found == label), per_label, rng) for label in DIGITS]
    return [int(k) for k in np.concatenate(parts)]


def measure_conditions(judge: Judge, data: Data, quiet: bool = False) -> list[Row]:
    """
    Measure every condition at every level: its modality alone, and beside every other subset.

    Sound is heard live: it comes in pieces, and the modality's window finds the word in it.

    :returns: rows, first those of ``usual`` data.
    """
    usual = {name: judge.see(name, _usual(judge, data, name)) for name in NAMES}
    rows = _rows(judge, usual, data.labels, '', (USUAL, 0.0))
    for condition, level in tqdm(list(levels()), desc='conditions', unit='level', disable=quiet):
        name = condition.modality
        seen = judge.see(name, _changed(judge, data, condition, level))
        rows += _rows(judge, {**usual, name: seen}, data.labels, name, (condition.name, level))
    for title, name, raws in data.foreign:
        if name == 'sound':
            raws = [hear(judge.modalities[name], raw) for raw in raws]
        seen = judge.see(name, raws)
        rows += _rows(judge, {**usual, name: seen}, data.labels, name, (title, 0.0))
    return rows


def hear(
    modality: Modality[Any],
    speech: Waveform,
    change: Callable[[Waveform], Waveform] = lambda stream: stream,
) -> Waveform | None:
    """
    Send speech, with silence around it, through the modality's window as a microphone does.

    :param change: what becomes of the whole stream on its way.
    :returns: what stands when the silence after it is over; None if nothing does.
    """
    rate_hz = speech.rate_hz
    around = round(LEAD_S * rate_hz), round(TRAIL_S * rate_hz)
    stream = change(Waveform(np.pad(speech.samples, around), rate_hz))
    window, size = modality.new_window(), round(CHUNK_S * rate_hz)
    for first in range(0, len(stream.samples), size):
        piece = Waveform(stream.samples[first : first + size], rate_hz)
        window.push(piece, round(first / rate_hz * 1e9))
    return None if window.latest is None else cast(Waveform, window.latest.raw)


def _usual(judge: Judge, data: Data, name: str) -> Iterator[Any]:
    if name == 'image':
        return (render_stroke(stroke.points) for stroke in data.strokes)
    if name == 'sound':
        return (hear(judge.modalities[name], speech) for speech in data.speech)
    return iter(data.strokes if name == 'trajectory' else [DIGITS[k] for k in data.labels])


def _changed(judge: Judge, data: Data, condition: Condition, level: float) -> Iterator[Any]:
    name = condition.modality
    if name == 'sound':
        for seed, speech in enumerate(data.speech):
            change = partial(condition.apply, level=level, seed=seed)
            yield hear(judge.modalities[name], speech, change)
        return
    for seed, raw in enumerate(_usual(judge, data, name)):
        yield condition.apply(raw, level, seed)


def _rows(
    judge: Judge,
    seen: dict[str, Seen],
    labels: NDArray[np.int64],
    strange: str,
    about: tuple[str, float],
) -> list[Row]:
    """Rows of every subset that the strange modality is in; of every subset where none is."""
    told = {subset: judge.labels(seen, subset) for subset in subsets(NAMES)}
    right = {subset: float((found == labels).mean()) for subset, (found, _) in told.items()}
    rows = []
    for observed in right:
        if strange and strange not in observed:
            continue
        figures = {LABEL: right[observed]}
        found, chance = told[observed]
        if chance is not None and 0.0 < right[observed] < 1.0:
            figures[AUROC] = auroc(chance[found == labels], chance[found != labels])
        if len(observed) > 1:
            read = sum(seen[n].log_probabilities * seen[n].usable[:, None] for n in observed)
            figures[BEST_SINGLE] = max(right[(name,)] for name in observed)
            figures[PRODUCT] = float((np.argmax(read, axis=1) == labels).mean())
        rows += [
            Row('+'.join(observed), strange, *about, metric, value, len(labels))
            for metric, value in figures.items()
        ]
    return rows


def condition_tables(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown: modalities alone, and the fused ones beside what they are held to."""
    alone = [row for row in rows if '+' not in row.modality]
    known = {
        (row.modality, row.condition, row.level): f'{row.value:.3f}'
        for row in alone
        if row.metric == AUROC
    }
    lines = [
        [
            row.modality,
            *_named(row.condition, row.level),
            _percent(row.value),
            known.get((row.modality, row.condition, row.level), ''),
        ]
        for row in sorted(alone, key=lambda row: NAMES.index(row.modality))
        if row.metric == LABEL
    ]
    return [
        f'## Label from one modality, under strange conditions ({rows[0].n:,} digits)',
        '',
        *markdown_table(
            ['modality', 'condition', 'level', 'right, %', 'AUROC of the confidence'], lines
        ),
        '',
        '## Beside others that are as usual',
        '',
        'Of all subsets with the strange modality the one that falls most behind its best single'
        ' modality, and behind the product of the classifiers.',
        '',
        *markdown_table(
            ['strange', 'condition', 'level', 'behind the best', 'fused', 'best single',
             'behind the product', 'fused', 'product'],
            _worst_subsets(rows),
        ),
    ]  # fmt: skip


def _worst_subsets(rows: Sequence[Row]) -> list[list[str]]:
    cases: dict[tuple[str, str, float], dict[str, dict[str, float]]] = {}
    for row in rows:
        if '+' in row.modality:
            case = cases.setdefault((row.strange, row.condition, row.level), {})
            case.setdefault(row.modality, {})[row.metric] = row.value
    lines = []
    for (strange, condition, level), case in cases.items():
        line = [strange, *_named(condition, level)]
        for against in (BEST_SINGLE, PRODUCT):
            worst = min(case, key=lambda s: case[s][LABEL] - case[s][against])
            line += [worst, _percent(case[worst][LABEL]), _percent(case[worst][against])]
        lines.append(line)
    return lines


def _percent(share: float) -> str:
    return f'{100 * share:.1f}'


def _named(condition: str, level: float) -> tuple[str, str]:
    return condition, '' if condition in WITHOUT_LEVEL else f'{level:g}'
