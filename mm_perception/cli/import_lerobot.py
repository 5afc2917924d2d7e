"""``mm-perception import-lerobot``: from a LeRobot dataset to a split of a dataset."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mm_perception.cli.importing import Source, add_options, check_rate, import_split
from mm_perception.errors import DataError

EXAMPLES = """examples:
  mm-perception import-lerobot bottle --config my_robot.yaml --episodes 0-27
  mm-perception import-lerobot bottle --config my_robot.yaml --episodes 28-35 --split validation

A modality's topic names the feature, such as observation/images/head; names in its preprocessing
pick elements of a vector.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to ``mm-perception``."""
    parser = subparsers.add_parser(
        'import-lerobot',
        help='build a dataset from a LeRobot dataset',
        description='Read episodes of a LeRobot dataset (v2.0, v2.1, v3.0: parquet, mp4): every'
        ' episode is a recording, the nearest frame at every tick a row. A modality whose video'
        ' is absent is missing in those rows.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('folder', type=Path, help='folder that holds meta/info.json')
    parser.add_argument(
        '--episodes', default='', help='such as 0-27,30 (default: all that are there)'
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Import; returns the exit code."""
    from tqdm import tqdm

    from mm_perception.config import load_training
    from mm_perception.data.lerobot import Episodes

    check_rate(args.rate)
    spec = load_training(args.config)
    numbers = read_numbers(args.episodes)
    episodes = Episodes(spec.model, args.folder, numbers, args.rate, tqdm.write)
    facts = {'source': args.folder.name, 'episodes': list(episodes.numbers)}
    source = Source(len(episodes.numbers), episodes.raw_values, episodes.read, facts)
    return import_split(args, spec.model, args.out or Path(spec.dataset), source)


def read_numbers(text: str) -> tuple[int, ...]:
    """
    Read numbers and ranges, such as ``0-27,30``; sorted, each once.

    :raises DataError: if it is something else.
    """
    numbers: set[int] = set()
    try:
        for part in text.split(',') if text else ():
            first, _, last = part.partition('-')
            span = range(int(first), int(last or first) + 1)
            if not span:
                raise ValueError(part)
            numbers.update(span)
    except ValueError as error:
        raise DataError(f'--episodes is {text}; give numbers and ranges, as 0-27,30') from error
    return tuple(sorted(numbers))
