"""
Train and measure the models of MultiVae and ours: same rows, networks, epochs and batch size.

    checks/peers/install.sh
    checks/peers/.venv/bin/python checks/peers/run.py --json FILE --markdown FILE

See README.md beside this file. Interrupted, it goes on where it stopped: what is trained and
measured is kept per model and seed in the work folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from measure import (
    CASES,
    CONFIG,
    PAPER,
    TEST_ROWS,
    Budget,
    Evaluation,
    first_rows,
    train_case,
)
from tables import markdown

from mm_perception.bundle import load_bundle
from mm_perception.data.dataset import Dataset, load_dataset


def main() -> None:
    """Run what is missing, then write the tables."""
    args = parse()
    torch.set_num_threads(args.threads)
    report = compare(args)
    text = markdown(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + '\n')
    if args.markdown:
        args.markdown.write_text(text)
    print(text)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--dataset', type=Path, default=Path('data/mhd'), help='(%(default)s)')
    parser.add_argument('--rows', type=int, default=8000, help='training rows (%(default)s)')
    parser.add_argument('--epochs', type=int, default=8, help='(%(default)s)')
    parser.add_argument('--batch-size', type=int, default=64, help='(%(default)s)')
    parser.add_argument('--seeds', type=int, default=1, help='(%(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='of the CPU (%(default)s)')
    parser.add_argument('--models', nargs='+', choices=CASES, default=list(CASES))
    parser.add_argument('--bundle', default='mhd', help='whose classifiers read (%(default)s)')
    parser.add_argument('--work', type=Path, default=Path('runs/peers'), help='(%(default)s)')
    parser.add_argument('--json', type=Path, help='write all figures to this file')
    parser.add_argument('--markdown', type=Path, help='write the tables to this file')
    args = parser.parse_args()
    try:
        version('multivae')
    except PackageNotFoundError:
        parser.error(
            'MultiVae is not installed here; run checks/peers/install.sh, then this script'
            ' with checks/peers/.venv/bin/python'
        )
    return args


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Results of all cases, the seeds one after the other."""
    evaluation = Evaluation(args.dataset, args.bundle, args.work / 'features')
    rows = first_rows(load_dataset(args.dataset, 'train'), args.rows)
    budget = Budget(len(rows), args.epochs, args.batch_size)
    kept = args.work / fingerprint(args)
    results = [
        measured(key, budget, seed, rows, evaluation, kept)
        for seed in range(args.seeds)
        for key in args.models
    ]
    settings = {**vars(budget), 'seeds': args.seeds, 'threads': args.threads}
    return {
        'settings': {**settings, 'dataset': args.dataset.name, 'test_rows': TEST_ROWS},
        'versions': {name: version(name) for name in ('torch', 'multivae', 'mm_perception')},
        'classifier_accuracy': evaluation.classifier_accuracy(),
        'results': results,
    }


def fingerprint(args: argparse.Namespace) -> str:
    """Name of the folder of results with the same settings, data and classifiers."""
    parts = [args.rows, args.epochs, args.batch_size, args.threads, load_bundle(args.bundle).hash]
    parts += [file.read_text() for file in (CONFIG, PAPER, args.dataset / 'dataset.json')]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def measured(
    key: str, budget: Budget, seed: int, rows: Dataset, evaluation: Evaluation, kept: Path
) -> dict[str, Any]:
    """Result of one case and seed: what was kept of it, or a new run."""
    case = CASES[key]
    file = kept / f'{key}-{seed}.json'
    if not file.is_file():
        work = kept / f'{key}-{seed}'
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        print(f'{case.title}, seed {seed}', flush=True)
        trained = train_case(case, budget, seed, rows, work)
        result = {'title': case.title, 'seed': seed}
        result |= {
            'load_average': os.getloadavg()[0],
            **vars(budget),
            **evaluation.measure(trained),
        }
        partial = file.with_suffix('.partial')
        partial.write_text(json.dumps(result))
        partial.replace(file)
        shutil.rmtree(work)
    return {'case': key, **json.loads(file.read_text())}


if __name__ == '__main__':
    main()
