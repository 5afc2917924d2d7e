"""
Training, saving and importing killed at random moments: nothing is lost but the step under way.

``python -m checks.kills --kills 100 --json docs/kills.json``. A training goes on from its
checkpoints to the weights that it has without a kill; a bundle or a dataset is the old one or the
new one.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault('OMP_NUM_THREADS', '1')

import torch
import yaml

from mm_perception.bundle import load_bundle, save_additions, save_bundle
from mm_perception.cli.main import main as command
from mm_perception.data.dataset import load_dataset, save_dataset, splits
from mm_perception.engines.export import with_graphs
from mm_perception.spec import StageSpec
from mm_perception.training.loop import read_checkpoint
from mm_perception.training.run import Run, train
from tests.helpers.driving_bag import write_driving_bag
from tests.helpers.small_bundle import make_bundle
from tests.helpers.toy_training import configuration, recordings

STAGE = StageSpec(epochs=6, batch_size=32, warm_up_epochs=1)
ARM = {
    'name': 'arm',
    'kind': 'vector',
    'topic': '/joint_states',
    'message': 'sensor_msgs/msg/JointState',
}
Work = Callable[[], Any]


def run(work: Work, kill_after_s: float = 1e9) -> bool:
    """Work in a process of its own, which is killed; returns whether it had ended before."""
    process = os.fork()
    if process == 0:
        with open(os.devnull, 'w') as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    end_s = time.monotonic() + kill_after_s
    while time.monotonic() < end_s:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            assert status == 0, 'the work failed by itself'
            return True
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return False


def kill_training(folder: Path, kills: int, rng: random.Random) -> list[str]:
    """Kill a training again and again, then let it end; says what is wrong."""
    for seed, split in enumerate(('train', 'validation', 'test')):
        save_dataset(folder / 'data', split, recordings(seed))
    spec = configuration(
        folder, unimodal=dict.fromkeys(('camera', 'arm', 'word'), STAGE), top=STAGE
    )

    def work(name: str) -> Work:
        job = Run(spec, folder / name, resume=True, quiet=True, classifiers=False)
        return lambda: train(job, folder / f'{name}.bundle', 'check')

    begin_s = time.time()
    run(work('whole'))
    trained_s = (folder / 'whole' / 'top.safetensors').stat().st_mtime - begin_s
    wrong, before = [], 0
    for _ in range(kills):
        run(work('killed'), rng.uniform(0.0, 0.5 * trained_s))
        files = (folder / 'killed').glob('*.safetensors')
        epochs = sum(int(read_checkpoint(file)[0]['epoch']) for file in files)
        if epochs < before:
            wrong.append(f'{before - epochs} epochs that were done are lost')
        before = epochs
    run(work('killed'))
    hashes = {load_bundle(folder / f'{name}.bundle').hash for name in ('whole', 'killed')}
    return wrong if len(hashes) == 1 else [*wrong, 'other weights than without kills']


def kill_saving(folder: Path, kills: int, rng: random.Random) -> list[str]:
    """Kill what saves one of two bundles after the other; says what is wrong."""
    bundles = [with_graphs(make_bundle(seed=k)) for k in range(2)]
    own = folder / 'small' / 'recordings' / 'own'
    own.parent.mkdir(parents=True)
    own.write_text('kept')
    known = {save_bundle(b, folder / 'small', '#\n').hash for b in bundles}

    def work() -> None:
        for k in itertools.count():
            save_additions(save_bundle(bundles[k % 2], folder / 'small', f'# {k}\n'))

    wrong, seen = [], set()
    for _ in range(kills):
        run(work, rng.uniform(0.0, 0.5))
        found = load_bundle(folder / 'small')
        seen.add(found.hash)
        if found.graphs is None or own.read_text() != 'kept':
            wrong.append('a bundle without its graphs, or without what others put there')
    return wrong if seen <= known else [*wrong, 'another bundle']


def kill_importing(folder: Path, kills: int, rng: random.Random) -> list[str]:
    """Kill what imports one of two bags in the place of the other; says what is wrong."""
    config, out = folder / 'robot.yaml', folder / 'data'
    plain = {'name': 'robot', 'dataset': str(out), 'model': {'modalities': [ARM]}}
    config.write_text(yaml.safe_dump(plain))

    def work(bag: int) -> Work:
        words = ['import-bag', str(folder / f'bag{bag}'), '--config', str(config)]

        def do() -> None:
            assert command([*words, '--split', '70/15/15']) == 0

        return do

    known, times_s = set(), []
    for bag in range(2):
        write_driving_bag(folder / f'bag{bag}', 8.0 + 4.0 * bag)
        begin_s = time.monotonic()
        run(work(bag))
        times_s.append(time.monotonic() - begin_s)
        known.add(state(out))
    wrong = [] if len(known) == 2 else ['both imports give the same']
    for k in range(kills):
        # Most of the time goes by before the first byte is written.
        run(work(k % 2), rng.uniform(0.7, 1.1) * min(times_s))
        if state(out) not in known:
            wrong.append('a dataset that is neither')
    return wrong


def state(folder: Path) -> str:
    """Digest of all files of a dataset, each of which has to be readable."""
    for split in splits(folder):
        load_dataset(folder, split)
    found = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()


KINDS = {'training': kill_training, 'saving': kill_saving, 'importing': kill_importing}


def main() -> int:
    """Kill; exit code 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=100, help='of each kind')
    parser.add_argument('--kind', choices=KINDS, action='append', help='default: all')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {}
    for kind in args.kind or KINDS:
        begin_s = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            wrong = KINDS[kind](Path(folder), args.kills, random.Random(args.seed))
        report[kind] = {'kills': args.kills, 'wrong': len(wrong), 'first': wrong[:5]}
        print(f'{kind}: {report[kind]} in {time.monotonic() - begin_s:.0f} s', flush=True)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + '\n')
    return int(any(each['wrong'] for each in report.values()))


if __name__ == '__main__':
    sys.exit(main())
