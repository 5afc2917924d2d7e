"""What does a sensor that shows another label do to what is generated?"""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from mm_perception.data.dataset import Dataset
from mm_perception.evaluation.agreement import evidence_alone, make_events
from mm_perception.evaluation.classifiers import Classifiers
from mm_perception.evaluation.generation import (
    batches,
    decode_all,
    encode_all,
    presence,
    subsets,
)
from mm_perception.evaluation.rows import Row, mean_row
from mm_perception.inference.agreement import Agreement
from mm_perception.inference.engine import Engine
from mm_perception.modalities.raw import Array

ROWS = 2000
ABSENT, LYING, EXCLUDED = 'accuracy_absent', 'accuracy_lying', 'accuracy_excluded'


def measure_lies(
    engine: Engine,
    agreement: Agreement,
    dataset: Dataset,
    labels: np.ndarray,
    classifiers: Classifiers,
    seed: int = 0,
) -> list[Row]:
    """
    See what a sensor that shows another label does to what is generated.

    Generated is what no honest sensor shows: the modalities that are absent and the one that
    lies.

    :param labels: true label indices, ``int64[N]``.
    :returns: share read as the true label, per subset of three or more, modality that lies and
        target: with it left out (``accuracy_absent``), fused (``accuracy_lying``), and left out
        where it is blamed (``accuracy_excluded``).
    """
    generator = np.random.default_rng(seed)
    part = np.sort(generator.permutation(len(dataset))[:ROWS])
    dataset, labels = dataset.subset(part), labels[part]
    names, codes = agreement.names, encode_all(engine, dataset)
    evidence = evidence_alone(engine, agreement, codes)
    events = make_events(dataset, agreement.spec)
    rows = []
    cases = [(s, liar) for s in subsets(names) if len(s) > 2 for liar in s]
    for subset, liar in tqdm(cases, desc='lies', unit='case', leave=False):
        column = names.index(liar)
        source = events.faulty(column, generator)
        usable = (source >= 0) & events.present[:, presence(names, subset)].all(axis=1)
        lies = {**codes, liar: codes[liar][source]}
        lies = {name: code[usable] for name, code in lies.items()}
        shown = evidence[usable]
        shown[:, column] = evidence[source[usable], column]
        targets = [name for name in names if name not in subset or name == liar]
        for metric, present in _masks(agreement, shown, subset, liar).items():
            joint = _fuse_rows(engine, lies, present)
            for target in targets:
                right = _read(engine, classifiers, target, joint) == labels[usable]
                rows.append(mean_row(metric, target, subset, f'{liar} lies', right))
    return rows


def _masks(
    agreement: Agreement, evidence: np.ndarray, subset: tuple[str, ...], liar: str
) -> dict[str, np.ndarray]:
    """Which modalities are fused in each row, ``bool[N, M]``, by metric."""
    columns = np.flatnonzero(presence(agreement.names, subset))
    blamed = agreement.compare(evidence[:, columns]).contradicted
    lying = np.repeat(presence(agreement.names, subset)[None], len(evidence), axis=0)
    absent, excluded = lying.copy(), lying.copy()
    absent[:, agreement.names.index(liar)] = False
    excluded[blamed >= 0, columns[blamed[blamed >= 0]]] = False
    return {ABSENT: absent, LYING: lying, EXCLUDED: excluded}


def _fuse_rows(engine: Engine, codes: dict[str, Array], present: np.ndarray) -> Array:
    parts = [
        engine.fuse({name: code[rows] for name, code in codes.items()}, present[rows])[0]
        for rows in batches(len(present))
    ]
    return np.concatenate(parts)


def _read(engine: Engine, classifiers: Classifiers, target: str, joint: Array) -> np.ndarray:
    made = decode_all(engine, target, joint, 'mean', 0)
    return np.concatenate([classifiers.read(target, arrays) for _, arrays in made])
