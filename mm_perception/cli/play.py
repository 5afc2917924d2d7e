"""``mm-perception play``: bags as live sensors, without a ROS 2 installation."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mm_perception.errors import DataError

EXAMPLES = """examples:
  mm-perception play bags/friday                 # with /clock: set use_sim_time in the node
  mm-perception play bags/friday --restamp       # as if it came from sensors now
  mm-perception play bags/friday --rate 2 --loop --topics /imu/data

Before it, start the node: python -m mm_perception.ros.cmi_node --ros-args -p autostart:=true ...
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to ``mm-perception``."""
    parser = subparsers.add_parser(
        'play',
        help='play bags as live sensors',
        description='Publish what bags hold in real time, and their time on /clock: a node with'
        ' use_sim_time takes it as its own.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('bags', nargs='+', type=Path, help='as for import-bag')
    parser.add_argument('--rate', type=float, default=1.0, help='of the time (default: 1)')
    parser.add_argument('--loop', action='store_true', help='begin anew at the end')
    parser.add_argument(
        '--start', type=float, default=0.0, help='seconds after the first message (default: 0)'
    )
    parser.add_argument('--topics', nargs='+', default=[], help='to play (default: all)')
    parser.add_argument(
        '--restamp', action='store_true', help='stamp messages anew, and publish no /clock'
    )
    parser.add_argument('--json', type=Path, help='write what was played to this file')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Play; returns the exit code."""
    from tqdm import tqdm

    from mm_perception.resources import transport_environment
    from mm_perception.ros.bag_player import Playing, play_bags

    if not (args.rate > 0.0 and args.start >= 0.0):
        raise DataError(
            f'--rate {args.rate:g} --start {args.start:g}: give a rate above 0 and seconds from 0'
        )
    playing = Playing(args.rate, args.loop, args.start, args.topics, args.restamp)
    os.environ.update(transport_environment())  # images need it, before rclpy starts
    played = play_bags(args.bags, playing, tqdm.write)
    count = sum(played.messages.values())
    print(f'{count} messages in {played.seconds:.4g} s; at most {played.late_s:.2g} s late')
    if args.json is not None:
        args.json.write_text(json.dumps(asdict(played), indent=1) + '\n')
    return 0
