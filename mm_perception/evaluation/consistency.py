"""Is a contradictory sensor found, an honest one left alone, and what does it cost?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mm_perception.data.dataset import Dataset
from mm_perception.engines.classifiers import Classifiers
from mm_perception.engines.engine import Engine
from mm_perception.evaluation.calibration import auroc
from mm_perception.evaluation.generation import (
    Row,
    batches,
    decode_all,
    encode_all,
    fuse_all,
    label_indices,
    mean_row,
    presence,
    subsets,
)
from mm_perception.fusion.consistency import ConsistencyCheck
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import Array
from mm_perception.progress import tqdm
from mm_perception.spec import ModelSpec

PAIRINGS = 5
FALSE_ALARM, MISSED, BLAMED_ANOTHER = 'false_alarm', 'missed_fault', 'blamed_another'
AUROC = 'fault_auroc'
_TRIES = 20


@dataclass(frozen=True)
class Events:
    """
    Rows whose modalities agree, and how to make them contradict each other.

    :param labels: what each row shows, ``int64[N]``; where that is not known, a number of its
        own.
    :param present: ``bool[N, M]``.
    :param index: the value that each modality shows, ``int64[N, M]``.
    """

    labels: np.ndarray
    present: np.ndarray
    index: np.ndarray

    def subset(self, rows: np.ndarray) -> Events:
        """Only some rows."""
        return Events(self.labels[rows], self.present[rows], self.index[rows])

    def paired_anew(self, generator: np.random.Generator) -> np.ndarray:
        """
        Let each modality show data of another row of the same label, where both have some.

        :returns: row that each modality is taken from, ``int64[N, M]``.
        """
        rows = np.repeat(np.arange(len(self.labels))[:, None], self.present.shape[1], axis=1)
        for column, present in enumerate(self.present.T):
            known = np.flatnonzero(present)
            order = np.lexsort((generator.random(len(known)), self.labels[known]))
            start = np.argsort(self.labels[known], kind='stable')
            rows[known[start], column] = known[order]
        return rows

    def faulty(self, column: int, generator: np.random.Generator) -> np.ndarray:
        """
        Other rows whose data of one modality contradict the rows: another label and value.

        :returns: a row for each, ``int64[N]``; -1 where none was found.
        """
        known = np.flatnonzero(self.present[:, column])
        found = np.full(len(self.labels), -1)
        for _ in range(_TRIES if len(known) else 0):
            open_ = np.flatnonzero(found < 0)
            drawn = generator.choice(known, len(open_))
            other = self.labels[drawn] != self.labels[open_]
            other &= self.index[drawn, column] != self.index[open_, column]
            found[open_[other]] = drawn[other]
        return found


def make_events(dataset: Dataset, spec: ModelSpec) -> Events:
    """Take labels from the modality that carries them, in the rows where it was recorded."""
    count = len(dataset)
    labels: np.ndarray = -1 - np.arange(count)
    known = label_indices(dataset, spec)
    if known is not None:
        source = next(i for i, m in enumerate(spec.modalities) if build_modality(m).labels)
        labels = np.where(dataset.present[:, source], known, labels)
    index = np.stack([dataset.index[name] for name in dataset.names], axis=1)
    return Events(labels, dataset.present, index)


def alone(
    engine: Engine, codes: dict[str, Array], names: Sequence[str], name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Joint posteriors given one modality alone: mean and std, ``float32[N, D]`` each."""
    return fuse_all(engine, codes, presence(names, (name,)))


def evidence_alone(engine: Engine, check: ConsistencyCheck, codes: dict[str, Array]) -> np.ndarray:
    """What each modality alone says about the shared classes, ``float64[N, M, K]``."""
    return np.stack(
        [
            check.evidence(name, codes[name], *alone(engine, codes, check.names, name))
            for name in check.names
        ],
        axis=1,
    )


def alarms(check: ConsistencyCheck, evidence: np.ndarray) -> np.ndarray:
    """
    Threshold below which each row would raise an alarm, in units of that which is set.

    An alarm is a modality that is blamed, or disagreement of two.

    :param evidence: of the present modalities, ``float64[B, P, K]``.
    :returns: ``float64[B]``; 0 where the others do not agree either, so none is blamed.
    """
    surprise = check.surprise(evidence)
    largest, count = surprise.max(axis=1), evidence.shape[1]
    if count > 2:
        worst = surprise.argmax(axis=1)
        rest = evidence[np.arange(count) != worst[:, None]].reshape(len(evidence), count - 1, -1)
        largest = np.where(check.surprise(rest).max(axis=1) <= 1.0, largest, 0.0)
    return largest


