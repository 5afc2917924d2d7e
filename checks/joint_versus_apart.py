"""
Train the same model with its levels apart and jointly, on the same rows for the same epochs.

    python checks/joint_versus_apart.py --rows 10000 --epochs 15 --seeds 2 --json out.json

Prints seconds and coherence (%, means) by the number of observed modalities. Joint training
updates both levels in one step, as in Vasco et al. 2022; apart, each autoencoder trains alone
and the top level on their cached posteriors.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.config import load_training
from mm_perception.data.dataset import Dataset, load_dataset, save_dataset
from mm_perception.spec import TrainingSpec
from mm_perception.training.run import Run, choose_device, train


def first_rows(dataset: Dataset, count: int) -> Dataset:
    """Only the first rows, with only the values that they show."""
    few = dataset.subset(np.arange(min(count, len(dataset))))
    used = {name: np.unique(index, return_inverse=True) for name, index in few.index.items()}
    return replace(
        few,
        values={name: few.values[name][positions] for name, (positions, _) in used.items()},
        index={name: inverse for name, (_, inverse) in used.items()},
    )


def shortened(spec: TrainingSpec, rows: int, epochs: int, folder: Path) -> TrainingSpec:
    """Use the first rows only, and the same number of epochs for every stage."""
    for split, count in (('train', rows), ('test', 2000)):
        save_dataset(folder, split, first_rows(load_dataset(Path(spec.dataset), split), count))
    warm_up = max(1, epochs // 5)

    def short(stage: Any) -> Any:
        return replace(stage, epochs=epochs, warm_up_epochs=warm_up)

    # The ten symbols are one batch per epoch: they keep their epochs.
    unimodal = {
        name: short(stage) if stage.epochs < 100 else stage
        for name, stage in spec.unimodal.items()
    }
    modalities = tuple(replace(m, shared_dim=0) for m in spec.model.modalities)  # apart alone
    return replace(
        spec,
        dataset=str(folder),
        model=replace(spec.model, modalities=modalities),
        unimodal=unimodal,
        top=replace(short(spec.top), batch_size=128),
        classifiers=replace(spec.classifiers, epochs=5),
    )


def main() -> None:
    """Run both, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n', 1)[0])
    parser.add_argument('--config', type=Path, default=Path('config/mhd.yaml'))
    parser.add_argument('--rows', type=int, default=10_000)
    parser.add_argument('--epochs', type=int, default=15)
    parser.add_argument('--seeds', type=int, default=2)
    parser.add_argument('--device', default='auto')
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base = load_training(args.config)
        base = shortened(base, args.rows, args.epochs, folder / 'data')
        for seed in range(args.seeds):
            for joint in (False, True):
                name = f'{"joint" if joint else "apart"}-{seed}'
                spec = replace(base, seed=seed, joint=joint)
                run = Run(spec, folder / name, choose_device(args.device), quiet=True)
                bundle = train(run, folder / f'{name}-bundle', '')
                rows.append(
                    {
                        'levels': name.split('-')[0],
                        'seed': seed,
                        'seconds': sum(bundle.training['seconds'].values()),
                        'coherence': bundle.metrics['test']['by_observed'],
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + '\n')


if __name__ == '__main__':
    main()
