"""``mm-perception import-bag``: from recorded bags to a split of a dataset."""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path
from typing import Any

from mm_perception.cli.importing import Source, add_options, check_rate, import_split
from mm_perception.errors import DataError

EXAMPLES = """examples:
  mm-perception import-bag --config my_robot.yaml bags/monday bags/tuesday
  mm-perception import-bag --config my_robot.yaml --split test bags/friday
  mm-perception import-bag --config my_robot.yaml --split 70/15/15 bags/the_only_one
  mm-perception import-bag --config my_robot.yaml --split test --start 61 bags/the_only_one

Bags are recorded with ros2 bag record -o bags/monday TOPIC ...; every topic of the configuration.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to ``mm-perception``."""
    parser = subparsers.add_parser(
        'import-bag',
        help='build a dataset from bags of your own robot',
        description='Read bags as the node would have heard them: at every tick, what it would'
        ' have used of each modality makes a row of the dataset. A sensor that was silent, stale,'
        ' frozen or refused is absent in that row.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'bags',
        nargs='+',
        type=Path,
        help='folders that ros2 bag record wrote, or files: .mcap, .db3, .bag of ROS 1',
    )
    parser.add_argument(
        '--start', type=float, default=0.0, help="seconds after each bag's first tick (default: 0)"
    )
    parser.add_argument(
        '--end', type=float, default=math.inf, help='the same (default: the end of the bag)'
    )
    parser.add_argument('--namespace', default='', help='that relative topics were recorded in')
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Import; returns the exit code."""
    from tqdm import tqdm

    from mm_perception.config import load_training
    from mm_perception.ros.bag_import import Bags, import_bags, raw_values

    check_rate(args.rate)
    if not 0.0 <= args.start < args.end:
        raise DataError(
            f'--start {args.start:g} --end {args.end:g}: leave no time; give seconds since the'
            " bag's first tick"
        )
    spec = load_training(args.config)
    bags = Bags(args.bags, args.rate, args.namespace, (args.start, args.end))
    end_s = None if math.isinf(args.end) else args.end
    facts = {'bags': bags.recordings(), 'start_s': args.start, 'end_s': end_s}
    source = Source(
        len(args.bags),
        lambda names, wanted: raw_values(spec.model, bags, names, wanted),
        partial(import_bags, bags=bags, say=tqdm.write),
        facts,
    )
    return import_split(args, spec.model, args.out or Path(spec.dataset), source)
