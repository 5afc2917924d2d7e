"""``mm-perception evaluate``: measure a bundle, or train and measure a table of a paper."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from mm_perception.errors import ConfigError
from mm_perception.lab.tables.command import add_table_options, run_table_command
from mm_perception.spec import ESTIMATORS, PRECISIONS

FLOAT32 = PRECISIONS[0]
EXAMPLES = """examples:
  mm-perception evaluate mhd
  mm-perception evaluate models/my_robot --dataset data/my_robot --estimator sample
  mm-perception evaluate mhd --full --json metrics.json
  mm-perception evaluate mhd --precision int8
  mm-perception evaluate mhd --conditions --json conditions.json
  mm-perception evaluate --table hierarchy --markdown hierarchy.md
  mm-perception evaluate models/my_robot --dataset data/my_robot --pictures pictures
  mm-perception evaluate --table robots --variants g1 --seeds 1
  mm-perception evaluate --table likelihood --scale full --device cuda

tables, with minutes on two CPU cores:
  hierarchy 9, fpd 6, standard 11, likelihood 30, mhd 46, ablation 12, speakers 8, robots 60
A table trains its models under --out and goes on where it was interrupted. --scale full takes the
papers' budgets and is meant for a GPU.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to ``mm-perception``."""
    parser = subparsers.add_parser(
        'evaluate',
        help='measure a bundle, or reproduce a table of a paper',
        description='Generate every modality from every subset of the others, for all test'
        ' splits of a dataset, and let the classifiers of the bundle read what was generated.'
        ' With --table: train the models of a table of the papers and measure them.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('bundle', nargs='?', help='a name under models/, or a folder')
    parser.add_argument(
        '--dataset', type=Path, help='folder (default: data/mhd, or what the table names)'
    )
    parser.add_argument('--device', default='auto', choices=('auto', 'cpu', 'cuda'))
    parser.add_argument('--json', type=Path, help='write all rows to this file')
    _add_bundle_options(parser.add_argument_group('a bundle'))
    _add_condition_options(parser.add_argument_group('strange conditions'))
    add_table_options(parser.add_argument_group('a table'))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate; returns the exit code."""
    if bool(args.bundle) == bool(args.table):
        raise ConfigError('evaluate takes a bundle or --table NAME, one of the two')
    if args.table:
        content = run_table_command(args)
    else:
        content = _run_conditions(args) if args.conditions else _run_bundle(args)
    if args.json:
        args.json.write_text(row_per_line(content))
    return 0


def row_per_line(content: dict[str, Any]) -> str:
    """JSON in which every row of a list is a line."""
    parts = []
    for key, value in content.items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = '[\n' + ',\n'.join(map(json.dumps, value)) + '\n]'
        parts.append(f'{json.dumps(key)}: {text}')
    return '{\n' + ',\n'.join(parts) + '\n}\n'


def _add_bundle_options(group: Any) -> None:
    group.add_argument(
        '--estimator',
        default='mean',
        choices=ESTIMATORS,
        help='means of the latents, a sample of the joint one, or of all (default: %(default)s)',
    )
    group.add_argument('--seed', type=int, default=0, help='of the samples (default: 0)')
    group.add_argument(
        '--precision',
        default=FLOAT32,
        choices=PRECISIONS,
        help='that a robot would run with (default: %(default)s; the others without --full)',
    )
    group.add_argument(
        '--full',
        action='store_true',
        help='measure Frechet distance, probe, uncertainty and reconstruction error too',
    )


def _add_condition_options(group: Any) -> None:
    group.add_argument(
        '--conditions',
        action='store_true',
        help='tell digits from raw recordings under strange conditions (bundles of mhd)',
    )
    group.add_argument(
        '--data',
        type=Path,
        default=Path(os.environ.get('MM_PERCEPTION_DATA', '../shared/data')),
        help='folder of the raw recordings (default: $MM_PERCEPTION_DATA or ../shared/data)',
    )
    group.add_argument(
        '--split',
        default='test',
        choices=('test', 'validation'),
        help='whose hands and voices (default: %(default)s)',
    )
    group.add_argument(
        '--per-label', type=int, default=50, metavar='N', help='digits each (default: %(default)s)'
    )


def _run_conditions(args: argparse.Namespace) -> dict[str, Any]:
    from mm_perception.bundle import load_bundle
    from mm_perception.evaluation.coherence import versions
    from mm_perception.lab.digits.condition_table import (
        Judge,
        condition_tables,
        load_data,
        measure_conditions,
    )

    began, bundle = time.monotonic(), load_bundle(args.bundle)
    judge = Judge(bundle)
    voices = (args.dataset or Path('data/mhd')).parent / 'voices'
    data = load_data(args.data, args.split, voices, args.per_label)
    rows = measure_conditions(judge, data)
    print('\n'.join(condition_tables(rows)))
    return {
        'rows': [vars(row) for row in rows],
        'bundle': f'{bundle.name}@{bundle.hash[:8]}',
        'split': args.split,
        'versions': versions(),
        'seconds': round(time.monotonic() - began, 1),
    }


def _run_bundle(args: argparse.Namespace) -> dict[str, Any]:
    from mm_perception.bundle import load_bundle
    from mm_perception.evaluation.coherence import (
        coherence_table,
        evaluate_bundle,
        json_rows,
        versions,
    )

    if args.full and args.precision != FLOAT32:
        raise ConfigError(f'--full measures in {FLOAT32} only; leave out --precision')
    began = time.monotonic()
    bundle, dataset = load_bundle(args.bundle), args.dataset or Path('data/mhd')
    figures = evaluate_bundle(
        bundle, dataset, args.device, args.estimator, args.seed, args.precision
    )
    for split, result in figures.items():
        print('\n'.join(coherence_table(split, result)), end='\n\n')
    rows = json_rows(bundle, figures, args.seed)
    if args.full:
        rows += json_rows(bundle, _other_metrics(args, bundle, dataset), args.seed)
    judged = _judge(args, bundle, dataset)
    if not figures and not judged:
        print(
            f'{dataset}: no test split has complete rows, or no classifier reads labels; nor do'
            ' train, validation and test tell time'
        )
    return {
        'rows': rows,
        **judged,
        'precision': args.precision,
        'versions': versions(),
        'seconds': round(time.monotonic() - began, 1),
    }


def _judge(args: argparse.Namespace, bundle: Any, dataset: Path) -> dict[str, Any]:
    """Outages of recordings; nothing for data without time."""
    from mm_perception.evaluation.bundle_judgement import judge_bundle
    from mm_perception.lab.tables.outage_picture import draw_outages
    from mm_perception.training.run import choose_device

    judgement = judge_bundle(bundle, dataset, choose_device(args.device))
    if judgement is None:
        return {}
    print('\n'.join(judgement.lines()), end='\n\n')
    if args.pictures:
        file = args.pictures / f'{bundle.name}_outages.png'
        draw_outages(judgement.outages.test, bundle.name, file)
        print(f'wrote {file}')
    about = {'recording': dataset.name, 'seed': bundle.training.get('seed', 0)}
    return {'judgement': judgement.plain(**about)}


def _other_metrics(args: argparse.Namespace, bundle: Any, dataset: Path) -> dict[str, Any]:
    from mm_perception.lab.tables.bundle_metrics import measure_everything, metric_table
    from mm_perception.training.run import choose_device

    device, work = choose_device(args.device), Path('runs/features')
    measured = measure_everything(bundle, dataset, work, device, args.estimator, args.seed)
    for split, rows in measured.items():
        print('\n'.join(metric_table(split, rows)), end='\n\n')
    return {split: {'rows': [vars(row) for row in rows]} for split, rows in measured.items()}
