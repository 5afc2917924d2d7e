"""The state of a stage between two epochs, on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mm_perception.errors import ConfigError


def save_checkpoint(
    file: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    metadata: dict[str, str],
) -> None:
    """
    Write weights and the optimiser's state, replacing what was there only when complete.

    :param metadata: ``epoch``, ``seconds`` and the ``fingerprint`` of the stage.
    """
    tensors = {f'module.{k}': v.contiguous() for k, v in module.state_dict().items()}
    for i, state in optimizer.state_dict()['state'].items():
        tensors |= {f'optimizer.{i}.{k}': v.contiguous() for k, v in state.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix('.partial')
    save_file(tensors, temporary, metadata)
    temporary.replace(file)


def restore_checkpoint(
    file: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    fingerprint: str,
    device: torch.device,
) -> tuple[int, float]:
    """
    Read what :func:`save_checkpoint` wrote.

    :returns: epochs that are done, and seconds they took.
    :raises ConfigError: if the checkpoint has another fingerprint.
    """
    with safe_open(file, 'pt', device=str(device)) as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    if metadata.get('fingerprint') != fingerprint:
        raise ConfigError(f'{file}: belongs to another configuration; train without --resume')
    prefix = 'module.'
    module.load_state_dict(
        {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
    )
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith('optimizer.'):
            _, i, key = name.split('.')
            states.setdefault(int(i), {})[key] = tensor
    groups = optimizer.state_dict()['param_groups']
    optimizer.load_state_dict({'state': states, 'param_groups': groups})
    return int(metadata['epoch']), float(metadata['seconds'])
