"""Training on two processes of one machine, as torchrun starts them."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mm_perception.bundle import load_bundle
from mm_perception.config import to_plain
from mm_perception.data.dataset import save_dataset
from mm_perception.errors import ConfigError, EngineUnavailable
from mm_perception.spec import StageSpec, TrainingSpec
from mm_perception.training import distributed
from mm_perception.training.loop import Logging, fit
from mm_perception.training.run import Run, train
from tests.helpers.toy_training import configuration, recordings

ROOT = Path(__file__).parents[2]
HELPERS = ROOT / 'tests' / 'helpers'
TORCHRUN = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
ENVIRONMENT = {
    **os.environ,
    'PYTHONPATH': str(ROOT),
    'GLOO_SOCKET_IFNAME': 'lo',
}
LIMIT_S = 240
# About three times the standard deviation of a validation loss over seeds.
NOISE = {'camera': 15.0, 'arm': 0.9, 'top': 0.9, 'calibration': 0.25}


def on_two(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*TORCHRUN, *arguments]
    return subprocess.run(
        command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S
    )


@pytest.fixture(scope='module')
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes came to in the stages of shared_stages.py."""
    folder = tmp_path_factory.mktemp('states')
    done = on_two(str(HELPERS / 'shared_stages.py'), str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def state(folder: Path, name: str, rank: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f'{name}.{rank}.safetensors')


@pytest.mark.parametrize('name', ['plain', 'empty', 'arm', 'resumed'])
def test_distributed_processes_end_with_equal_weights(states: Path, name: str) -> None:
    first, second = state(states, name, 0), state(states, name, 1)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_distributed_steps_are_those_of_one_process(states: Path, tmp_path: Path) -> None:
    from tests.helpers.shared_stages import plain_stage

    alone = plain_stage()
    fit(alone, tmp_path / 'alone.safetensors', False, Logging(quiet=True))
    both = state(states, 'plain', 0)
    for name, value in alone.module.state_dict().items():
        torch.testing.assert_close(both[name], value, rtol=1e-4, atol=1e-5)


def test_distributed_training_resumes_to_the_same_weights(states: Path) -> None:
    whole, resumed = state(states, 'arm', 0), state(states, 'resumed', 0)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value)


def test_distributed_batch_norm_has_seen_the_data_of_all(states: Path) -> None:
    norms = [v for k, v in state(states, 'arm', 0).items() if k.endswith('running_mean')]
    assert norms and all(value.isfinite().all() and value.abs().sum() > 0 for value in norms)


def short_run(folder: Path) -> TrainingSpec:
    """All stages, shortened: autoencoders, top level, refinement, calibration, classifiers."""
    spec = configuration(folder)
    camera, *others = spec.model.modalities
    # Weighed likelihoods and a mean: NOISE is theirs, learned variances and the skip have more.
    modalities = (
        replace(camera, data_weight=1.0, latent_weight=1.0),
        *(replace(m, latent_weight=m.latent_weight or 1.0) for m in others),
    )
    model = replace(spec.model, calibrated=True, modalities=modalities, joint_encoder='mean')
    stage = StageSpec(epochs=8, batch_size=32)
    return replace(
        spec,
        model=model,
        unimodal={**dict.fromkeys(model.names, stage), 'camera': replace(stage, epochs=14)},
        top=stage,
        refinement=StageSpec(epochs=2, batch_size=64),
        calibration=StageSpec(epochs=2, batch_size=128),
        classifiers=StageSpec(epochs=3, batch_size=32),
        precision='float32',
    )


def test_distributed_run_reaches_the_loss_of_one_process(tmp_path: Path) -> None:
    save_dataset(tmp_path / 'data', 'train', recordings(0))
    save_dataset(tmp_path / 'data', 'test', recordings(1))
    spec = short_run(tmp_path)
    config = tmp_path / 'robot.yaml'
    config.write_text(yaml.safe_dump(to_plain(spec)))
    work, out, figures = (str(tmp_path / name) for name in ('work', 'bundle', 'figures.json'))
    command = ['-m', 'mm_perception.cli.main', 'train', '--config', str(config), '--device', 'cpu']
    done = on_two(*command, '--work', work, '--out', out, '--json', figures)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('# robot') == 1
    bars = [line.strip() for line in re.split('[\r\n]', done.stderr) if line.endswith('?epoch/s]')]
    assert len([bar for bar in bars if bar.startswith('top: ')]) == 1
    assert 'Warning' not in done.stderr
    assert len(list(tmp_path.rglob('bundle.json'))) == 1
    both = json.loads(Path(figures).read_text())
    assert both['training']['processes'] == 2
    loaded = load_bundle(out)
    train(Run(spec, tmp_path / 'alone', quiet=True), tmp_path / 'single', 'test')
    alone = load_bundle(tmp_path / 'single')
    assert {k: v.shape for k, v in loaded.weights.items()} == {
        k: v.shape for k, v in alone.weights.items()
    }
    for stage, noise in NOISE.items():
        one, two = (run['validation'][stage] for run in (alone.training, both['training']))
        assert abs(one['loss'] - two['loss']) < noise, (stage, one, two)


def test_distributed_process_that_is_left_alone_ends_with_one_line(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    started = []
    for rank in '01':
        environment = {
            **ENVIRONMENT,
            'MASTER_ADDR': '127.0.0.1',
            'MASTER_PORT': port,
            'WORLD_SIZE': '2',
            'RANK': rank,
        }
        command = [sys.executable, '-c', LEFT_ALONE]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE))
    errors = [process.communicate(timeout=LIMIT_S)[1].decode() for process in started]
    assert [process.returncode for process in started] == [3, 7], errors
    assert 'ProcessLost: process 0 of 2 lost the others (' in errors[0]


LEFT_ALONE = """
import os, sys
from mm_perception.errors import ProcessLost
from mm_perception.training import distributed
try:
    with distributed.processes('cpu'):
        distributed.barrier()
        if not distributed.is_main():
            os._exit(7)
        distributed.barrier()
except ProcessLost as error:
    print(f'ProcessLost: {error}', file=sys.stderr, flush=True)
    os._exit(3)
"""


def test_distributed_functions_do_nothing_alone() -> None:
    with distributed.processes('cpu'):
        assert distributed.is_main() and distributed.world_size() == 1
        positions = torch.arange(5)
        assert torch.equal(distributed.share(positions), positions)
        assert distributed.sum_up({'loss': 2.0}) == {'loss': 2.0}
        module = torch.nn.Linear(1, 1)
        assert distributed.parallel(module) is module


def test_distributed_limits_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, 'world_size', lambda: 4)
    with pytest.raises(ConfigError, match='stage top: batch_size 7 is less than two'):
        distributed.require_batch('top', 7)
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('LOCAL_RANK', str(torch.cuda.device_count()))
    with (
        pytest.raises(EngineUnavailable, match='of this machine has no GPU'),
        distributed.processes('cuda'),
    ):
        pass
