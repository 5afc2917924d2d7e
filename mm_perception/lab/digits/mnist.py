"""Datasets of images and labels from the official idx files."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.data.dataset import MANIFEST, Dataset, complete_folder, save_build, save_dataset
from mm_perception.errors import DataError
from mm_perception.lab.digits.pen import DIGITS

UNSIGNED_BYTE = 8


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """
    Read an idx file of unsigned bytes.

    :param dimensions: how many axes it must have: 3 for images, 1 for labels.
    :returns: ``uint8``, of the shape that the file states.
    :raises DataError: if it is missing, broken, cut off, or of another format.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
    except FileNotFoundError as error:
        raise DataError(f'{path}: no such file; give its folder with --data') from error
    except EOFError as error:
        raise DataError(f'{path}: cut off; copy the file again') from error
    except (OSError, zlib.error) as error:
        raise DataError(f'{path}: no readable gzip file ({error}); copy it again') from error
    start = 4 + 4 * dimensions
    magic = bytes((0, 0, UNSIGNED_BYTE, dimensions))
    if content[:4] != magic or len(content) < start:
        raise DataError(
            f'{path}: starts with {content[:4].hex() or "nothing"}, expected {magic.hex()}'
            f' (idx of bytes with {dimensions} axes); give the original file'
        )
    shape = struct.unpack(f'>{dimensions}I', content[4:start])
    if len(content) - start != math.prod(shape):
        sizes = ' x '.join(map(str, shape))
        raise DataError(
            f'{path}: states {sizes} bytes, holds {len(content) - start}; copy the file again'
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


NAMES = ('image', 'symbol')
SHAPE = (28, 28)


@dataclass(frozen=True)
class Collection:
    """
    Images of ten classes in idx files, and where they come from.

    :param folder: below the folder of the raw recordings.
    :param labels: names of the classes, in the order of the files' numbers.
    """

    folder: str
    labels: tuple[str, ...]
    source: Mapping[str, str]


CLOTHES = (
    'T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat',
    'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot',
)  # fmt: skip
COLLECTIONS = {
    'mnist': Collection('mnist', DIGITS, {'MNIST': 'CC BY-SA 3.0'}),
    'fashion_mnist': Collection('fashion_mnist', CLOTHES, {'Fashion-MNIST': 'MIT'}),
}


def build_images(
    data_root: Path, out: Path, collection: Collection, seed: int = 0, validation_size: int = 5000
) -> dict[str, Any]:
    """
    Build a dataset of the official training and test files.

    The last samples of a random order of the training files are the validation set; both parts
    keep the order of the files.

    :param data_root: folder that holds the collection's.
    :param out: folder to write; appears when all of it is written.
    :returns: counts, sources and hashes, as written to ``build.json``.
    :raises DataError: if a file is missing, broken, or does not fit the other.
    """
    folder = data_root / collection.folder
    training, test = (_read(folder, stem, collection) for stem in ('train', 't10k'))
    if not 0 < validation_size < len(training):
        raise DataError(f'the validation size is {validation_size}; give 1 to {len(training) - 1}')
    order = np.random.default_rng(seed).permutation(len(training))
    parts = {
        'train': training.subset(np.sort(order[:-validation_size])).shown(),
        'validation': training.subset(np.sort(order[-validation_size:])).shown(),
        'test': test,
    }
    with complete_folder(out, MANIFEST) as scratch:
        for split, dataset in parts.items():
            save_dataset(scratch, split, dataset)
        about = {split: {'samples': len(dataset)} for split, dataset in parts.items()}
        return save_build(scratch, about, seed=seed, sources=dict(collection.source))


HELD_BACK = 5000
"""Last training images of MNIST, which the digits' training does not see."""


def mnist_digits(data_root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """
    Images of MNIST that stand beside other recordings of digits.

    :param split: ``train``, ``validation`` (the last training images) or ``test``.
    :returns: light on dark, ``uint8[N, 28, 28]``, and labels ``int64[N]``.
    :raises DataError: if a file is missing or broken.
    """
    stem = 't10k' if split == 'test' else 'train'
    dataset = _read(data_root / 'mnist', stem, COLLECTIONS['mnist'])
    part = {'train': slice(-HELD_BACK), 'validation': slice(-HELD_BACK, None)}
    rows = part.get(split, slice(None))
    return dataset.values['image'][rows, 0], dataset.index['symbol'][rows]


def _read(folder: Path, stem: str, collection: Collection) -> Dataset:
    images_file = folder / f'{stem}-images-idx3-ubyte.gz'
    labels_file = folder / f'{stem}-labels-idx1-ubyte.gz'
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1).astype(np.int64)
    if images.shape[1:] != SHAPE:
        raise DataError(
            f'{images_file}: images of {images.shape[1:]}; expected {SHAPE}; copy the file again'
        )
    if len(images) != len(labels) or not len(labels):
        raise DataError(
            f'{labels_file}: {len(labels)} labels for {len(images)} images; copy both files again'
        )
    if labels.max() >= len(collection.labels):
        raise DataError(
            f'{labels_file}: label {labels.max()}; expected 0 to 9; copy the file again'
        )
    return Dataset(
        names=NAMES,
        values={'image': images[:, None], 'symbol': np.eye(10, dtype=np.float32)},
        index={'image': np.arange(len(labels)), 'symbol': labels},
        present=np.ones((len(labels), len(NAMES)), bool),
        attributes={'label': (collection.labels, labels)},
    )
