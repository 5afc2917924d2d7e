"""What the commands that import recordings share: options, the split that decides, the table."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm_perception.errors import DataError

if TYPE_CHECKING:
    from mm_perception.data.dataset import Dataset
    from mm_perception.data.preprocessing import Raws
    from mm_perception.data.rows import Account, Wanted
    from mm_perception.spec import ModelSpec

BLOCKS = ('train', 'validation', 'test')
"""Splits that shares such as 70/15/15 make, in the order of time."""
LEAST_GAP_S = 1.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what every import takes."""
    parser.add_argument(
        '--config', type=Path, required=True, help='training configuration: modalities, topics'
    )
    parser.add_argument(
        '--split',
        default='train',
        help='to write (default: %(default)s); or shares of train, validation and test, such as'
        ' 70/15/15: blocks of time of each recording, or of ten and more whole ones',
    )
    parser.add_argument('--out', type=Path, help='dataset folder (default: that of the config)')
    parser.add_argument(
        '--rate', type=float, default=10.0, help='rows per recorded second (default: 10)'
    )
    parser.add_argument('--json', type=Path, help='write the counts to this file')


@dataclass(frozen=True)
class Source:
    """
    Recordings that are imported.

    :param count: of recordings.
    :param raws: gives raw values of some modalities, of the times that are wanted.
    :param read: gives the rows, with all preprocessing decided.
    :param facts: for ``build.json``.
    """

    count: int
    raws: Callable[[tuple[str, ...], Wanted], Raws]
    read: Callable[[ModelSpec], tuple[Dataset, dict[str, Account]]]
    facts: Mapping[str, Any]


def import_split(args: argparse.Namespace, spec: ModelSpec, out: Path, source: Source) -> int:
    """
    Read recordings and write them as splits; the split train decides open preprocessing.

    Nothing is written before all has been read.

    :param out: the dataset's folder.
    :returns: the exit code.
    :raises DataError: if a split would be empty, or something cannot be read.
    """
    from mm_perception.data.dataset import MANIFEST, complete_folder
    from mm_perception.data.preprocessing import TRAIN, decide, decided, filled
    from mm_perception.data.rows import Division

    shares = read_shares(args.split)
    gap_s = max(LEAST_GAP_S, 2.0 * max(m.max_age_s for m in spec.modalities))
    division = Division(shares, source.count, gap_s)
    options = None
    if TRAIN in shares:
        wanted = partial(division.holds, TRAIN)
        options = decide(spec, lambda names: source.raws(names, wanted))
    spec = decided(spec, out) if options is None else filled(spec, options)
    dataset, accounts = source.read(spec)
    parts = division.divide(dataset) if len(shares) > 1 else {args.split: dataset}
    _refuse_empty(dataset, parts)
    facts = {'rate_hz': args.rate, **source.facts}
    if len(shares) > 1:
        facts |= {'shares': shares, 'gap_s': gap_s}
    with complete_folder(out, MANIFEST, keep=True) as folder:
        _write(folder, out, parts, options, facts)
    _report(args, out, parts, accounts)
    _name_constants(spec, parts)
    return 0


def _write(
    folder: Path,
    out: Path,
    parts: Mapping[str, Dataset],
    options: Mapping[str, Mapping[str, Any]] | None,
    facts: Mapping[str, Any],
) -> None:
    """Write the splits, after what their training data decided, if they did."""
    from tqdm import tqdm

    from mm_perception.data.dataset import add_build, save_dataset, save_preprocessing

    if options is not None:
        outdated = [split for split in save_preprocessing(folder, options) if split not in parts]
        if outdated:
            tqdm.write(
                f'{out}: the training data have another range than before; import the split'
                f' {" and ".join(outdated)} again'
            )
    for split, part in parts.items():
        save_dataset(folder, split, part)
        add_build(folder, split, **facts)


def read_shares(text: str) -> dict[str, float]:
    """
    Read what ``--split`` says: the name of a split, or shares.

    :returns: per split its share of the recorded time; their sum is 1.
    :raises DataError: if it is neither.
    """
    if re.fullmatch(r'[a-z]\w*', text):
        return {text: 1.0}
    try:
        found = [float(part) for part in text.split('/')]
    except ValueError:
        found = []
    if len(found) != len(BLOCKS) or min(found) <= 0.0:
        raise DataError(
            f'--split is {text}; give a name, such as validation, or three shares, as 70/15/15'
        )
    return {name: share / sum(found) for name, share in zip(BLOCKS, found, strict=True)}


def _refuse_empty(dataset: Dataset, parts: Mapping[str, Dataset]) -> None:
    empty = [name for name, part in parts.items() if not len(part)]
    if not empty:
        return
    lengths = ', '.join(
        f'{r.name}: {len(r.rows)} rows in {r.time_s[-1]:.3g} s' for r in dataset.recordings()
    )
    raise DataError(
        f'split {" and ".join(empty)} would be empty ({lengths}); record longer, raise --rate, or'
        ' import the whole as one split'
    )


def _name_constants(spec: ModelSpec, parts: Mapping[str, Dataset]) -> None:
    """Say which elements of vectors never change in the first of the splits."""
    from mm_perception.data.preprocessing import constant_elements
    from mm_perception.modalities import build_modality

    split, dataset = next(iter(parts.items()))
    for modality in spec.modalities:
        if modality.kind == 'vector' and len(dataset.values[modality.name]) > 1:
            names = build_modality(modality).labels
            constant = constant_elements(dataset, modality.name)
            same = [names[k] if names else str(k) for k in constant]
            if same:
                print(f'{modality.name}: never changes in the split {split}: {", ".join(same)}')


def _report(
    args: argparse.Namespace,
    out: Path,
    parts: Mapping[str, Dataset],
    accounts: Mapping[str, Account],
) -> None:
    from rich.console import Console
    from rich.table import Table

    counts = Table('modality', 'messages', 'refused', 'values', 'rows', 'clipped')
    quality = Table('quality', 'longest gap', 'stamps back', 'kept out (ticks)', 'why, last')
    for name, a in accounts.items():
        row = (a.messages, a.refused, a.values, a.rows, a.clipped)
        counts.add_row(name, *map(str, row))
        faults = ', '.join(f'{fault} {count}' for fault, count in a.faults.items())
        quality.add_row(name, f'{a.gap_s:.3g} s', str(a.jumps), faults, a.reason)
    for table in (counts, quality):
        table.columns[0].no_wrap = True
        Console().print(table)
    rows = {split: len(part) for split, part in parts.items()}
    if args.json is not None:
        counts_by_name = {name: asdict(account) for name, account in accounts.items()}
        summary = {'rows': sum(rows.values()), 'splits': rows, 'modalities': counts_by_name}
        args.json.write_text(json.dumps(summary, indent=1) + '\n')
    for split, count in rows.items():
        print(f'{out}: {count} rows in split {split}')


def check_rate(rate_hz: float) -> None:
    """
    Refuse a rate that is none.

    :raises DataError: if it is not above 0.
    """
    if not rate_hz > 0:
        raise DataError(f'--rate is {rate_hz:g}; give rows per second, more than 0')
