"""``mm-perception evaluate --table``: train and measure a table of a paper."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

ROBOTS = 'robots'
POLICIES = 'policies'
"""Tables of their own sort: recordings of robots, and policies; not of a paper."""


def add_table_options(group: Any) -> None:
    """Add the options of a table to ``mm-perception evaluate``."""
    group.add_argument('--table', metavar='NAME', help='one of those below, or a YAML file')
    group.add_argument(
        '--scale', default='default', help='budget: default, or full (that of the papers)'
    )
    group.add_argument('--seeds', type=int, default=0, help='runs per model (default: the scale)')
    group.add_argument('--epochs', type=int, default=0, help='train no stage longer, for trials')
    group.add_argument(
        '--variants', nargs='+', default=(), metavar='NAME', help='only these lines of the table'
    )
    group.add_argument(
        '--out', type=Path, default=Path('runs/tables'), help='folder (default: %(default)s)'
    )
    group.add_argument('--markdown', type=Path, help='write the table to this file')
    group.add_argument('--pictures', type=Path, help='folder (default: in that of the table)')
    group.add_argument(
        '--jobs',
        type=int,
        default=os.cpu_count() or 1,
        help='models trained side by side, a thread each (default: %(default)s)',
    )


def run_table_command(args: argparse.Namespace) -> dict[str, Any]:
    """Train and measure a table, write and print it; returns what ``--json`` holds."""
    if args.table == ROBOTS:
        from mm_perception.lab.tables.robots import run_robots

        return run_robots(args)
    if args.table == POLICIES:
        from mm_perception.lab.policies.table import run_policies

        return run_policies(args)
    from mm_perception.lab.tables.pictures import draw_pictures
    from mm_perception.lab.tables.report import json_content, markdown
    from mm_perception.lab.tables.runner import run_table
    from mm_perception.lab.tables.table import TableOptions, load_table
    from mm_perception.training.run import choose_device

    table = load_table(args.table)
    options = TableOptions(
        out=args.out,
        scale=args.scale,
        seeds=args.seeds,
        epochs=args.epochs,
        variants=tuple(args.variants),
        dataset='' if args.dataset is None else args.dataset.as_posix(),
        device=choose_device(args.device),
        jobs=args.jobs,
    )
    results = run_table(table, options, _command(args))
    pictures = draw_pictures(results, args.pictures or options.folder(table) / 'pictures')
    file = args.markdown or options.folder(table) / 'table.md'
    text = markdown(results, pictures, file.parent)
    file.write_text(text)
    print(text)
    print(f'wrote {file}')
    return json_content(results)


def _command(args: argparse.Namespace) -> str:
    words = [f'mm-perception evaluate --table {args.table}']
    if args.scale != 'default':
        words.append(f'--scale {args.scale}')
    if args.epochs:
        words.append(f'--epochs {args.epochs}')
    return ' '.join(words)
