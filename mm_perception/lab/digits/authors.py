"""Import of the MHD files that its authors published (a pickle, loaded without running code)."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mm_perception.data.dataset import MANIFEST, Dataset, complete_folder, save_dataset, to_bytes
from mm_perception.errors import DataError
from mm_perception.lab.digits.mhd import NAMES
from mm_perception.lab.digits.pen import DIGITS

SPLITS = ('train', 'test')


def import_authors(source: Path, out: Path) -> dict[str, Any]:
    """
    Turn ``mhd_train.pt`` and ``mhd_test.pt`` into a dataset of this project.

    :param source: folder with the two files.
    :param out: folder to write; appears when all of it is written.
    :returns: samples per split.
    :raises DataError: if a file is missing, broken or of another layout.
    """
    with complete_folder(out, MANIFEST) as folder:
        counts = {}
        for split in SPLITS:
            dataset = _read(source / f'mhd_{split}.pt')
            save_dataset(folder, split, dataset)
            counts[split] = len(dataset)
    return {'samples': counts, 'source': 'files of the authors of MHD'}


def _read(path: Path) -> Dataset:
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
        labels, images, trajectories, sounds = (np.asarray(part) for part in content[:4])
    except FileNotFoundError as error:
        raise DataError(f'{path}: no such file; --from-authors needs the MHD files') from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f'{path}: not readable as weights-only torch file') from error
    except (TypeError, ValueError) as error:
        raise DataError(f'{path}: expected a tuple of labels, images, ... ({error})') from error
    size = len(labels)
    shapes = {
        'images': (images.shape, (size, 1, 28, 28)),
        'trajectories': (trajectories.shape, (size, 200)),
        # Parts that are to be joined along the first axis: [N, k, 128 / k, 32].
        'sounds': ((len(sounds), sounds.size), (size, size * 128 * 32)),
    }
    for what, (found, expected) in shapes.items():
        if found != expected:
            raise DataError(f'{path}: {what} have shape {found}; expected {expected}')
    labels = labels.astype(np.int64)
    if size == 0 or labels.min() < 0 or labels.max() > 9:
        raise DataError(f'{path}: labels must be 0 to 9, at least one')
    rows = np.arange(size)
    return Dataset(
        names=NAMES,
        values={
            'image': to_bytes(images),
            'trajectory': trajectories.astype(np.float32),
            'sound': to_bytes(sounds.reshape(size, 128, 32)),
            'symbol': np.eye(10, dtype=np.float32),
        },
        index={'image': rows, 'trajectory': rows, 'sound': rows, 'symbol': labels},
        present=np.ones((size, len(NAMES)), bool),
        attributes={'label': (DIGITS, labels)},
    )
