"""``mm-perception init``: from recordings to a training configuration."""

from __future__ import annotations

import argparse
import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mm_perception.errors import DataError

EXAMPLES = """examples:
  mm-perception init bags/monday bags/tuesday
  mm-perception init bags/monday --topics /joint_states /imu/data --out my_robot.yaml
  mm-perception init bottle --out bottle.yaml      # a LeRobot dataset

The file is a beginning: look through it, and through what it leaves out and why.
"""
SHORT_S = 20.0
"""Recordings below this are too short for three splits."""


def add_parser(subparsers: Any) -> None:
    """Add the command to ``mm-perception``."""
    parser = subparsers.add_parser(
        'init',
        help='write a training configuration for your own recordings',
        description='Look at every topic of bags, or feature of a LeRobot dataset: type, rate,'
        ' gaps, what is black or never changes. Write a commented configuration that import-bag'
        ' and train take as it is.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'recordings', nargs='+', type=Path, help='bags, or the folder of a LeRobot dataset'
    )
    parser.add_argument('--topics', nargs='+', default=[], help='to look at (default: all)')
    parser.add_argument(
        '--out', type=Path, default=Path('my_robot.yaml'), help='file (default: %(default)s)'
    )
    parser.add_argument('--json', type=Path, help='write what was found to this file')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look, and write the configuration; returns the exit code."""
    from tqdm import tqdm

    from mm_perception.data.drafting import configuration, fact

    name = re.sub(r'\W+', '_', args.out.stem).strip('_').lower() or 'my_robot'
    if args.out.exists():
        raise DataError(f'{args.out}: exists; name another file with --out, or take it away')
    lerobot = (args.recordings[0] / 'meta' / 'info.json').is_file()
    if lerobot and len(args.recordings) > 1:
        raise DataError(f'{args.recordings[1]}: one LeRobot dataset at a time')
    if lerobot:
        from mm_perception.data.lerobot_survey import survey_lerobot

        seen, length_s = survey_lerobot(args.recordings[0], args.topics)
    else:
        from mm_perception.ros.bag_survey import survey_bags

        seen, length_s = survey_bags(args.recordings, args.topics, tqdm.write)
    for each in seen:
        drafts = ', '.join(f'{draft.name} ({draft.kind})' for draft in each.drafts)
        print(f'{fact(each)} -> {drafts or "not used"}')
        print(''.join(f'  {remark}\n' for remark in each.remarks), end='')
    if args.json is not None:
        content = {'length_s': length_s, 'topics': [asdict(each) for each in seen]}
        args.json.write_text(json.dumps(content, indent=1) + '\n')
    if not any(each.drafts for each in seen):
        raise DataError(
            f'{", ".join(map(str, args.recordings))}: nothing in it can be used; record other'
            ' topics'
        )
    short = length_s < SHORT_S
    head = _head(args, name, length_s, lerobot)
    _write(args.out, configuration(name, seen, head, not lerobot, not short))
    if short:
        print(f'{length_s:.3g} s are few for a model: no split, no calibrated std; record more')
    print(f'{args.out}: {sum(len(each.drafts) for each in seen)} modalities')
    return 0


def _head(args: argparse.Namespace, name: str, length_s: float, lerobot: bool) -> list[str]:
    where = ' '.join(path.as_posix() for path in args.recordings)
    command = 'import-lerobot' if lerobot else 'import-bag'
    split = '' if length_s < SHORT_S else ' --split 70/15/15'
    return [
        f'Written by mm-perception init from {length_s:.4g} s of recordings. Look through it,'
        ' then:',
        f'  mm-perception {command} {where} --config {args.out.as_posix()}{split}',
        f'  mm-perception train --config {args.out.as_posix()}',
        f'  ros2 launch mm_perception cmi.launch.py bundle:=$PWD/models/{name}',
        'low and high are half a range beyond what was seen; set those of the sensor if you know'
        ' them.',
    ]


def _write(file: Path, text: str) -> None:
    """Write a file at once, or not at all."""
    partial = file.with_name(f'.{file.name}.partial')
    try:
        partial.write_text(text)
        os.replace(partial, file)
    except OSError as error:
        raise DataError(f'{file}: cannot be written ({error.strerror})') from error
