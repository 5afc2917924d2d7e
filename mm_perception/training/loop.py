"""The training loop of one stage, with checkpoints and progress."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mm_perception.config import to_plain
from mm_perception.errors import ConfigError
from mm_perception.progress import tqdm
from mm_perception.spec import StageSpec
from mm_perception.training import distributed

PRECISIONS = ('auto', 'float32', 'bfloat16')
Loss = Callable[[Tensor, float], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Stage:
    """
    Something to train.

    :param loss: of positions ``int64[B]`` and a KL warm-up factor; gives loss and its terms.
    :param training: positions to train on, ``int64[N]``, on the device.
    :param validation: positions to validate on; may be empty.
    :param identity: what besides the stage's spec decides the result, for checkpoints.
    :param bfloat16: compute products and convolutions in 16 bits; weights stay in 32.
    """

    name: str
    module: nn.Module
    spec: StageSpec
    loss: Loss
    training: Tensor
    validation: Tensor
    seed: int = 0
    identity: str = ''
    bfloat16: bool = False

    @property
    def fingerprint(self) -> str:
        """Hash of all that a checkpoint must share with the run that resumes it."""
        parts = [
            *(self.name, to_plain(self.spec), self.seed, len(self.training)),
            *(self.identity, self.bfloat16),
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Logging:
    """Where progress goes: a terminal, and TensorBoard if a folder is given."""

    tensorboard: Path | None = None
    bar_position: int = 0
    quiet: bool = False

    def writer(self, stage: str) -> Any:
        """TensorBoard writer of a stage, or None where it is off or not installed."""
        if self.tensorboard is None:
            return None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return None
        return SummaryWriter(str(self.tensorboard / stage))

    def bar(self, stage: Stage, start: int) -> tqdm[int]:
        """Epochs of a stage from one on, with a progress bar."""
        return tqdm(
            range(start, stage.spec.epochs),
            desc=f'{stage.name:>12}',
            unit='epoch',
            initial=start,
            total=stage.spec.epochs,
            position=self.bar_position,
            disable=self.quiet,
        )


@dataclass(frozen=True)
class Fitted:
    """
    What a training stage came to.

    :param terms: of the last validation (of the last epoch where there is none).
    :param seconds: spent in all, interruptions not counted.
    """

    terms: dict[str, float]
    seconds: float


def read_checkpoint(
    file: Path, device: str = 'cpu'
) -> tuple[dict[str, str], dict[str, Tensor], dict[int, dict[str, Tensor]]]:
    """
    Read the checkpoint of a stage.

    :returns: the metadata (``epoch``, ``seconds``, ``fingerprint``), the module's weights, and
        the optimiser's state per parameter.
    """
    weights: dict[str, Tensor] = {}
    states: dict[int, dict[str, Tensor]] = {}
    with safe_open(file, 'pt', device=device) as opened:
        for name in opened.keys():  # noqa: SIM118
            part, _, key = name.partition('.')
            if part == 'module':
                weights[key] = opened.get_tensor(name)
            else:
                number, _, key = key.partition('.')
                states.setdefault(int(number), {})[key] = opened.get_tensor(name)
        return opened.metadata(), weights, states


def fit(stage: Stage, checkpoint: Path, resume: bool, logging: Logging) -> Fitted:
    """
    Train a stage to its last epoch; every epoch is checkpointed.

    Epochs are seeded one by one, so that a resumed run equals an uninterrupted one. Processes
    that torchrun started share every batch; the first of them writes the checkpoint.

    :param resume: go on from the checkpoint if there is one.
    :raises ConfigError: if the checkpoint belongs to another configuration, or a batch is too
        small for the processes that share it.
    """
    distributed.require_batch(stage.name, stage.spec.batch_size)
    optimizer = torch.optim.Adam(
        stage.module.parameters(), lr=stage.spec.learning_rate, fused=True
    )
    start, seconds = _resume(stage, optimizer, checkpoint) if resume else (0, 0.0)
    distributed.require_same_start(start, checkpoint)
    step = distributed.parallel(_Step(stage))
    began = time.monotonic() - seconds
    writer = logging.writer(stage.name)
    terms: dict[str, float] = {}
    bar = logging.bar(stage, start)
    for epoch in bar:
        terms = _train_epoch(stage, step, optimizer, epoch)
        if len(stage.validation):
            terms = _validate(stage, epoch)
        bar.set_postfix({name: f'{value:.2f}' for name, value in terms.items()})
        if writer:
            for name, value in terms.items():
                writer.add_scalar(name, value, epoch)
        seconds = time.monotonic() - began
        if distributed.is_main():
            _save_checkpoint(checkpoint, stage, optimizer, epoch + 1, seconds)
    if start >= stage.spec.epochs:
        terms = _done_before(stage, optimizer, checkpoint, start)
    if writer:
        writer.close()
    stage.module.eval()
    distributed.barrier()  # the checkpoint is there for all
    return Fitted(terms, seconds)


def _done_before(
    stage: Stage, optimizer: torch.optim.Optimizer, checkpoint: Path, start: int
) -> dict[str, float]:
    """Validate what needs no epoch (any more), and keep what never did."""
    if not stage.spec.epochs and distributed.is_main():
        _save_checkpoint(checkpoint, stage, optimizer, 0, 0.0)
    return _validate(stage, start) if len(stage.validation) else {}


def _save_checkpoint(
    file: Path, stage: Stage, optimizer: torch.optim.Optimizer, epochs: int, seconds: float
) -> None:
    """Write weights and the optimiser's state, replacing what was there only when complete."""
    tensors = {f'module.{k}': v.contiguous() for k, v in stage.module.state_dict().items()}
    for i, state in optimizer.state_dict()['state'].items():
        tensors |= {f'optimizer.{i}.{k}': v.contiguous() for k, v in state.items()}
    metadata = {'epoch': str(epochs), 'seconds': str(seconds), 'fingerprint': stage.fingerprint}
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix('.partial')
    save_file(tensors, temporary, metadata)
    temporary.replace(file)


