"""What the commands that import recordings share: options, the split that decides, the table."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm_perception.errors import DataError

if TYPE_CHECKING:
    from mm_perception.data.dataset import Dataset
    from mm_perception.data.preprocessing import Raws
    from mm_perception.data.rows import Account
    from mm_perception.spec import ModelSpec


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what every import takes."""
    parser.add_argument(
        '--config', type=Path, required=True, help='training configuration: modalities, topics'
    )
    parser.add_argument('--split', default='train', help='to write (default: %(default)s)')
    parser.add_argument('--out', type=Path, help='dataset folder (default: that of the config)')
    parser.add_argument(
        '--rate', type=float, default=10.0, help='rows per recorded second (default: 10)'
    )
    parser.add_argument('--json', type=Path, help='write the counts to this file')


def import_split(
    args: argparse.Namespace,
    spec: ModelSpec,
    out: Path,
    raws: Callable[[tuple[str, ...]], Raws],
    read: Callable[[ModelSpec], tuple[Dataset, dict[str, Account]]],
    facts: Mapping[str, Any],
) -> int:
    """
    Read recordings and write them as a split; the split train decides open preprocessing.

    :param out: the dataset's folder.
    :param raws: gives raw values of some modalities.
    :param read: gives the rows, with all preprocessing decided.
    :param facts: for ``build.json``.
    :returns: the exit code.
    """
    from tqdm import tqdm

    from mm_perception.data.dataset import add_build, save_dataset
    from mm_perception.data.preprocessing import TRAIN, constant_elements, decide, decided

    spec = decide(spec, out, raws, tqdm.write) if args.split == TRAIN else decided(spec, out)
    dataset, accounts = read(spec)
    save_dataset(out, args.split, dataset)
    add_build(out, args.split, rate_hz=args.rate, **facts)
    for name, elements in constant_elements(spec, dataset).items():
        print(f'{name}: never changes in this split: {", ".join(elements)}')
    _report(args, out, dataset, accounts)
    return 0


def _report(
    args: argparse.Namespace, out: Path, dataset: Dataset, accounts: Mapping[str, Account]
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table('modality', 'messages', 'refused', 'values', 'rows', 'last reason not to use it')
    for name, account in accounts.items():
        table.add_row(name, *(str(value) for value in asdict(account).values()))
    Console().print(table)
    if args.json is not None:
        counts = {name: asdict(account) for name, account in accounts.items()}
        summary = {'rows': len(dataset), 'modalities': counts}
        args.json.write_text(json.dumps(summary, indent=1) + '\n')
    print(f'{out}: {len(dataset)} rows in split {args.split}')


def check_rate(rate_hz: float) -> None:
    """
    Refuse a rate that is none.

    :raises DataError: if it is not above 0.
    """
    if not rate_hz > 0:
        raise DataError(f'--rate is {rate_hz:g}; give rows per second, more than 0')
