"""
Training on several processes that torchrun started; alone, every function does nothing.

Every process holds the whole model and dataset and computes its share of each batch; gradients
are averaged by DistributedDataParallel, so that all take the same step.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from mm_perception.errors import ConfigError, EngineUnavailable, ProcessLost
from mm_perception.model.nexus import LearnedVariance

TIMEOUT = timedelta(minutes=10)
# Seeds of the processes lie far from those of the epochs, which follow each other.
SEED_STEP = 1_000_000_007


@contextmanager
def processes(device: str) -> Iterator[None]:
    """
    Join the processes that torchrun started, as long as the block runs.

    :param device: ``cuda`` (NCCL, a GPU per process) or ``cpu`` (gloo).
    :raises EngineUnavailable: if there are more processes than GPUs on this machine.
    :raises ProcessLost: if another process ends or goes silent for 10 minutes.
    """
    if int(os.environ.get('WORLD_SIZE', '1')) == 1:
        yield
        return
    if device == 'cuda':
        _take_gpu(int(os.environ.get('LOCAL_RANK', '0')))
    backend = 'cpu:gloo,cuda:nccl' if device == 'cuda' else 'gloo'
    try:
        distributed.init_process_group(backend, timeout=TIMEOUT)
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and 'gloo' not in str(error):
            raise
        raise ProcessLost(_lost(error)) from error
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_main() -> bool:
    """Whether this process shows progress and writes files."""
    return rank() == 0


def barrier() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        distributed.barrier()


def parallel(step: nn.Module) -> nn.Module:
    """
    Average the gradients of a module over the processes, from the state of the first.

    Batch norm uses the statistics of the process's own share, as is usual.
    """
    if world_size() == 1:
        return step
    for buffer in step.buffers():
        distributed.broadcast(buffer, 0)
    with warnings.catch_warnings():
        # PyTorch 2.13 renames broadcast_buffers; older ones know no other name.
        warnings.simplefilter('ignore', FutureWarning)
        return DistributedDataParallel(step, broadcast_buffers=False)


def seed_apart(seed: int) -> None:
    """Seed noise and dropout anew, differently in every process."""
    if world_size() > 1:
        torch.manual_seed(seed + rank() * SEED_STEP)


def share(positions: Tensor) -> Tensor:
    """Those of a batch's positions that are this process's."""
    return positions[rank() :: world_size()]


def average_statistics(module: nn.Module) -> None:
    """Make running statistics (of batch norm, of variances) the mean of all processes'."""
    if world_size() == 1:
        return
    for part in module.modules():
        running: tuple[Tensor | None, ...] = ()
        if isinstance(part, _BatchNorm):
            running = part.running_mean, part.running_var
        elif isinstance(part, LearnedVariance):
            running = (part.running,)
        for statistic in running:
            if statistic is not None:
                distributed.all_reduce(statistic)
                statistic /= world_size()


def sum_up(sums: Mapping[str, float]) -> dict[str, float]:
    """Add up named numbers over the processes, not all of which need to have each."""
    if world_size() == 1:
        return dict(sums)
    found: list[Mapping[str, float]] = [{}] * world_size()
    distributed.all_gather_object(found, sums)
    names = dict.fromkeys(name for part in found for name in part)
    return {name: sum(part.get(name, 0.0) for part in found) for name in names}


def require_same_start(epoch: int, checkpoint: object) -> None:
    """
    Check that every process begins with the same epoch.

    :raises ConfigError: if one has another checkpoint, as where the folder is not shared.
    """
    if world_size() == 1:
        return
    found: list[int] = [0] * world_size()
    distributed.all_gather_object(found, epoch)
    if len(set(found)) > 1:
        raise ConfigError(
            f'{checkpoint}: the processes would begin with epochs {found}; give a work folder'
            ' (--work) that all machines share'
        )


def smallest_batch() -> int:
    """Samples that a batch needs: two per process, for batch norm."""
    return 2 * world_size()


def require_batch(stage: str, size: int) -> None:
    """
    Check that a stage's batches can be shared.

    :raises ConfigError: if there are less than two samples for each process.
    """
    if world_size() > 1 and size < smallest_batch():
        raise ConfigError(
            f'stage {stage}: batch_size {size} is less than two for each of {world_size()}'
            ' processes; raise it or start fewer'
        )


def _take_gpu(local_rank: int) -> None:
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise EngineUnavailable(
            f'process {local_rank} of this machine has no GPU, there are {count}; start torchrun'
            f' with --nproc-per-node {count}, or train with --device cpu'
        )
    torch.cuda.set_device(local_rank)


def _lost(error: RuntimeError) -> str:
    reason = str(error).splitlines()[0][:120]
    return (
        f'process {os.environ.get("RANK", "?")} of {os.environ["WORLD_SIZE"]} lost the others'
        f' ({reason}); see what they say, then go on with --resume'
    )
