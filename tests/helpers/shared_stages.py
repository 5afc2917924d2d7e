"""What each process of test_distributed.py runs: stages whose result is known."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mm_perception.spec import StageSpec
from mm_perception.training import distributed
from mm_perception.training.loop import Fitted, Logging, Stage, fit
from mm_perception.training.stages import TensorSource, unimodal_stage
from tests.helpers.toy_training import configuration, recordings

QUIET = Logging(quiet=True)
ROWS = 101  # neither full batches nor equal shares


def plain_stage() -> Stage:
    """A linear layer without noise: several processes take the very steps of one."""
    torch.manual_seed(0)
    data, module = torch.randn(ROWS, 6), nn.Linear(6, 3)
    unused = nn.Linear(2, 2)

    def loss(positions: Tensor, _: float) -> tuple[Tensor, dict[str, Tensor]]:
        rows = data[positions]
        error = (module(rows) - rows[:, :3].square()).square().mean()
        return error, {'error': error, f'seen by {distributed.rank()}': error}

    return Stage(
        name='plain',
        module=nn.ModuleList([module, unused]),
        spec=StageSpec(epochs=6, batch_size=16),
        loss=loss,
        training=torch.arange(90),
        validation=torch.arange(90, ROWS),
    )


def empty_stage() -> Stage:
    """Nothing to learn from in the batches of all processes but the first."""
    stage = plain_stage()

    def loss(positions: Tensor, warm_up: float) -> tuple[Tensor, dict[str, Tensor]]:
        if distributed.is_main():
            return stage.loss(positions, warm_up)
        return torch.zeros(()), {}

    return replace(stage, name='empty', loss=loss, validation=torch.arange(0))


def arm_stage() -> Stage:
    """An autoencoder with batch norm and noise, on toy data."""
    source = TensorSource(recordings(0).only('arm'), torch.device('cpu'))
    spec = configuration(Path())
    stage = unimodal_stage(spec, 'arm', source)
    return replace(stage, spec=replace(stage.spec, epochs=4))


def fit_interrupted(folder: Path) -> Fitted:
    """Stop the arm's stage in its third epoch, in every process, and go on from there."""
    stage = arm_stage()
    calls = 0

    def failing(positions: Tensor, warm_up: float) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal calls
        calls += stage.module.training
        if calls > 40:
            raise KeyboardInterrupt
        return stage.loss(positions, warm_up)

    checkpoint = folder / 'cut.safetensors'
    try:
        fit(replace(stage, loss=failing), checkpoint, False, QUIET)
    except KeyboardInterrupt:
        again = arm_stage()
        fitted = fit(again, checkpoint, True, QUIET)
        keep(folder, 'resumed', again)
        return fitted
    raise AssertionError('was not interrupted')


def keep(folder: Path, name: str, stage: Stage) -> None:
    """Write what this process has come to."""
    state = {k: v.contiguous() for k, v in stage.module.state_dict().items()}
    save_file(state, folder / f'{name}.{distributed.rank()}.safetensors')


def main(folder: Path) -> None:
    """Fit every stage in all processes."""
    with distributed.processes('cpu'):
        for stage in (plain_stage(), empty_stage(), arm_stage()):
            fit(stage, folder / f'{stage.name}.safetensors', False, QUIET)
            keep(folder, stage.name, stage)
        fit_interrupted(folder)


if __name__ == '__main__':
    main(Path(sys.argv[1]))
