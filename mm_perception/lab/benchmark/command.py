"""``mm-perception benchmark``: how fast everything is, on this machine."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mm_perception.errors import ConfigError, DataError
from mm_perception.lab.benchmark.options import ALL, SECTIONS, Options

EXAMPLES = """examples:
  mm-perception benchmark
  mm-perception benchmark --section engine --json engine.json
  mm-perception benchmark models/my_robot --section node --seconds 30
  mm-perception benchmark --render docs/performance.json --markdown docs/performance.md

sections, with minutes on two CPU cores: engine 2, scaling 1, peers 1, training 1, node 7.
All of them with what was written so far into the documentation: make bench.
"""
OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    'repeats': (int, 'how often everything is measured over again'),
    'calls': (int, 'timed calls of each tick and stage per repeat'),
    'seconds': (float, 'how long images are counted, per reliability'),
    'threads': (int, 'of the engines'),
    'counts': (int, 'numbers of modalities for the section scaling'),
    'batches': (int, 'sizes of batches for throughput'),
    'config': (Path, 'training configuration'),
    'peers': (Path, 'Python with MultiVae'),
}


def add_parser(subparsers: Any) -> None:
    """Add the command to ``mm-perception``."""
    parser = subparsers.add_parser(
        'benchmark',
        help='measure latency, throughput, loss, memory and training speed',
        description='Measure engines, the node over topics, growth with the number of modalities,'
        ' training, and MultiVae where it is installed; what is compared is measured in turn.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    usual = Options()
    parser.add_argument(
        'bundle', nargs='?', default=usual.bundle, help='a name under models/, or a folder'
    )
    parser.add_argument('--section', default=ALL, choices=(*SECTIONS, ALL))
    for name, (kind, text) in OPTIONS.items():
        default = getattr(usual, name)
        several = isinstance(default, tuple)
        shown = ' '.join(map(str, default)) if several else default
        how: dict[str, Any] = {'nargs': '+'} if several else {}
        how |= {'type': kind, 'default': default, 'help': f'{text} (default: {shown})'}
        parser.add_argument(f'--{name}', **how)
    _add_outputs(parser)
    parser.set_defaults(run=run)


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--json', type=Path, help='write all rows to this file')
    parser.add_argument(
        '--markdown', type=Path, help='write the tables to this file, between its marks if it has'
    )
    parser.add_argument('--pictures', type=Path, help='folder for pictures')
    parser.add_argument(
        '--render', type=Path, metavar='JSON', help='measure nothing: show what this file holds'
    )


def run(args: argparse.Namespace) -> int:
    """Measure and report; returns the exit code."""
    from mm_perception.lab.benchmark.pictures import draw_pictures
    from mm_perception.lab.benchmark.report import markdown, write_markdown

    content = _read(args.render) if args.render else _measure(args)
    pictures = draw_pictures(content, args.pictures) if args.pictures else {}
    stands = args.markdown.parent if args.markdown else Path()
    links = {t: Path(os.path.relpath(file, stands)).as_posix() for t, file in pictures.items()}
    text = markdown(content, links)
    if args.json:
        try:
            args.json.write_text(json.dumps(content, indent=1) + '\n')
        except OSError as error:
            raise DataError(f'{args.json}: cannot be written ({error.strerror})') from error
    if args.markdown:
        write_markdown(args.markdown, text)
    print(text)
    return 0


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    from mm_perception.lab.benchmark.run import run_benchmark

    given = {name: getattr(args, name) for name in OPTIONS}
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    options = Options(args.bundle, **given)
    for name in ('repeats', 'calls', 'seconds', 'threads', 'counts', 'batches'):
        value = getattr(options, name)
        if min(value if isinstance(value, tuple) else (value,)) <= 0:
            raise ConfigError(f'--{name}: must be greater than 0')
    for file in (args.json, args.markdown):
        if file is not None and not file.parent.is_dir():
            raise DataError(f'{file}: its folder does not exist; make it first')
    return run_benchmark(args.section, options)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
        content['rows'], content['machine']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f'{file}: not the JSON of a benchmark ({error!r})') from error
    assert isinstance(content, dict)
    return content
