"""
The command ``mm-perception``: finds the command's module and runs it.

Only the module of the command that was asked for is imported, so that help is quick and a
library that one command needs is never missed by another.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

import mm_perception
from mm_perception.errors import MMPerceptionError

COMMANDS = {
    'demo': 'sensors fail one after the other and the model fills them in, over live topics',
    'import-bag': 'build a dataset from bags of your own robot',
    'build-data': 'build a dataset from the recordings of the papers',
    'train': 'train a model and write it as a bundle',
    'export': 'add the ONNX graphs to a bundle',
    'calibrate-health': 'let a bundle say when its modalities contradict each other',
    'evaluate': 'measure a bundle on a test set',
    'benchmark': 'measure latency, throughput, loss, memory and training speed',
    'info': 'show a bundle, the model families, the kinds of modalities',
}
IN_LABORATORY = {'demo': 'demo', 'build-data': 'digits', 'benchmark': 'benchmark'}
FOR_TRAINING = frozenset(
    {
        'matplotlib',
        'onnx',
        'onnxscript',
        'psutil',
        'rosbags',
        'scipy',
        'tensorboard',
        'torch',
        'tqdm',
    }
)
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
            module = importlib.import_module(_module_of(name))
            module.add_parser(parser.get_default('subparsers'))
        options = parser.parse_args(arguments)
        return int(options.run(options) or 0)
    except ModuleNotFoundError as error:
        print(f'mm-perception: error: {_missing(error, name)}', file=sys.stderr)
        return FAILED
    except MMPerceptionError as error:
        print(f'mm-perception: error: {error}', file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print('mm-perception: interrupted', file=sys.stderr)
        return INTERRUPTED


def _module_of(command: str) -> str:
    part = IN_LABORATORY.get(command)
    own = command.replace('-', '_')
    return f'mm_perception.lab.{part}.command' if part else f'mm_perception.cli.{own}'


def _build_parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='mm-perception',
        description='Fuse whatever sensors deliver, fill in the ones that fail.',
    )
    parser.add_argument('--version', action='version', version=mm_perception.__version__)
    subparsers = parser.add_subparsers(metavar='COMMAND', required=True)
    for command, text in COMMANDS.items():
        if command != name:
            subparsers.add_parser(command, help=text)
    parser.set_defaults(subparsers=subparsers)
    return parser


def _missing(error: ModuleNotFoundError, command: str) -> str:
    """Say in one line which library is missing and how to get it."""
    library = (error.name or str(error)).split('.')[0]
    remedy = 'pip install -r requirements/run.txt'
    if library in FOR_TRAINING:
        remedy = 'run "make train-environment", or pip install -r requirements/train.txt'
    if library == 'rclpy' or library.endswith('_msgs'):
        remedy = 'source a ROS 2 installation, or use the .venv that "make demo" makes'
    return f'{command} needs the Python package {library}: {remedy}'


if __name__ == '__main__':
    sys.exit(main())
