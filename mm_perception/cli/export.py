"""``mm-perception export``: add ONNX graphs to a bundle."""

from __future__ import annotations

import argparse
from typing import Any

EXAMPLES = """examples:
  mm-perception export mhd
  mm-perception export models/my_robot
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to ``mm-perception``."""
    parser = subparsers.add_parser(
        'export',
        help='add the ONNX graphs to a bundle, with which it runs without torch',
        description='Write the graphs of a bundle for ONNX Runtime into it, in place of those it'
        ' has. Weights and the name of the latent space stay. Training does the same.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('bundle', help='a name under models/, or a folder')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export; returns the exit code."""
    from mm_perception.bundle import load_bundle, save_additions
    from mm_perception.engines.export import with_graphs

    bundle = with_graphs(load_bundle(args.bundle))
    save_additions(bundle)
    assert bundle.graphs is not None
    graphs = bundle.graphs.content.values()
    print(f'{bundle.path}: {len(graphs)} graphs, {sum(map(len, graphs)) / 1000:.0f} kB')
    return 0