def _resume(stage: Stage, optimizer: torch.optim.Optimizer, checkpoint: Path) -> tuple[int, float]:
    """Epochs that are done, and seconds they took; none where there is no checkpoint."""
    if not checkpoint.is_file():
        return 0, 0.0
    metadata, weights, states = read_checkpoint(checkpoint, str(stage.training.device))
    if metadata.get('fingerprint') != stage.fingerprint:
        raise ConfigError(
            f'{checkpoint}: belongs to another configuration; train without --resume'
        )
    stage.module.load_state_dict(weights)
    groups = optimizer.state_dict()['param_groups']
    optimizer.load_state_dict({'state': states, 'param_groups': groups})
    return int(metadata['epoch']), float(metadata['seconds'])


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """
    Whether to train with 16-bit products: where the device has them natively, if not told.

    :param precision: ``auto``, ``float32`` or ``bfloat16``.
    :raises ConfigError: if it is none of these.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f'precision: unknown "{precision}"; known: {", ".join(PRECISIONS)}')
    if precision != 'auto':
        return precision == 'bfloat16'
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able: dict[str, Any] = getattr(torch.cpu, 'get_capabilities', dict)()
    return any(able.get(name, False) for name in ('avx512_bf16', 'amx_bf16'))


def warm_up_factor(spec: StageSpec, epoch: int) -> float:
    """KL weight's factor in an epoch: rises linearly to 1 over the warm-up epochs."""
    return min(1.0, (epoch + 1) / spec.warm_up_epochs) if spec.warm_up_epochs else 1.0


class _Step(nn.Module):
    """A stage's loss as the forward pass of a module, which gradients can be averaged of."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.module = stage.module
        self._loss = stage.loss

    def forward(self, positions: Tensor, warm_up: float) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = self._loss(positions, warm_up)
        if distributed.world_size() > 1 or not loss.requires_grad:
            # Whatever modalities a share of a batch has, every parameter gets a gradient.
            loss = loss + 0.0 * sum(p.sum() for p in self.parameters() if p.requires_grad)
        return loss, {name: term.detach() for name, term in terms.items()}


def _train_epoch(
    stage: Stage, step: nn.Module, optimizer: torch.optim.Optimizer, epoch: int
) -> dict[str, float]:
    stage.module.train()
    device, seed = stage.training.device, stage.seed * 100_003 + epoch
    torch.manual_seed(seed)
    order = stage.training[torch.randperm(len(stage.training), device=device)]
    batches = list(_batches(order, stage.spec.batch_size, distributed.smallest_batch()))
    distributed.seed_apart(seed)
    total = stage.spec.epochs * len(batches)
    sums: dict[str, Tensor] = {}
    for k, batch in enumerate(batches):
        # In closed form, so that a resumed run takes the very steps of an uninterrupted one:
        # torch's CosineAnnealingLR multiplies from step to step, and rounds on the way.
        progress = (epoch * len(batches) + k) / total
        rate = stage.spec.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group['lr'] = rate
        positions = distributed.share(batch)
        with _mixed_precision(device, stage.bfloat16):
            loss, terms = step(positions, warm_up_factor(stage.spec, epoch))
        optimizer.zero_grad(set_to_none=True)
        (loss * (len(positions) * distributed.world_size() / len(batch))).backward()
        optimizer.step()
        _accumulate(sums, {'loss': loss, **terms}, len(positions))
    distributed.average_statistics(stage.module)
    return _means(sums, len(order))


@torch.no_grad()
def _validate(stage: Stage, epoch: int) -> dict[str, float]:
    stage.module.eval()
    torch.manual_seed(stage.seed * 100_003 + epoch)
    sums: dict[str, Tensor] = {}
    for positions in _batches(distributed.share(stage.validation), 1024):
        loss, terms = stage.loss(positions, 1.0)
        _accumulate(sums, {'loss': loss, **terms}, len(positions))
    return _means(sums, len(stage.validation))


def _batches(positions: Tensor, size: int, least: int = 1) -> Iterator[Tensor]:
    least = max(1, min(least, len(positions)))
    yield from (batch for batch in positions.split(size) if len(batch) >= least)


def _means(sums: dict[str, Tensor], count: int) -> dict[str, float]:
    totals = distributed.sum_up({name: float(value) for name, value in sums.items()})
    return {name: total / count for name, total in totals.items()}


def _accumulate(sums: dict[str, Tensor], terms: dict[str, Tensor], count: int) -> None:
    for name, value in terms.items():
        sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value.detach() * count


def _mixed_precision(device: torch.device, bfloat16: bool) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, dtype=torch.bfloat16) if bfloat16 else nullcontext()
