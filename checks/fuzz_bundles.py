"""
Bundles of somebody else's making: every value of the manifest replaced by odd ones.

``python -m checks.fuzz_bundles --tries 100000 --json docs/fuzz_bundles.json``. Whatever a manifest
says, its loader answers in one line, in little memory and time, or the bundle runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault('OMP_NUM_THREADS', '1')

from mm_perception.bundle import MANIFEST, _manifest_hash, save_bundle
from mm_perception.engines.export import with_graphs
from mm_perception.errors import MMPerceptionError
from mm_perception.fusion.loading import load_perception
from tests.helpers.small_bundle import make_bundle

NUMBERS = (0, 1, -1, 3, 7, 255, 1e-9, -0.0, 0.5, 1 << 16, 1_000_000, -(1 << 31), 1 << 31, 1 << 63)
BEYOND = (10**400, 1e308, float('nan'), float('inf'), float('-inf'))
WORDS = ('', 'x', '\0', 'a\nb', '../x', '\x1b[31m', '\ud800', 'x' * 100_000)
NESTED = ([], {}, [0], [[]], [None] * 5000, {'': 0}, {'x': {'y': []}})
ODD: tuple[Any, ...] = (None, True, False, *NUMBERS, *BEYOND, *WORDS, *NESTED)
MAX_BYTES = 1 << 30
"""That one bundle may take beyond what the process had."""
MAX_S = 5.0
"""Of the processor; what hangs without using one never ends, and is seen by that."""
Path_ = tuple[Any, ...]


def leaves(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Paths of everything in plain data, objects and lists themselves too."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for k, item in enumerate(value[:4]):
            yield from leaves(item, (*path, k))


def change(manifest: dict[str, Any], path: Path_, odd: Any) -> None:
    """Put a value in the place of another."""
    place: Any = manifest
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = odd


def attempt(folder: Path) -> str:
    """What becomes of a bundle: ``runs``, ``refused``, or what is wrong with the answer."""
    begin_s = time.process_time()
    try:
        load_perception(str(folder), device='cpu', threads=1)
        answer = 'runs'
    except MMPerceptionError as error:
        said = str(error)
        plain = said.isprintable() and len(said) < 1500
        answer = 'refused' if plain else f'strange answer: {said[:200]!r}'
    except Exception:  # noqa: BLE001 - this is what is looked for
        answer = f'escaped: {traceback.format_exc(limit=-4)}'
    took_s = time.process_time() - begin_s
    return answer if took_s < MAX_S else f'{answer}, after {took_s:.1f} s'


def tries(count: int, seed: int, folder: Path) -> Iterator[tuple[Path_, Any, str]]:
    """Try odd values in odd places, each pair once before any comes again."""
    rng = random.Random(seed)
    text = (folder / MANIFEST).read_text()
    places = [path for path in leaves(json.loads(text)) if path and path != ('hash',)]
    pairs = [(path, odd) for path in places for odd in ODD]
    done = 0
    while done < count:
        rng.shuffle(pairs)
        for path, odd in pairs[: count - done]:
            manifest = json.loads(text)
            change(manifest, path, odd)
            if done >= len(pairs):  # a second place, once all single ones were tried
                change(manifest, *rng.choice([p for p in pairs if p[0][0] != path[0]]))
            try:
                manifest['hash'] = _manifest_hash(manifest)
                changed = json.dumps(manifest).encode()
            except (ValueError, UnicodeEncodeError):
                continue  # not even JSON
            (folder / MANIFEST).write_bytes(changed)
            done += 1
            yield path, odd, attempt(folder)


def main() -> int:
    """Fuzz; exit code 1 if anything escaped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--tries', type=int, default=3000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    counts = {'tries': 0, 'runs': 0, 'refused': 0}
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        bundle = save_bundle(with_graphs(make_bundle()), Path(temporary) / 'small', '#\n')
        before = digest(bundle.path)
        load_perception(str(bundle.path), device='cpu', threads=1)
        taken = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MAX_BYTES,) * 2)
        for path, odd, answer in tries(args.tries, args.seed, bundle.path):
            counts['tries'] += 1
            if answer in counts:
                counts[answer] += 1
            else:
                wrong.append(f'{".".join(map(str, path))} = {str(odd)[:40]!r}: {answer}')
                print(wrong[-1], flush=True)
        assert before == digest(bundle.path), 'a file of the bundle was written'
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    report = {**counts, 'wrong': len(wrong), 'peak memory (MiB)': memory_mib}
    print(json.dumps(report))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + '\n')
    return 1 if wrong else 0


def digest(folder: Path) -> str:
    """Hash of all files of a bundle but its manifest."""
    parts = [
        f.read_bytes() for f in sorted(folder.iterdir()) if f.name != MANIFEST and f.is_file()
    ]
    return hashlib.sha256(b''.join(parts)).hexdigest()


if __name__ == '__main__':
    sys.exit(main())