def measure_consistency(
    check: ConsistencyCheck,
    evidence: np.ndarray,
    events: Events,
    pairings: int = PAIRINGS,
    seed: int = 0,
) -> list[Row]:
    """
    Count faults that are missed and alarms that are false, for every subset present.

    :param evidence: of every row and modality, ``float64[N, M, K]``.
    :param pairings: how often the modalities are paired at random, each with faults of its own.
    :returns: ``false_alarm`` (a modality blamed, or disagreement of two) of the rows as recorded
        and of each pairing with other data of the same label; per pairing and faulty
        modality ``missed_fault`` (not blamed; of two present: no disagreement said) and, of three
        or more, ``blamed_another``; per pairing ``fault_auroc`` of the largest surprise.
    """
    rows = []
    recorded = np.arange(evidence.shape[1])
    for number in range(pairings + 1):
        generator = np.random.default_rng([seed, number])
        paired = events.paired_anew(generator) if number else np.arange(len(evidence))[:, None]
        agreeing = evidence[paired, recorded]
        faults = {}
        for column in recorded if number else ():
            source = events.faulty(column, generator)
            faults[column] = agreeing.copy()
            faults[column][:, column] = evidence[source, column]
            faults[column][source < 0] = np.nan
        how = f'pairing {number}' if number else 'recorded'
        for subset in subsets(check.names):
            columns = np.flatnonzero(presence(check.names, subset))
            complete = events.present[:, columns].all(axis=1)
            if len(subset) > 1 and complete.any():
                parts = {c: faults[c][complete][:, columns] for c in columns if c in faults}
                rows += _detections(check, agreeing[complete][:, columns], parts, subset, how)
    return rows


def _detections(
    check: ConsistencyCheck,
    agreeing: np.ndarray,
    faults: dict[int, np.ndarray],
    subset: tuple[str, ...],
    how: str,
) -> list[Row]:
    usual = check.compare(agreeing)
    alarm = usual.disagree if len(subset) == 2 else usual.contradicted >= 0
    rows = [mean_row(FALSE_ALARM, 'latent', subset, how, alarm)]
    scores = []
    for place, evidence in enumerate(faults.values()):
        found = check.compare(evidence[~np.isnan(evidence).any(axis=(1, 2))])
        blamed, faulty = found.contradicted, subset[place]
        missed = blamed != place if len(subset) > 2 else ~found.disagree
        rows.append(mean_row(MISSED, faulty, subset, how, missed))
        if len(subset) > 2:
            other = (blamed >= 0) & (blamed != place)
            rows.append(mean_row(BLAMED_ANOTHER, faulty, subset, how, other))
        scores.append(found.surprise.max(axis=1))
    if scores:
        contradicted, well = np.concatenate(scores), usual.surprise.max(axis=1)
        value = auroc(contradicted, well)
        rows.append(Row(AUROC, 'latent', subset, how, value, len(contradicted) + len(well)))
    return rows


ROWS = 2000
ABSENT, LYING, EXCLUDED = 'accuracy_absent', 'accuracy_lying', 'accuracy_excluded'


def measure_exclusion(
    engine: Engine,
    check: ConsistencyCheck,
    dataset: Dataset,
    labels: np.ndarray,
    classifiers: Classifiers,
    seed: int = 0,
) -> list[Row]:
    """
    See what a sensor that shows another label does to what is generated.

    Generated is what no honest sensor shows: the modalities that are absent and the faulty one.

    :param labels: true label indices, ``int64[N]``.
    :returns: share read as the true label, per subset of three or more, faulty modality and
        target: with it left out (``accuracy_absent``), fused (``accuracy_lying``), and left out
        where it is blamed (``accuracy_excluded``).
    """
    generator = np.random.default_rng(seed)
    part = np.sort(generator.permutation(len(dataset))[:ROWS])
    dataset, labels = dataset.subset(part), labels[part]
    names, codes = check.names, encode_all(engine, dataset)
    evidence, events = evidence_alone(engine, check, codes), make_events(dataset, check.spec)
    rows = []
    cases = [(s, faulty) for s in subsets(names) if len(s) > 2 for faulty in s]
    for subset, faulty in tqdm(cases, desc='contradictions', unit='case', leave=False):
        column = names.index(faulty)
        source = events.faulty(column, generator)
        usable = (source >= 0) & events.present[:, presence(names, subset)].all(axis=1)
        contradicting = {name: code[usable] for name, code in codes.items()}
        contradicting[faulty] = codes[faulty][source[usable]]
        shown = evidence[usable]
        shown[:, column] = evidence[source[usable], column]
        targets = [name for name in names if name not in subset or name == faulty]
        for metric, present in _masks(check, shown, subset, faulty).items():
            joint = _fuse_rows(engine, contradicting, present)
            for target in targets:
                right = _read(engine, classifiers, target, joint) == labels[usable]
                rows.append(mean_row(metric, target, subset, f'{faulty} lies', right))
    return rows


def _read(engine: Engine, classifiers: Classifiers, target: str, joint: np.ndarray) -> np.ndarray:
    """Label indices that a classifier reads in what is generated, ``int64[N]``."""
    made = decode_all(engine, target, joint, 'mean', 0)
    return np.concatenate([classifiers.read(target, values) for _, values in made])


def _masks(
    check: ConsistencyCheck, evidence: np.ndarray, subset: tuple[str, ...], faulty: str
) -> dict[str, np.ndarray]:
    """Which modalities are fused in each row, ``bool[N, M]``, by metric."""
    columns = np.flatnonzero(presence(check.names, subset))
    blamed = check.compare(evidence[:, columns]).contradicted
    lying = np.repeat(presence(check.names, subset)[None], len(evidence), axis=0)
    absent, excluded = lying.copy(), lying.copy()
    absent[:, check.names.index(faulty)] = False
    excluded[blamed >= 0, columns[blamed[blamed >= 0]]] = False
    return {ABSENT: absent, LYING: lying, EXCLUDED: excluded}


def _fuse_rows(engine: Engine, codes: dict[str, Array], present: np.ndarray) -> Array:
    parts = [
        engine.fuse({name: code[rows] for name, code in codes.items()}, present[rows])[0]
        for rows in batches(len(present))
    ]
    return np.concatenate(parts)
