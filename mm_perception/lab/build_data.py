"""``mm-perception build-data``: from recordings, or a simulation, to a dataset or to samples."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_perception.errors import DataError

SAMPLES = 3
EXAMPLES = """examples:
  mm-perception build-data mhd
  mm-perception build-data mhd --train-size 2000 --test-size 500 --generated-voices none
  mm-perception build-data mhd --from-authors ~/Downloads/mhd --out data/mhd_authors
  mm-perception build-data samples --out models/mhd/recordings
  mm-perception build-data mnist
  mm-perception build-data fashion_mnist
  mm-perception build-data arm
  mm-perception build-data arm_samples --out models/arm/recordings
  mm-perception build-data pendulum
  mm-perception build-data reaching

The recordings are read from --data, which holds the folders ujipenchars2, pendigits_orig, fsdd and
mnist for mhd, the first two for samples, mnist or fashion_mnist for images. The arm,
reaching by it and the pendulum are simulated: that needs MuJoCo, gymnasium, or both.
"""


@dataclass(frozen=True)
class Kind:
    """
    What can be built.

    :param out: where to by default.
    :param build: does it, from the options and the folder; returns counts, sources and hashes.
    """

    out: Path
    build: Callable[[argparse.Namespace, Path], dict[str, Any]]


def add_parser(subparsers: Any) -> None:
    """Add the command to ``mm-perception``."""
    parser = subparsers.add_parser(
        'build-data',
        help='build a dataset from raw recordings, or from a simulated robot',
        description='Build the Multimodal Handwritten Digits dataset (mhd), the sample'
        ' recordings that a bundle carries (samples), a dataset of images and their labels'
        ' from the official files (mnist, fashion_mnist), one of a simulated arm (arm) and'
        ' the episodes that its bundle carries (arm_samples), or one of random states of a'
        ' pendulum behind sensors (pendulum) or of an arm that reaches for a ball (reaching). The'
        ' output folder appears only when all of it is written.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('kind', choices=tuple(KINDS), help='what to build')
    parser.add_argument(
        '--data',
        type=Path,
        default=Path(os.environ.get('MM_PERCEPTION_DATA', '../shared/data')),
        help='folder of the raw recordings (default: $MM_PERCEPTION_DATA or ../shared/data)',
    )
    outs = ', '.join(str(kind.out) for kind in KINDS.values())
    parser.add_argument('--out', type=Path, help=f'folder to write (default: {outs})')
    parser.add_argument('--seed', type=int, default=0, help='of all random numbers (default: 0)')
    _add_sizes(parser)
    parser.add_argument(
        '--from-authors', type=Path, metavar='DIR', help='import mhd_train.pt and mhd_test.pt'
    )
    parser.add_argument('--json', type=Path, help='write counts, sources and hashes to this file')
    parser.set_defaults(run=run)


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    sizes = {
        'train-size': (50_000, 'training samples of mhd'),
        'test-size': (10_000, 'test samples of mhd'),
        'validation-size': (5000, 'validation samples of a dataset'),
        'mnist-size': (20_000, 'training images of MNIST that join those of mhd; 0 for none'),
        'per-label': (24, 'sample recordings per digit'),
        'episodes': (40, 'training episodes of the arm; a quarter of it for validation and test'),
        'states': (
            15_000,
            'training samples of pendulum and reaching; a tenth for validation and test',
        ),
    }
    for name, (default, what) in sizes.items():
        text = f'{what} (default: %(default)s)'
        parser.add_argument(f'--{name}', type=int, default=default, metavar='N', help=text)
    parser.add_argument(
        '--generated-voices',
        default='all',
        metavar='all|none|N',
        help='voices of espeak-ng and flite in the training set of mhd (default: %(default)s)',
    )


def run(args: argparse.Namespace) -> int:
    """Build; returns the exit code."""
    kind = KINDS[args.kind]
    out = args.out or kind.out
    summary = kind.build(args, out)
    if args.json is not None:
        args.json.write_text(json.dumps(summary, indent=1) + '\n')
    print(f'wrote {out}')
    return 0


def _samples(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    from mm_perception.lab.digits.mhd import write_samples

    return {'recordings': write_samples(args.data, out, args.per_label, args.seed)}


def _mhd(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    if args.from_authors is not None:
        from mm_perception.lab.digits.authors import import_authors

        return import_authors(args.from_authors, out)
    from mm_perception.lab.digits.mhd import BuildOptions, build_mhd

    voices = _voices(args.generated_voices)
    options = BuildOptions(
        args.seed,
        args.train_size,
        args.test_size,
        voices,
        validation_size=args.validation_size,
        mnist_size=args.mnist_size,
    )
    return build_mhd(args.data, out, options)


def _images(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    from mm_perception.lab.digits.mnist import COLLECTIONS, build_images

    collection = COLLECTIONS[args.kind]
    return build_images(args.data, out, collection, args.seed, args.validation_size)


def _arm(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    from mm_perception.lab.arm.build import ArmOptions, build_arm

    held_out = max(args.episodes // 4, 1)
    return build_arm(out, ArmOptions(args.seed, (args.episodes, held_out, held_out)))


def _arm_samples(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    from mm_perception.lab.arm.build import ArmOptions, write_arm_samples

    return {'recordings': write_arm_samples(out, SAMPLES, ArmOptions(args.seed))}


def _pendulum(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    from mm_perception.rl.pendulum import draw
    from mm_perception.rl.record import build_states

    return build_states(out, 'pendulum', args.states, args.seed, draw)


def _reaching(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    from mm_perception.lab.arm.reaching import Reaching
    from mm_perception.rl.record import build_states

    return build_states(out, 'reaching', args.states, args.seed, Reaching().draw)


def _voices(text: str) -> int | None:
    if text == 'all':
        return None
    if text == 'none':
        return 0
    if not text.isdigit():
        raise DataError(f'--generated-voices is "{text}"; give all, none or a number')
    return int(text)


KINDS = {
    'mhd': Kind(Path('data/mhd'), _mhd),
    'samples': Kind(Path('models/mhd/recordings'), _samples),
    'mnist': Kind(Path('data/mnist'), _images),
    'fashion_mnist': Kind(Path('data/fashion_mnist'), _images),
    'arm': Kind(Path('data/arm'), _arm),
    'arm_samples': Kind(Path('models/arm/recordings'), _arm_samples),
    'pendulum': Kind(Path('data/pendulum'), _pendulum),
    'reaching': Kind(Path('data/reaching'), _reaching),
}
