"""The two-level model over every joint encoder and kind of modality."""

import itertools
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from mm_perception.errors import ConfigError
from mm_perception.modalities import kinds
from mm_perception.model import networks
from mm_perception.model.build import build_model
from mm_perception.model.joint_encoder import JOINT_ENCODERS, aggregate_mean
from mm_perception.model.nexus import Nexus
from mm_perception.spec import ModalitySpec, ModelSpec
from tests.helpers.model_specs import arm_spec, mhd_spec
from tests.helpers.small_bundle import small_spec

BATCH = 6
CASES = [
    pytest.param(mhd_spec(), id='mhd'),
    pytest.param(arm_spec(), id='arm'),
    *(pytest.param(replace(small_spec(), joint_encoder=name), id=name) for name in JOINT_ENCODERS),
]


def make(spec: ModelSpec) -> tuple[Nexus, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = build_model(spec)
    assert isinstance(model, Nexus)
    data = {name: torch.rand(BATCH, *vae.shape) for name, vae in model.unimodal.items()}
    return model, data


def test_specs_cover_every_kind() -> None:
    used = {m.kind for spec in (mhd_spec(), arm_spec()) for m in spec.modalities}
    assert used == set(kinds())


@pytest.mark.parametrize('spec', CASES)
def test_model_generates_every_modality_from_any_subset(spec: ModelSpec) -> None:
    model, data = make(spec)
    model.eval()
    codes = {name: model.encode(name, value) for name, value in data.items()}
    for subset in itertools.product((False, True), repeat=len(spec.names)):
        if not any(subset):
            continue
        joint = model.fuse(codes, torch.tensor(subset).expand(BATCH, -1))
        assert (joint.std > 0).all()
        for name in spec.names:
            generated = model.decode(name, joint.mean)
            assert generated.shape == data[name].shape
            assert generated.isfinite().all()
            assert generated.min() >= 0 and generated.max() <= 1


def test_masking_equals_a_mean_over_fewer_messages() -> None:
    messages = torch.randn(BATCH, 4, 8)
    present = torch.tensor([True, False, True, True]).expand(BATCH, -1)
    expected = messages[:, [0, 2, 3]].mean(1)
    torch.testing.assert_close(aggregate_mean(messages, present), expected)


@pytest.mark.parametrize('spec', CASES)
def test_gradients_stop_between_the_levels(spec: ModelSpec) -> None:
    model, data = make(spec)
    present = torch.ones(BATCH, len(spec.names), dtype=torch.bool)
    posteriors = {name: vae.encode(data[name]) for name, vae in model.unimodal.items()}
    model.top.loss(posteriors, present)[0].backward()
    assert all(p.grad is None for p in model.unimodal.parameters())
    assert any(p.grad is not None for p in model.top.joint.parameters())
    assert all(p.grad is not None for p in model.top.decoders.parameters())


@pytest.mark.parametrize('spec', CASES)
def test_joint_loss_is_the_sum_of_both_levels(spec: ModelSpec) -> None:
    model, data = make(spec)
    present = torch.ones(BATCH, len(spec.names), dtype=torch.bool)
    loss, terms = model.loss(data, present)
    expected = spec.alpha * terms['top.kl'] + terms.get('top.filling', 0.0)
    for m in spec.modalities:
        likelihood = terms[f'{m.name}.log_likelihood']
        expected = expected + m.beta * terms[f'{m.name}.kl'] - m.likelihood_weight * likelihood
        expected = expected - model.top.weight(m.name) * terms[f'top.{m.name}']
    torch.testing.assert_close(loss, expected)


def test_warm_up_scales_only_the_kl() -> None:
    model, data = make(arm_spec())
    vae = model.unimodal['force'].eval()
    losses = []
    for warm_up in (0.0, 1.0):
        torch.manual_seed(0)
        loss, terms, _ = vae.loss(data['force'], warm_up)
        losses.append(loss)
    torch.testing.assert_close(losses[1] - losses[0], terms['kl'])


def test_mhd_has_the_size_that_the_paper_gives() -> None:
    count = sum(p.numel() for p in build_model(mhd_spec()).parameters())
    assert count == pytest.approx(6.47e6, rel=1e-3)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'family': 'vae9'}, 'model.family: unknown "vae9"'),
        ({'joint_encoder': 'sum?'}, 'joint_encoder: unknown "sum\\?"'),
        ({'family': 'mvae', 'joint_encoder': 'mixture'}, 'mvae has its own \\(product\\)'),
        ({'family': 'jmvae'}, 'jmvae takes 2 modalities, not 4'),
        ({'family': 'avae'}, 'avae takes 2 modalities, not 4'),
        ({'family': 'nexus_flat', 'message_dim': 7}, 'message_dim: must be even'),
        ({'options': {'rho': 1}}, 'model.options.rho: unknown key'),
        ({'family': 'mmvae', 'options': {'estimator': 'best'}}, 'estimator: unknown "best"'),
        ({'family': 'mmvae', 'options': {'posterior': 'cauchy'}}, 'posterior: unknown "cauchy"'),
        ({'family': 'mmvae', 'options': {'importance_samples': 0}}, 'must be at least 1'),
        ({'modalities': ()}, 'at least one modality'),
        ({'modalities': (ModalitySpec('a.b', 'image', 4),)}, '"a.b" must be'),
        (
            {'modalities': (ModalitySpec('a', 'image', 4, network={'type': 'mlp'}),)},
            'a.network.type: unknown network "mlp"; known: dense',
        ),
        (
            {'modalities': (ModalitySpec('a', 'image', 4, preprocessing={'height': 27}),)},
            'multiples of 4',
        ),
        (
            {'modalities': (ModalitySpec('a', 'image', 4, network={'chanels': [3]}),)},
            'a.network.chanels: unknown key',
        ),
    ],
)
def test_a_spec_that_cannot_be_built_is_explained(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        build_model(replace(mhd_spec(), **change))  # type: ignore[arg-type]
    assert '\n' not in str(error.value)


def test_the_old_name_of_a_joint_encoder_gives_the_same_model() -> None:
    models = []
    for name in ('surest', 'most_certain'):
        torch.manual_seed(0)
        models.append(build_model(replace(small_spec(), joint_encoder=name)).state_dict())
    assert list(models[0]) == list(models[1])
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])


def test_a_registered_pair_is_built_by_name_and_for_its_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @dataclass(frozen=True)
    class Options:
        bias: bool = True

    def build(shape: networks.Shape, latent_dim: int, options: Options) -> networks.Pair:
        encoder = nn.Sequential(nn.Linear(shape[0], 2 * latent_dim, options.bias))
        return encoder, nn.Sequential(nn.Linear(latent_dim, shape[0], options.bias))

    for table in ('_PAIRS', '_DEFAULT_PAIR'):
        monkeypatch.setattr(networks, table, dict(getattr(networks, table)))
    networks.register_pair('linear', Options, build, ['vector'])
    vector = ModalitySpec('force', 'vector', 3)
    for spec in (vector, ModalitySpec('x', 'symbol', 3, network={'type': 'linear'})):
        encoder, decoder = networks.build_pair(spec, (4,))
        assert encoder(torch.zeros(2, 4)).shape == (2, 6)
        assert decoder(torch.zeros(2, 3)).shape == (2, 4)
    with pytest.raises(ConfigError, match=r'force\.network\.bais: unknown key'):
        networks.build_pair(replace(vector, network={'bais': False}), (4,))
