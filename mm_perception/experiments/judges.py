"""What judges the models of a table: classifiers and feature encoders, trained on real data."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from mm_perception.data.dataset import load_dataset
from mm_perception.evaluation.classifiers import Classifiers
from mm_perception.evaluation.coherence import classifier_accuracy
from mm_perception.evaluation.features import FeatureEncoders
from mm_perception.evaluation.labels import label_indices
from mm_perception.spec import StageSpec, TrainingSpec
from mm_perception.training.feature_stage import train_features
from mm_perception.training.run import Run, train_classifiers

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
