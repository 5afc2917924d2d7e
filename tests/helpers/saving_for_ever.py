"""Saves bundles and datasets again and again; a program for test_killed.py: ``FOLDER``."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from mm_perception.bundle import save_additions, save_bundle
from mm_perception.data.dataset import complete_folder, save_dataset
from mm_perception.engines.export import with_graphs
from tests.helpers.small_bundle import make_bundle
from tests.helpers.toy_training import recordings

if __name__ == '__main__':
    place = Path(sys.argv[1])
    bundles = [with_graphs(make_bundle(seed=k)) for k in range(2)]
    datasets = [recordings(seed) for seed in range(2)]
    for k in itertools.count():
        with complete_folder(place / 'data', 'dataset.json') as folder:
            save_dataset(folder, 'train', datasets[k % 2])
        saved = save_bundle(bundles[k % 2], place / 'small', f'# {k}\n')
        save_additions(saved)
        print(k, flush=True)
