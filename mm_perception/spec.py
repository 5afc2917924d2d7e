"""What a model is made of, as frozen data: no behaviour, no imports of frameworks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mm_perception.errors import ConfigError

# What options, parameters and launch arguments may choose from, where asking loads nothing heavy.
DEVICES = ('auto', 'cpu', 'cuda')
ENGINES = ('auto', 'onnx', 'torch', 'tensorrt')
PRECISIONS = ('float32', 'float16', 'bfloat16', 'int8')
ESTIMATORS = ('mean', 'sample', 'ancestral')
"""
How data are generated: from the means of all latents; from a sample of the joint latent, where
Nexus and what is built like it decode the mean below, as the published evaluation of the Nexus
paper does; or from samples of all latents, those below the joint one included.
"""


@dataclass(frozen=True)
class ModalitySpec:
    """
    One sensor's modality: how it is prepared, encoded, weighted and where it comes from.

    :param name: unique name, used in topics and reports.
    :param kind: key of the modality registry (image, sound, trajectory, vector, symbol).
    :param latent_dim: size of the unimodal latent z_m; 0: found from the kind and the data.
    :param preprocessing: options of the kind; missing ones take the kind's defaults.
    :param network: ``type`` names the network pair, the rest are its options.
    :param likelihood: gaussian, optimal_sigma, bernoulli or categorical; empty: by the kind.
    :param likelihood_weight: lambda of eq. 21 (bottom-level reconstruction).
    :param beta: weight of the unimodal KL divergence.
    :param latent_weight: gamma of eq. 21 (top-level reconstruction of z_m, of variance 1); None:
        the variance of each of its dimensions is learned, and nothing needs a weight.
    :param data_weight: weight of the data's log likelihood while the top decoder is refined; 0
        leaves it as it is.
    :param topic: ROS topic of the sensor, default the name.
    :param message: ROS message type, default that of the kind.
    :param max_age_s: how long a value counts as fresh.
    :param frozen_s: how long the sensor may repeat exactly the same data; 0: as the node says.
    :param shared_dim: numbers in which a second encoder, which decodes nothing, tells what the
        other modalities hold; they join the latent in the message to the joint encoder. 0: none.
    :param shared_network: of that encoder, as ``network``; empty: the same.
    """

    name: str
    kind: str
    latent_dim: int = 0
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    likelihood: str = ''
    likelihood_weight: float = 1.0
    beta: float = 1.0
    latent_weight: float | None = None
    data_weight: float = 0.0
    topic: str = ''
    message: str = ''
    max_age_s: float = 1.0
    frozen_s: float = 0.0
    shared_dim: int = 0
    shared_network: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSpec:
    """
    A hierarchical multimodal model.

    :param modalities: in a fixed order; that of presence masks.
    :param joint_latent_dim: size of the joint latent z_sigma; 0: found from the data.
    :param message_dim: size of the messages that the mapping networks give.
    :param joint_encoder: key of the joint encoder registry; empty: skip for nexus whose levels
        train apart, else mean.
    :param joint_hidden: hidden layers of the joint encoder.
    :param decoder_hidden: hidden layers of each top decoder.
    :param dropout: rho of forced perceptual dropout.
    :param alpha: weight of the joint latent's KL divergence.
    :param calibrated: correct the joint posterior's std on held-out data after training; for
        two levels that share no gradient.
    :param options: what else the family takes; see the reference.
    """

    modalities: tuple[ModalitySpec, ...]
    family: str = 'nexus'
    joint_latent_dim: int = 0
    message_dim: int = 256
    joint_encoder: str = ''
    joint_hidden: tuple[int, ...] = (256, 256)
    decoder_hidden: tuple[int, ...] = (256, 256)
    dropout: float = 0.7
    alpha: float = 1.0
    calibrated: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the modalities, in the order of presence masks."""
        return tuple(modality.name for modality in self.modalities)

    def modality(self, name: str) -> ModalitySpec:
        """
        Find a modality by name.

        :raises ConfigError: if the model has none of that name.
        """
        for modality in self.modalities:
            if modality.name == name:
                return modality
        known = ', '.join(self.names)
        raise ConfigError(f'the model has no modality "{name}"; it has: {known}')


@dataclass(frozen=True)
class StageSpec:
    """
    How one stage (a unimodal VAE, or the top level) is trained.

    :param epochs: passes over the training samples; 0: as many as ``steps`` take, and more
        passes over few samples.
    :param steps: least number of updates where ``epochs`` does not say how many.
    :param warm_up_epochs: epochs over which the KL weight rises to its value; where ``epochs``
        is 0, a fifth of them.
    :param augmentation: key of the augmentation registry, with options; empty for none.
    """

    epochs: int = 0
    batch_size: int = 128
    steps: int = 1500
    learning_rate: float = 1e-3
    warm_up_epochs: int = 0
    augmentation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingSpec:
    """
    A training run.

    :param dataset: folder that ``mm-perception build-data`` wrote.
    :param top: the top level's stage.
    :param unimodal: a stage per modality, the default for one that is not there; a model that
        is trained in one step takes only the augmentations from them.
    :param shared: a stage per modality with a ``shared_dim``: its second encoder.
    :param classifiers: the stage of each evaluation classifier, which measures coherence.
    :param refinement: the stage that trains top decoders on through those below, for modalities
        with a data_weight.
    :param calibration: the stage that corrects the published std, if the model asks for it.
    :param strange: share of the latents that the joint encoder sees, while a top level trains
        apart, that are of corrupted data, of other rows, or far from all; what is generated
        from them stays what the row shows. 0: none.
    :param validation_fraction: share of the training set kept for validation.
    :param joint: train both levels in one step, as in the paper.
    :param precision: float32, bfloat16, or auto: bfloat16 where the device has it natively.
    """

    name: str
    dataset: str
    model: ModelSpec
    top: StageSpec = StageSpec()
    unimodal: Mapping[str, StageSpec] = field(default_factory=dict)
    shared: Mapping[str, StageSpec] = field(default_factory=dict)
    classifiers: StageSpec = StageSpec(epochs=10)
    refinement: StageSpec = StageSpec(epochs=8, batch_size=256)
    calibration: StageSpec = StageSpec(epochs=80, batch_size=512, learning_rate=2e-3)
    seed: int = 0
    strange: float = 0.0
    validation_fraction: float = 0.1
    joint: bool = False
    precision: str = 'auto'
