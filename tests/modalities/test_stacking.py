"""Short stacks of values: what they hold, when there is none, and what a velocity is worth."""

import numpy as np
import pytest

from mm_perception.bundle import load_bundle, save_bundle
from mm_perception.engines.build import reference_engine
from mm_perception.errors import ConfigError
from mm_perception.fusion.perception import Perception
from mm_perception.modalities import Stack, build_modality
from mm_perception.spec import ModalitySpec, ModelSpec
from tests.helpers.small_bundle import make_bundle

BEGIN_NS = 1_000_000_000_000
STACK = {'frames': 3, 'stride_s': 0.1}
ARM = ModalitySpec('arm', 'vector', 4, {'low': (0.0, -1.0), 'high': (10.0, 1.0), **STACK})
CAMERA = ModalitySpec(
    'camera', 'image', 4, {'height': 8, 'width': 8, **STACK}, {'type': 'linear'}, max_age_s=0.3
)


def push(window, times_s):
    """Give a window the number of each value; returns those of every stack."""
    stacks = []
    for number, time_s in enumerate(times_s):
        window.push(number, BEGIN_NS + round(time_s * 1e9))
        stacks.append(None if window.latest is None else window.latest.raw.raws)
    return stacks


def test_stack_holds_values_a_stride_apart_at_any_rate():
    window = build_modality(ARM).new_window()
    stacks = push(window, np.arange(30) / 60)  # six values in a stride
    assert stacks[11] == (0, 5, 11), 'within its tolerance'
    assert stacks[20] == (8, 14, 20)
    assert stacks[29] == (17, 23, 29)
    assert window.latest.stamp_ns == BEGIN_NS + round(29 / 60 * 1e9)


def test_stack_begins_anew_after_a_gap_and_after_stamps_run_back():
    window = build_modality(ARM).new_window()
    stacks = push(window, [0.0, 0.1, 0.2, 0.9, 1.0, 1.1, 0.5])
    assert [s is not None for s in stacks] == [False, False, True, False, False, True, False]
    assert window.pending == ('', '3 values 0.1 s apart are needed')
    window.clear()
    assert window.latest is None


def test_stack_is_one_array_and_gives_its_newest_value_back():
    kind = build_modality(ARM)
    raws = tuple(np.array([k, 0.1 * k], np.float32) for k in range(3))
    array = kind.to_model(Stack(raws))
    assert kind.shape == array.shape == (6,)
    np.testing.assert_allclose(array[::2], [0.0, 0.1, 0.2])
    np.testing.assert_allclose(kind.from_model(array), raws[-1], atol=1e-6)
    assert kind.unit_scale.shape == kind.shape
    image = build_modality(CAMERA)
    frames = tuple(np.full((20, 20), 50 * k, np.uint8) for k in range(3))
    array = image.to_model(Stack(frames))
    assert image.shape == array.shape == (3, 8, 8)
    assert (image.from_model(array) == 100).all()
    assert image.draw(array, 16).shape == (16, 16, 3)


@pytest.mark.parametrize('wrong', [{'frames': 0}, {'frames': 65}, {'frames': 2, 'stride_s': 0.0}])
def test_stack_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError, match='arm: frames must be 1 to 64'):
        build_modality(ModalitySpec('arm', 'vector', 4, {**ARM.preprocessing, **wrong}))


def test_stacks_are_fused_live_and_generated(tmp_path):
    spec = ModelSpec(modalities=(ARM, CAMERA), joint_latent_dim=4)
    save_bundle(make_bundle('stacked', spec=spec), tmp_path / 'stacked', 'card')
    bundle = load_bundle(tmp_path / 'stacked')
    perception = Perception(bundle, reference_engine(bundle, 'cpu'))
    generator = np.random.default_rng(0)
    for k in range(8):
        stamp_ns = BEGIN_NS + k * 50_000_000
        perception.update('arm', np.array([k, 0.0], np.float32), stamp_ns)
        perception.update(
            'camera', generator.integers(0, 255, (16, 16)).astype(np.uint8), stamp_ns
        )
        result = perception.infer(('arm', 'camera'), stamp_ns)
        assert result.mask.tolist() == [k >= 3] * 2, k
    assert result.reconstructions['arm'].shape == (6,)
    assert result.reconstructions['camera'].shape == (3, 8, 8)


def test_stack_tells_a_velocity_that_one_value_does_not():
    """Values of a moment ago predict the next one, on recordings left out."""
    generator = np.random.default_rng(0)
    errors = {}
    for frames in (1, 3):
        kind = build_modality(
            ModalitySpec('x', 'vector', 4, {'low': (-2.0,), 'high': (2.0,), 'frames': frames})
        )
        inputs, targets = [], []
        for phase in generator.uniform(0, 2 * np.pi, 20):
            window = kind.new_window()
            for k in range(60):
                window.push(np.array([np.sin(0.3 * k + phase)], np.float32), k * 100_000_000)
                if window.latest is not None and k > 5:
                    inputs.append(kind.to_model(window.latest.raw))
                    targets.append(np.sin(0.3 * (k + 3) + phase))
        design = np.c_[np.array(inputs), np.ones(len(inputs))]
        half = len(design) // 2
        weight, *_ = np.linalg.lstsq(design[:half], np.array(targets[:half]), rcond=None)
        errors[frames] = np.abs(design[half:] @ weight - targets[half:]).mean()
    assert errors[3] < 0.05 * errors[1]
