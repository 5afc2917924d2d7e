"""``mm-perception import-bag``: from recorded bags to a split of a dataset."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mm_perception.errors import DataError

EXAMPLES = """examples:
  mm-perception import-bag --config my_robot.yaml bags/monday bags/tuesday
  mm-perception import-bag --config my_robot.yaml --split test bags/friday

Bags are recorded with ros2 bag record -o bags/monday TOPIC ...; every topic of the configuration.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to ``mm-perception``."""
    parser = subparsers.add_parser(
        'import-bag',
        help='build a dataset from bags of your own robot',
        description='Read bags as the node would have heard them: at every tick, what it would'
        ' have used of each modality makes a row of the dataset, if anything in it is new. A'
        ' sensor that was silent, stale, frozen or refused is absent in that row.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('bags', nargs='+', type=Path, help='folders that ros2 bag record wrote')
    parser.add_argument(
        '--config', type=Path, required=True, help='training configuration: modalities, topics'
    )
    parser.add_argument('--split', default='train', help='to write (default: %(default)s)')
    parser.add_argument('--out', type=Path, help='dataset folder (default: that of the config)')
    parser.add_argument(
        '--rate', type=float, default=10.0, help='ticks per recorded second (default: 10)'
    )
    parser.add_argument('--namespace', default='', help='that relative topics were recorded in')
    parser.add_argument('--json', type=Path, help='write the counts to this file')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Import; returns the exit code."""
    from rich.console import Console
    from rich.table import Table
    from tqdm import tqdm

    from mm_perception.config import load_training
    from mm_perception.data.dataset import save_dataset
    from mm_perception.ros.bag_import import import_bags

    if args.rate <= 0:
        raise DataError(f'--rate is {args.rate:g}; give ticks per second, more than 0')
    spec = load_training(args.config)
    dataset, accounts = import_bags(spec.model, args.bags, args.rate, args.namespace, tqdm.write)
    out = args.out or Path(spec.dataset)
    save_dataset(out, args.split, dataset)
    table = Table('modality', 'messages', 'refused', 'values', 'rows', 'last reason not to use it')
    for name, account in accounts.items():
        table.add_row(name, *(str(value) for value in asdict(account).values()))
    Console().print(table)
    if args.json is not None:
        counts = {name: asdict(account) for name, account in accounts.items()}
        summary = {'rows': len(dataset), 'modalities': counts}
        args.json.write_text(json.dumps(summary, indent=1) + '\n')
    print(f'{out}: {len(dataset)} rows in split {args.split}')
    return 0
