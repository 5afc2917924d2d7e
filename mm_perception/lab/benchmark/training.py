"""Section ``training``: samples per second of every stage."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from mm_perception.config import load_training
from mm_perception.lab.benchmark.measurements import Case, Measurement, Result, figure
from mm_perception.lab.benchmark.options import Options
from mm_perception.lab.benchmark.subjects import random_dataset
from mm_perception.model.build import build_model
from mm_perception.model.networks import LINEAR
from mm_perception.model.nexus import Nexus
from mm_perception.spec import StageSpec, TrainingSpec
from mm_perception.training.defaults import completed, sized
from mm_perception.training.loop import Logging, Stage, fit
from mm_perception.training.run import choose_device
from mm_perception.training.stages import (
    TensorSource,
    cache_posteriors,
    top_stage,
    unimodal_stage,
)

SMALL_BATCH = 64
STEPS = 8
MAX_REPEATS = 5
UNIT = 'samples/s'


def measure_training(options: Options) -> Result:
    """
    Train every stage for some steps, on random data of the right shapes.

    A repeat is an epoch by itself, checkpoint included; the first one only warms up.
    """
    spec = replace(load_training(options.config), validation_fraction=0.0)
    spec = completed(spec, random_dataset(spec.model, STEPS * SMALL_BATCH))
    device, threads = choose_device('auto'), max(options.threads)
    torch.set_num_threads(threads)
    stages = list(_stages(spec))
    repeats = min(options.repeats, MAX_REPEATS)
    rows: list[Measurement] = []
    with tqdm(total=len(stages), desc='training', unit='stage', leave=False) as bar:
        for name, batch_size in stages:
            stage = _build(spec, name, batch_size, torch.device(device))
            rates = [_samples_per_s(stage) for _ in range(repeats + 1)][1:]
            case = Case(f'{name}_batch_{batch_size}', f'torch-{device}', threads)
            rows.append(figure(case, rates, UNIT))
            bar.update()
    return rows, []


def _stages(spec: TrainingSpec) -> list[tuple[str, int]]:
    """Every stage that takes steps, with the batch sizes that it is measured at."""
    trained = [m.name for m in spec.model.modalities if m.network.get('type') != LINEAR]
    sizes = {name: spec.unimodal[name].batch_size for name in trained}
    sizes['top'] = spec.top.batch_size
    return [(name, size) for name, own in sizes.items() for size in sorted({SMALL_BATCH, own})]


def _build(spec: TrainingSpec, name: str, batch_size: int, device: torch.device) -> Stage:
    dataset = random_dataset(spec.model, STEPS * batch_size)

    def short(stage: StageSpec) -> StageSpec:
        return replace(stage, epochs=1, batch_size=batch_size, warm_up_epochs=0)

    if name != 'top':
        spec = replace(spec, unimodal={name: short(spec.unimodal[name])})
        return unimodal_stage(spec, name, TensorSource(dataset.only(name), device))
    spec = replace(spec, top=short(spec.top))
    source = TensorSource(dataset, device)
    model = build_model(replace(spec.model, joint_latent_dim=1))  # for its autoencoders
    assert isinstance(model, Nexus)
    posteriors = cache_posteriors(model.unimodal.to(device), source)
    latents = {name: posterior.mean for name, posterior in posteriors.items()}
    return top_stage(replace(spec, model=sized(spec.model, latents)), posteriors, source)


def _samples_per_s(stage: Stage) -> float:
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(stage, Path(folder) / 'checkpoint.safetensors', False, Logging(quiet=True))
    return len(stage.training) / fitted.seconds
