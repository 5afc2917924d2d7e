"""``mm-perception calibrate-health``: let a bundle say when modalities contradict each other."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  mm-perception calibrate-health mhd
  mm-perception calibrate-health models/my_robot --dataset data/my_robot --split validation
  mm-perception calibrate-health models/my_robot --dataset data/my_robot --false-alarm 0.002
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to ``mm-perception``."""
    parser = subparsers.add_parser(
        'calibrate-health',
        help='let a bundle say when its modalities contradict each other',
        description='Learn from the training split of a dataset what the modalities have in'
        ' common, set the thresholds on a split that was not trained on, and write both into'
        ' the bundle. Weights and the name of the latent space stay. Training does the same.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('bundle', help='a name under models/, or a folder')
    parser.add_argument(
        '--dataset', type=Path, default=Path('data/mhd'), help='folder (default: %(default)s)'
    )
    parser.add_argument(
        '--split', default='validation', help='for the thresholds (default: %(default)s)'
    )
    parser.add_argument(
        '--false-alarm',
        type=float,
        default=0.01,
        metavar='SHARE',
        help='of agreeing data that may raise an alarm; fewer means that more faults are missed'
        ' (default: %(default)s)',
    )
    parser.add_argument('--device', default='auto', choices=('auto', 'cpu', 'cuda'))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Calibrate; returns the exit code."""
    from mm_perception.bundle import CARD, load_bundle, save_additions
    from mm_perception.data.dataset import load_dataset
    from mm_perception.engines.build import reference_engine
    from mm_perception.errors import ConfigError, DataError
    from mm_perception.training.card import model_card
    from mm_perception.training.consistency import LEAST_ROWS, with_health
    from mm_perception.training.run import choose_device

    if not 0.0 < args.false_alarm < 1.0:
        raise ConfigError(f'--false-alarm {args.false_alarm}: give a share above 0 and below 1')
    bundle, device = load_bundle(args.bundle), choose_device(args.device)
    training, held = (load_dataset(args.dataset, split) for split in ('train', args.split))
    if training.names != bundle.spec.names or held.names != bundle.spec.names:
        raise ConfigError(
            f'{args.dataset} has modalities {", ".join(held.names)}, {bundle.name} has'
            f' {", ".join(bundle.spec.names)}; name its own dataset with --dataset'
        )
    bundle = with_health(bundle, training, held, device, args.false_alarm)
    if bundle.health is None:
        raise DataError(
            f'{args.dataset}: train and {args.split} need {LEAST_ROWS} rows each with two'
            ' modalities or more; record more'
        )
    save_additions(bundle)
    fuses = reference_engine(bundle, device).fuses
    (bundle.path / CARD).write_text(model_card(bundle, fuses), encoding='utf-8')
    print(f'{bundle.path}: calibrated on {len(held):,} rows of {args.split}')
    return 0
