"""``mm-perception export-lerobot``: bags, as a bundle sees them, to a LeRobot dataset."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mm_perception.cli.importing import check_rate

EXAMPLES = """examples:
  mm-perception export-lerobot bags/* --bundle models/my_robot --out lerobot/my_robot
  mm-perception export-lerobot bags/* --bundle models/my_robot --out out --action command --rate 30

Latents become observation.environment_state, sensors observation.NAME; where one was out, what the
bundle filled in. observation.present tells which were there.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to ``mm-perception``."""
    parser = subparsers.add_parser(
        'export-lerobot',
        help='write bags as a bundle sees them to a LeRobot dataset',
        description='Read bags as a node with the bundle would have heard them, and write a'
        ' LeRobot dataset (v3.0): the latent, and every sensor without holes.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('bags', nargs='+', type=Path, help='as for import-bag')
    parser.add_argument('--bundle', required=True, help='a name under models/, or a folder')
    parser.add_argument('--out', type=Path, required=True, help='folder of the dataset')
    parser.add_argument('--rate', type=float, default=10.0, help='frames per second (default: 10)')
    parser.add_argument('--action', default='', help='modality that is what the robot was told')
    parser.add_argument('--task', default='', help='what the robot does, in words')
    parser.add_argument('--namespace', default='', help='that relative topics were recorded in')
    parser.add_argument('--json', type=Path, help='write the counts to this file')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export; returns the exit code."""
    from tqdm import tqdm

    from mm_perception.fusion.loading import load_perception
    from mm_perception.ros.bag_export import export_bags
    from mm_perception.ros.bag_import import Bags

    check_rate(args.rate)
    bags = Bags(args.bags, args.rate, args.namespace)
    perception = load_perception(args.bundle)
    exported = export_bags(perception, bags, args.out, args.action, args.task, tqdm.write)
    for name, count in exported.filled.items():
        print(f'{name}: filled in at {count} of {exported.frames} frames')
    print(f'{args.out}: {exported.frames} frames in {exported.episodes} episodes')
    if args.json is not None:
        args.json.write_text(json.dumps(asdict(exported), indent=1) + '\n')
    return 0
