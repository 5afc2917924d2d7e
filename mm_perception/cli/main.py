"""
The command ``mm-perception``: finds the command's module and runs it.

Only the module of the command that was asked for is imported, so that help is quick and a
library that one command needs is never missed by another.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

import mm_perception
from mm_perception.errors import UNUSABLE, MMPerceptionError, printable

COMMANDS = {
    'demo': (
        'mm_perception.lab.demo.command',
        'sensors fail one after the other and the model fills them in, over live topics',
    ),
    'init': (
        'mm_perception.cli.init',
        'write a training configuration for your own recordings',
    ),
    'import-bag': (
        'mm_perception.cli.import_bag',
        'build a dataset from bags of your own robot',
    ),
    'import-lerobot': (
        'mm_perception.cli.import_lerobot',
        'build a dataset from a LeRobot dataset',
    ),
    'export-lerobot': (
        'mm_perception.cli.export_lerobot',
        'write bags as a bundle sees them to a LeRobot dataset',
    ),
    'play': (
        'mm_perception.cli.play',
        'play bags as live sensors',
    ),
    'build-data': (
        'mm_perception.lab.build_data',
        'build a dataset from the recordings of the papers, or from a simulated robot',
    ),
    'train': (
        'mm_perception.cli.train',
        'train a model and write it as a bundle',
    ),
    'export': (
        'mm_perception.cli.export',
        'add the ONNX graphs to a bundle',
    ),
    'calibrate-health': (
        'mm_perception.cli.calibrate_health',
        'let a bundle say when its modalities contradict each other',
    ),
    'evaluate': (
        'mm_perception.cli.evaluate',
        'measure a bundle on a test set',
    ),
    'train-policy': (
        'mm_perception.cli.train_policy',
        'train a policy on the latent of a bundle',
    ),
    'evaluate-policy': (
        'mm_perception.cli.evaluate_policy',
        'measure what a policy returns while sensors fail',
    ),
    'benchmark': (
        'mm_perception.lab.benchmark.command',
        'measure latency, throughput, loss, memory and training speed',
    ),
    'view': (
        'mm_perception.cli.view',
        'show a running node in a browser',
    ),
    'info': (
        'mm_perception.cli.info',
        'show a bundle, the model families, the kinds of modalities, the microphones',
    ),
}
"""Command -> the module that runs it, and its line in the help."""
REMEDIES = {
    'aiohttp': 'run pip install ".[view]" in the repository',
    'sounddevice': 'run pip install ".[microphone]" in the repository',
    'mujoco': 'run pip install ".[arm]" in the repository',
    **dict.fromkeys(
        ('gymnasium', 'stable_baselines3'), 'run pip install ".[train,rl]" in the repository'
    ),
    **dict.fromkeys(('psutil', 'rich'), 'run pip install ".[demo]" in the repository'),
    **dict.fromkeys(('av', 'pyarrow'), 'run pip install ".[train,lerobot]" in the repository'),
    **dict.fromkeys(
        ('onnx', 'rosbags', 'tensorboard', 'torch'),
        'run "make train-environment", or pip install ".[train]", in the repository',
    ),
    **dict.fromkeys(
        ('matplotlib', 'scipy', 'tqdm'),
        'run "make train-environment", or pip install ".[train,lab]", in the repository',
    ),
}
FAILED = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    :param arguments: what follows the program's name, default that of this process.
    :returns: the exit code: 0 only on success.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    name = arguments[0] if arguments else ''
    parser = _build_parser(name)
    try:
        if name in COMMANDS:
            module = importlib.import_module(COMMANDS[name][0])
            module.add_parser(parser.get_default('subparsers'))
        options = parser.parse_args(arguments)
        return int(options.run(options) or 0)
    except ModuleNotFoundError as error:
        print(f'mm-perception: error: {_missing(error, name)}', file=sys.stderr)
        return FAILED
    except MMPerceptionError as error:
        print(f'mm-perception: error: {error}', file=sys.stderr)
        return FAILED
    except SystemExit as end:  # that the middleware is absent has been said
        if end.code == UNUSABLE:
            return FAILED
        raise
    except BrokenPipeError:  # who read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:  # a full disk, a folder that cannot be written
        where = '' if error.filename is None else f'{printable(str(error.filename))}: '
        print(f'mm-perception: error: {where}{error.strerror or error}', file=sys.stderr)
        return FAILED
    except MemoryError:
        print('mm-perception: error: not enough memory; close other programs', file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print('mm-perception: interrupted', file=sys.stderr)
        return INTERRUPTED


def _build_parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='mm-perception',
        description='Fuse whatever sensors deliver, fill in the ones that fail.',
    )
    parser.add_argument('--version', action='version', version=mm_perception.__version__)
    subparsers = parser.add_subparsers(metavar='COMMAND', required=True)
    for command, (_, text) in COMMANDS.items():
        if command != name:
            subparsers.add_parser(command, help=text)
    parser.set_defaults(subparsers=subparsers)
    return parser


def _missing(error: ModuleNotFoundError, command: str) -> str:
    """Say in one line which library is missing and how to get it."""
    library = (error.name or str(error)).split('.')[0]
    remedy = REMEDIES.get(library, 'run pip install . in the repository')
    if library == 'rclpy' or library.endswith('_msgs'):
        remedy = 'source a ROS 2 installation, or use the .venv that "make demo" makes'
    return f'{command} needs the Python package {library}: {remedy}'


if __name__ == '__main__':
    sys.exit(main())
