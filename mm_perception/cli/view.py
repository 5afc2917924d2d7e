"""``mm-perception view``: a page that shows the node ``cmi`` in a browser."""

from __future__ import annotations

import argparse
from typing import Any

EXAMPLES = """examples:
  mm-perception view
  mm-perception view --port 8081 --namespace /robot1
  mm-perception view --address 0.0.0.0 --token a-secret
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to ``mm-perception``."""
    parser = subparsers.add_parser(
        'view',
        help='show a running node in a browser',
        description='Run view_node: serve a page that shows what the node cmi observes and'
        ' generates, and takes sensors away from it.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--address', default='127.0.0.1', help='where (default: 127.0.0.1)')
    parser.add_argument('--port', default=8080, type=int, help='of the page (default: 8080)')
    parser.add_argument('--token', default='', help='what the address has to end with')
    parser.add_argument('--namespace', default='/', help='of the node cmi (default: /)')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve it until interrupted; returns the exit code."""
    from mm_perception.ros.view.node import main

    parameters = {'address': args.address, 'port': args.port, 'token': args.token}
    words = ['--ros-args', '-r', f'__ns:={args.namespace}']
    for name, value in parameters.items():
        words += ['-p', f'{name}:={value}'] if value != '' else []
    return main(words)
