"""Evaluation classifiers and feature encoders of a table, trained on real data."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from mm_perception.data.dataset import Dataset, load_dataset
from mm_perception.engines.classifiers import Classifiers
from mm_perception.evaluation.coherence import classifier_accuracy
from mm_perception.evaluation.frechet import FeatureEncoder, FeatureEncoders
from mm_perception.evaluation.generation import label_indices
from mm_perception.modalities import build_modality
from mm_perception.spec import StageSpec, TrainingSpec
from mm_perception.training.loop import Logging, Stage, fit
from mm_perception.training.run import Run, train_classifiers
from mm_perception.training.stages import TensorSource, build_stage, seed_weights

FEATURE_STAGE = StageSpec(epochs=15)


def feature_stage(
    spec: TrainingSpec,
    name: str,
    source: TensorSource,
    stage: StageSpec = FEATURE_STAGE,
    identity: str = '',
) -> Stage:
    """
    Train a plain autoencoder on one modality's unique values: mean squared error, no KL.

    :param identity: of the data, such as a hash.
    """
    seed_weights(spec, f'{name}.features')
    module = FeatureEncoder(spec.model.modality(name)).to(source.present.device)

    def loss(positions: Tensor, _: float) -> tuple[Tensor, dict[str, Tensor]]:
        data = source.values(name, positions)
        error = functional.mse_loss(module.reconstruct(module(data)).float(), data)
        return error, {'mean_squared_error': error}

    known = (spec.model.modality(name), spec.validation_fraction, identity)
    count = source.unique(name)
    return build_stage(spec, f'{name}.features', module, stage, loss, count, source, known)


def train_features(
    spec: TrainingSpec,
    dataset: Dataset,
    work: Path,
    device: str = 'cpu',
    stage: StageSpec = FEATURE_STAGE,
    quiet: bool = False,
) -> FeatureEncoders:
    """
    Train the feature encoders of all modalities, or load those trained before.

    Symbols have none. Each is kept in the work folder under a hash of all that decides it
    (data, modality, stage, seed), so that a changed one is trained anew.

    :param dataset: the real training data.
    :param work: folder of the evaluation.
    """
    encoders = {}
    for modality in spec.model.modalities:
        name = modality.name
        if build_modality(modality).labels:
            continue
        source = TensorSource(dataset.only(name), torch.device(device))
        made = feature_stage(spec, name, source, stage, _hash(dataset, name))
        kept = work / f'{made.name}.{made.fingerprint[:16]}.safetensors'
        fit(made, kept, True, Logging(quiet=quiet))
        encoders[name] = made.module
    return FeatureEncoders(encoders)  # type: ignore[arg-type]


def _hash(dataset: Dataset, name: str) -> str:
    return hashlib.sha256(dataset.values[name].tobytes()).hexdigest()


READ, FEATURES = 'accuracy', 'mfd'


@dataclass(frozen=True)
class Judges:
    """
    Judges of one dataset; those that no metric needs are absent.

    :param accuracy: of the classifiers on the real data that models are measured on, by modality.
    """

    classifiers: Classifiers | None
    features: FeatureEncoders | None
    accuracy: dict[str, float]


def train_judges(
    spec: TrainingSpec,
    metrics: Collection[str],
    split: str,
    folder: Path,
    device: str,
    quiet: bool,
) -> Judges:
    """
    Train the judges that some metrics need, or load those trained before.

    :param spec: the modalities and the stage of the classifiers; the feature encoders train as
        long.
    :param split: that their accuracy is measured on.
    :param folder: for their weights, of this dataset and spec alone.
    """
    training = load_dataset(Path(spec.dataset), 'train')
    classifiers, features, accuracy = None, None, {}
    if READ in metrics:
        run = Run(spec, folder, device, resume=True, quiet=quiet)
        classifiers, _ = train_classifiers(run, training)
        accuracy = _accuracy(classifiers, spec, split)
    if FEATURES in metrics:
        stage = replace(StageSpec(1), epochs=spec.classifiers.epochs)
        features = train_features(spec, training, folder, device, stage, quiet)
    return Judges(classifiers, features, accuracy)


def _accuracy(classifiers: Classifiers, spec: TrainingSpec, split: str) -> dict[str, float]:
    test = load_dataset(Path(spec.dataset), split)
    labels = label_indices(test, spec.model)
    assert labels is not None  # classifiers were trained with them
    accuracy = classifier_accuracy(test, labels, classifiers)
    return {m.name: accuracy[m.name] for m in spec.model.modalities if m.kind != 'symbol'}
