"""``mm-perception evaluate``: coherence of a bundle on the test sets of a dataset."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  mm-perception evaluate mhd
  mm-perception evaluate models/my_robot --dataset data/my_robot --estimator sample
  mm-perception evaluate mhd --json coherence.json
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to ``mm-perception``."""
    parser = subparsers.add_parser(
        'evaluate',
        help='measure a bundle on a test set',
        description='Generate every modality from every subset of the others, for all test'
        ' splits of a dataset, and let the classifiers of the bundle read what was generated.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('bundle', help='a name under models/, or a folder')
    parser.add_argument('--dataset', type=Path, default=Path('data/mhd'))
    parser.add_argument('--device', default='auto', choices=('auto', 'cpu', 'cuda'))
    parser.add_argument(
        '--estimator',
        default='mean',
        choices=('mean', 'sample'),
        help='mean of the joint posterior, or a sample of it (default: %(default)s)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the samples (default: 0)')
    parser.add_argument('--json', type=Path, help='write all rows to this file')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate; returns the exit code."""
    from mm_perception.bundle import load_bundle
    from mm_perception.evaluation.summary import (
        coherence_table,
        evaluate_bundle,
        json_rows,
        versions,
    )

    began = time.monotonic()
    bundle = load_bundle(args.bundle)
    figures = evaluate_bundle(bundle, args.dataset, args.device, args.estimator, args.seed)
    for split, result in figures.items():
        print('\n'.join(coherence_table(split, result)), end='\n\n')
    if args.json:
        content = {
            'rows': json_rows(bundle, figures, args.seed),
            'versions': versions(),
            'seconds': round(time.monotonic() - began, 1),
        }
        args.json.write_text(json.dumps(content, indent=1) + '\n')
    return 0
