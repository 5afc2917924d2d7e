"""A policy on disk: what it reads, what it gives, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mm_perception.errors import BundleError, ConfigError, InvalidInput
from mm_perception.rl.policy import Actions, Layout, Policy, PolicySpec, load_policy

LAYOUT = Layout(('a', 'b'), 2)
SPEC = PolicySpec('robot', 'abcd' * 16, LAYOUT, Actions(('x', 'y'), (-2.0, 0.0), (2.0, 1.0)), 20.0)


def graph(weight: np.ndarray, operator: str = 'Tanh') -> bytes:
    """A graph that multiplies, then bends."""
    nodes = [
        helper.make_node('MatMul', ['observation', 'w'], ['m']),
        helper.make_node(operator, ['m'], ['action']),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ['batch', size])
        for name, size in zip(('observation', 'action'), weight.shape)
    ]
    made = helper.make_graph(
        nodes, 'g', ends[:1], ends[1:],
        [onnx.numpy_helper.from_array(weight.astype(np.float32), 'w')],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    return model.SerializeToString()


WEIGHT = np.zeros((6, 2))
WEIGHT[0, 0] = WEIGHT[4, 1] = 1.0


def test_policy_acts_within_its_limits_and_in_their_unit():
    policy = Policy(SPEC, graph(WEIGHT))
    seen = LAYOUT.build(np.float32([[0.5, 0], [99, 0]]), np.ones((2, 2)), np.eye(2, dtype=bool))
    given = policy.act(seen)
    expected = [[2 * np.tanh(0.5), (1 + np.tanh(1)) / 2], [2.0, 0.5]]
    np.testing.assert_allclose(given, expected, rtol=1e-5)
    np.testing.assert_allclose(policy.act(seen[0]), expected[0], rtol=1e-5)


def test_policy_in_its_own_unit_is_only_cut():
    actions = replace(SPEC.actions, scaled=False)
    policy = Policy(replace(SPEC, actions=actions), graph(10.0 * WEIGHT, 'Identity'))
    np.testing.assert_allclose(policy.act(np.float32([0.1, 0, 0, 0, 1, 0])), [1.0, 1.0])


def test_policy_that_gives_no_number_says_so():
    policy = Policy(SPEC, graph(WEIGHT))
    with pytest.raises(InvalidInput, match='NaN'):
        policy.act(np.float32([np.nan, 0, 0, 0, 1, 0]))


def test_layout_puts_the_parts_in_order():
    layout = Layout(('a', 'b'), 1, ('mean', 'std', 'mask', 'age'))
    seen = layout.build(np.float32([3]), np.float32([4]), np.array([True, False]),
                        np.array([0.1, np.inf]))  # fmt: skip
    np.testing.assert_allclose(seen, [3, 4, 1, 0, 0.1, 10.0])
    assert layout.size == 6


def test_policy_comes_back_from_its_folder(tmp_path: Path):
    spec = replace(SPEC, algorithm={'name': 'SAC'}, returns={'all': -1.0})
    Policy(spec, graph(WEIGHT)).save(tmp_path / 'policy')
    for place in (tmp_path, tmp_path / 'policy'):
        again = load_policy(place)
        assert replace(again.spec, graph_sha256='') == spec
    seen = np.ones(6, np.float32)
    np.testing.assert_array_equal(again.act(seen), Policy(spec, graph(WEIGHT)).act(seen))


def test_policy_refuses_the_latent_of_another_bundle():
    policy = Policy(SPEC, graph(WEIGHT))
    policy.check_bundle(SPEC.bundle_hash)
    with pytest.raises(
        BundleError, match='reads the latent of robot@abcdabcd, and this one is of'
    ):
        policy.check_bundle('0' * 64)


def test_graphs_that_do_not_fit_are_refused():
    for wrong in (graph(WEIGHT[:5]), graph(np.zeros((6, 3))), b'no graph'):
        with pytest.raises(BundleError, match='does not take 6 numbers and give 2'):
            Policy(SPEC, wrong)


def test_folders_that_are_altered_are_refused(tmp_path: Path):
    with pytest.raises(BundleError, match='no policy'):
        load_policy(tmp_path)
    Policy(SPEC, graph(WEIGHT)).save(tmp_path)
    about = json.loads((tmp_path / 'policy.json').read_text())
    for change, message in (
        ({'rate_hz': 0.0}, 'give more than 0'),
        ({'rate_hz': 10**400}, 'rate_hz: expected float'),
        ({'format': 2}, 'another format'),
        ({'colour': 'red'}, 'unknown key'),
        ({'graph_sha256': '0'}, 'altered'),
        ({'actions': {**about['actions'], 'low': [2.0, 0.0]}}, 'one pair low < high'),
        ({'actions': {**about['actions'], 'high': [1e308, 1.0]}}, 'one pair low < high'),
    ):
        (tmp_path / 'policy.json').write_text(json.dumps({**about, **change}))
        with pytest.raises((BundleError, ConfigError), match=message):
            load_policy(tmp_path)
