"""``mm-perception evaluate-policy``: what a policy returns while sensors fail."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  mm-perception evaluate-policy pendulum
  mm-perception evaluate-policy models/pendulum --json rows.json --picture returns.png
  mm-perception evaluate-policy models/pendulum --policy /tmp/policy --episodes 50

Beside the policy stand random actions, no action at all and, where policy/true_state is there, a
policy that reads the true state, all from the same starts.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to ``mm-perception``."""
    parser = subparsers.add_parser(
        'evaluate-policy',
        help='measure what a policy returns while sensors fail',
        description='Let a policy act while one or two sensors are gone from several moments on,'
        ' or for a while, and while one lies, with the health checks and without.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('bundle', help='a name under models/, or a folder')
    parser.add_argument('--policy', type=Path, help='folder (default: policy/ of the bundle)')
    parser.add_argument('--env', metavar='ID', help='of gymnasium (default: it trained in)')
    parser.add_argument('--episodes', type=int, default=6, help='starts (default: %(default)s)')
    parser.add_argument('--json', type=Path, help='write all rows to this file')
    parser.add_argument('--picture', type=Path, help='draw the returns into this file')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate; returns the exit code."""
    from mm_perception.cli.evaluate import row_per_line
    from mm_perception.errors import ConfigError
    from mm_perception.rl.judging import draw_rows, judge_policy, table_of

    if args.episodes < 1:
        raise ConfigError(f'--episodes is {args.episodes}; give 1 or more')
    began = time.monotonic()
    rows = judge_policy(args.bundle, args.policy, args.env, args.episodes)
    print('\n'.join(table_of(rows)))
    if args.json:
        seconds = round(time.monotonic() - began, 1)
        args.json.write_text(row_per_line({'rows': rows, 'seconds': seconds}))
    if args.picture:
        draw_rows(rows, args.picture)
        print(f'wrote {args.picture}')
    return 0
