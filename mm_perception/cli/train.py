"""``mm-perception train``: from a configuration to a bundle."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  mm-perception train --config config/mhd.yaml
  mm-perception train --config config/mhd.yaml --resume
  mm-perception train --config my_robot_with_imu.yaml --from models/my_robot
  mm-perception train --config my_robot.yaml --device cuda --out models/my_robot
  torchrun --nproc-per-node 2 -m mm_perception.cli.main train --config my_robot.yaml
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to ``mm-perception``."""
    parser = subparsers.add_parser(
        'train',
        help='train a model and write its bundle',
        description='Train every modality alone and the top level on their latents, measure'
        ' coherence on the test sets, and write the bundle.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--config', type=Path, required=True, help='training configuration')
    parser.add_argument('--out', type=Path, help='bundle folder (default: models/NAME)')
    parser.add_argument('--dataset', help='dataset folder, instead of the one in the config')
    parser.add_argument('--work', type=Path, help='checkpoints, logs (default: runs/NAME)')
    parser.add_argument('--device', default='auto', choices=('auto', 'cpu', 'cuda'))
    parser.add_argument('--seed', type=int, help='instead of the one in the config')
    parser.add_argument(
        '--from',
        dest='earlier',
        metavar='BUNDLE',
        help='keep its autoencoders of unchanged modalities; train the new ones and the top level',
    )
    parser.add_argument('--resume', action='store_true', help='go on from the checkpoints')
    parser.add_argument(
        '--jobs',
        type=int,
        default=min(4, os.cpu_count() or 1),
        help='modalities trained side by side (default: %(default)s)',
    )
    parser.add_argument(
        '--baselines',
        metavar='FILE',
        type=Path,
        help='judgement.json of another bundle of this dataset, whose baselines are not run again',
    )
    parser.add_argument('--json', type=Path, help='write metrics and times to this file')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit code."""
    from mm_perception.bundle import load_bundle
    from mm_perception.config import load_training
    from mm_perception.evaluation.bundle_judgement import read_judgement
    from mm_perception.training import distributed
    from mm_perception.training.run import Run, choose_device, train

    spec = load_training(args.config)
    changes = {'dataset': args.dataset, 'seed': args.seed}
    spec = replace(spec, **{k: v for k, v in changes.items() if v is not None})
    out = args.out or Path('models') / spec.name
    job = Run(
        spec=spec,
        work=args.work or Path('runs') / spec.name,
        device=choose_device(args.device),
        jobs=args.jobs,
        resume=args.resume,
        baselines=args.baselines and read_judgement(args.baselines, Path(spec.dataset)),
    )
    earlier = None if args.earlier is None else load_bundle(args.earlier)
    with distributed.processes(job.device):
        bundle = train(job, out, _command(args), earlier)
        if not distributed.is_main():
            return 0
    if earlier is not None:
        print(f'kept from {earlier.frame_id}: {", ".join(bundle.training["kept"])}')
        for name, reason in bundle.training['not_kept'].items():
            print(f'trained anew: {name}: {reason}')
    draw_judgement(out)
    print((out / 'README.md').read_text())
    for sentence in bundle.training.get('warnings', ()):
        print(f'warning: {sentence}', file=sys.stderr)
    print(f'{out}: {bundle.name}@{bundle.hash[:8]}')
    if args.json:
        args.json.write_text(
            json.dumps({'metrics': bundle.metrics, 'training': bundle.training}, indent=1)
        )
    return 0


def draw_judgement(folder: Path) -> None:
    """Draw the judgement of a bundle beside its model card; none of data without time."""
    from mm_perception.evaluation.bundle_judgement import FILE, PICTURE
    from mm_perception.evaluation.judgement import from_rows

    (folder / PICTURE).unlink(missing_ok=True)
    if not (folder / FILE).is_file():
        return
    try:
        from mm_perception.lab.tables.outage_picture import draw_outages
    except ModuleNotFoundError as error:
        print(f'{folder / PICTURE}: not drawn, {error.name} is missing; pip install ".[lab]"')
        return
    rows = json.loads((folder / FILE).read_text())['rows']
    draw_outages(from_rows(rows).test, folder.name, folder / PICTURE)


def _command(args: argparse.Namespace) -> str:
    words = ['mm-perception train --config', args.config.as_posix()]
    if args.seed is not None:
        words.append(f'--seed {args.seed}')
    if args.earlier is not None:
        words.append(f'--from {args.earlier}')
    return ' '.join(words)
