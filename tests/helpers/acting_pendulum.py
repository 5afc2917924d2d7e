"""The pendulum's bundle with random weights, and a policy that depends on all of its latent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from mm_perception.bundle import Bundle, save_bundle
from mm_perception.config import load_training
from mm_perception.rl.policy import Actions, Layout, Policy, PolicySpec
from mm_perception.spec import ModelSpec
from tests.helpers.robot import ROOT
from tests.helpers.small_bundle import make_bundle

RATE_HZ = 20.0
STAMPED = {
    'joints': 'sensor_msgs/msg/JointState',
    'microphones': 'sensor_msgs/msg/PointCloud2',
}


def pendulum_spec() -> ModelSpec:
    """The sensors of config/pendulum.yaml, with small networks."""
    given = load_training(ROOT / 'config' / 'pendulum.yaml').model
    network = {'camera': {'channels': (4, 8), 'hidden': (16,)}}
    return ModelSpec(
        tuple(
            replace(
                each,
                latent_dim=4,
                network=network.get(each.name, {'hidden': (16,)}),
                message=STAMPED.get(each.name, ''),
            )
            for each in given.modalities
        ),
        joint_latent_dim=8,
        message_dim=16,
        joint_hidden=(16,),
        decoder_hidden=(16,),
    )


def save_pendulum(folder: Path) -> Bundle:
    """Write the bundle, with a policy in ``policy/`` whose torque is linear in the latent."""
    untrained = make_bundle('pendulum', spec=pendulum_spec())
    bias = untrained.weights['top.joint.posterior.bias']
    bias[len(bias) // 2 :] -= 2.0  # log variances: surer than the prior, as what was trained is
    bundle = save_bundle(untrained, folder, '# pendulum\n')
    save_policy(bundle, folder / 'policy')
    return bundle


def save_policy(bundle: Bundle, folder: Path, bundle_hash: str = '') -> None:
    """Write a linear policy of a bundle; ``bundle_hash`` that of another one."""
    layout = Layout(bundle.spec.names, bundle.spec.joint_latent_dim)
    spec = PolicySpec(
        bundle.name,
        bundle_hash or bundle.hash,
        layout,
        Actions(('torque',), (-2.0,), (2.0,)),
        RATE_HZ,
    )
    weights = np.random.default_rng(0).standard_normal((layout.size, 1)).astype(np.float32)
    Policy(spec, linear_graph(weights)).save(folder)


def linear_graph(weights: np.ndarray) -> bytes:
    """ONNX graph of the tanh of a linear map, ``float32[B, n]`` to ``float32[B, A]``."""
    count, actions = weights.shape
    graph = helper.make_graph(
        [
            helper.make_node('MatMul', ['observation', 'weights'], ['sum']),
            helper.make_node('Tanh', ['sum'], ['action']),
        ],
        'policy',
        [helper.make_tensor_value_info('observation', TensorProto.FLOAT, ['B', count])],
        [helper.make_tensor_value_info('action', TensorProto.FLOAT, ['B', actions])],
        [onnx.numpy_helper.from_array(weights, 'weights')],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=9)
    return bytes(model.SerializeToString())
