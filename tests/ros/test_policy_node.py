"""The node policy over DDS: latents in, actions out, and the safe action where it must not act."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import JointState, PointCloud2
from trajectory_msgs.msg import JointTrajectory

from mm_perception.bundle import Bundle
from mm_perception.errors import UNUSABLE
from mm_perception.rl.policy import load_policy
from mm_perception.ros.codecs import latent_message, make_header
from tests.helpers.robot import NodeProcess, Robot

SPACE = '/policies'
PERIOD_S = 0.05


@pytest.fixture(scope='module')
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with a policy of random weights."""
    from tests.helpers.acting_pendulum import save_pendulum

    return save_pendulum(tmp_path_factory.mktemp('bundles') / 'pendulum')


class Fusion(Robot):
    """Stands for the node cmi: sends latents, and collects what the policy makes of them."""

    def __init__(self, bundle: Bundle, kind: type, namespace: str = SPACE) -> None:
        super().__init__(namespace)
        self.bundle = bundle
        self.rng = np.random.default_rng(1)
        self._latents = self.node.create_publisher(PointCloud2, 'latent', 1)
        self.watch('policy/status', DiagnosticArray)
        self.watch('/diagnostics', DiagnosticArray)
        self.watch('action', kind)

    def fuse(self, **changed: Any) -> tuple[np.ndarray, int]:
        """Send a latent; the observation that it is, and its stamp."""
        names, size = self.bundle.spec.names, self.bundle.spec.joint_latent_dim
        given = {
            'mean': self.rng.standard_normal(size).astype(np.float32),
            'std': np.full(size, 0.5, np.float32),
            'used': dict.fromkeys(names, True),
            'frame_id': self.bundle.frame_id,
            'age_s': 0.0,
            **changed,
        }
        stamp_ns = self.now_ns() - round(given['age_s'] * 1e9)
        header = make_header(stamp_ns, given['frame_id'])
        ages_s = dict.fromkeys(names, given['age_s'])
        message = latent_message(given['mean'], given['std'], header, given['used'], ages_s)
        self._latents.publish(message)
        mask = np.array([given['used'][name] for name in names], np.float32)
        return np.concatenate((given['mean'], given['std'], mask)), stamp_ns

    def answer(self, stamp_ns: int) -> Any:
        """Go on until the action of a latent came; it."""

        def found() -> Any:
            for message in self.received['action']:
                stamp = message.header.stamp
                if stamp.sec * 10**9 + stamp.nanosec == stamp_ns:
                    return message
            return None

        return self.until(found, 'action of a latent')

    def facts(self) -> dict[str, str]:
        """What the newest ``~/status`` says."""
        (entry,) = self.received['policy/status'][-1].status
        return {value.key: value.value for value in entry.values}

    def diagnostics(self) -> dict[str, str]:
        """What the newest ``/diagnostics`` says."""
        entries = [e for m in self.received['/diagnostics'] for e in m.status]
        found = [entry for entry in entries if entry.name == 'policy: actions']
        return {value.key: value.value for value in found[-1].values} if found else {}

    def until_connected(self) -> None:
        """Send latents until an action came."""

        def connected() -> bool:
            self.fuse()
            self.run(PERIOD_S)
            return bool(self.received['action'])

        self.until(connected, 'first action', 30.0)


@pytest.fixture(scope='module')
def fusion(pendulum: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fusion]:
    """A policy node that is active, and who feeds it."""
    log = tmp_path_factory.mktemp('policy') / 'log'
    node = NodeProcess(
        log,
        f'policy:={pendulum.path}',
        'autostart:=true',
        'message:=sensor_msgs/msg/JointState',
        'safe_action:="0.25"',
        'names:=shoulder',
        module='policy_node',
        namespace=SPACE,
    )
    fed = Fusion(pendulum, JointState)
    fed.until_connected()
    yield fed
    fed.close()
    assert node.stop() == 0
    assert 'Traceback' not in node.log


def test_policy_node_acts_as_its_policy_does(fusion: Fusion, pendulum: Bundle) -> None:
    policy = load_policy(pendulum.path)
    values = set()
    for used in ({}, {'camera': False}, {'camera': False, 'joints': False}):
        masks = {**dict.fromkeys(pendulum.spec.names, True), **used}
        observation, stamp_ns = fusion.fuse(used=masks)
        action = fusion.answer(stamp_ns)
        assert action.name == ['shoulder']
        np.testing.assert_allclose(action.effort, policy.act(observation), atol=1e-5)
        values.add(action.effort[0])
        assert fusion.facts()['state'] == 'acting'
    assert len(values) == 3


@pytest.mark.parametrize(
    ('changed', 'reason'),
    [
        ({'age_s': 0.5}, 's old, max_latent_age_s is 0.1'),
        ({'std': np.full(8, 1.5, np.float32)}, 'mean std of the latent is 1.5'),
        ({'used': dict.fromkeys(('camera', 'microphones', 'joints'), False)}, 'comes from 0'),
        ({'frame_id': 'latent/other@12345678'}, 'use that bundle, or train the policy again'),
        ({'frame_id': ''}, 'use that bundle, or train the policy again'),
        ({'mean': np.zeros(3, np.float32), 'std': np.ones(3, np.float32)}, 'latent of 3;'),
    ],
)
def test_policy_node_is_safe_where_it_must_not_act(
    fusion: Fusion, changed: dict[str, Any], reason: str
) -> None:
    stamp_ns = 0
    if changed.get('age_s'):
        fusion.run(changed['age_s'])  # so that it is newer than the one before all the same
    _, stamp_ns = fusion.fuse(**changed)
    assert list(fusion.answer(stamp_ns).effort) == [0.25]
    fusion.until(lambda: reason in fusion.facts()['reason'], reason)
    assert fusion.facts()['state'] == 'safe'
    _, stamp_ns = fusion.fuse()
    assert list(fusion.answer(stamp_ns).effort) != [0.25], 'at once it acts again'


def test_policy_node_misses_its_deadline_without_latents(fusion: Fusion) -> None:
    fusion.fuse()
    fusion.received['action'].clear()
    fusion.received['/diagnostics'].clear()
    fusion.until(lambda: len(fusion.received['action']) >= 5, 'safe actions')
    last = fusion.received['action'][-1]
    assert list(last.effort) == [0.25]
    assert (last.header.stamp.sec, last.header.stamp.nanosec) == (0, 0), 'of no latent'
    assert 'no latent for' in fusion.facts()['reason']
    fusion.until(lambda: fusion.diagnostics().get('state') == 'safe', 'diagnostics say so')
    fusion.until(lambda: int(fusion.diagnostics().get('deadline_misses', 0)) >= 5, 'misses')
    figures = fusion.diagnostics()
    assert int(figures['safe_actions']) >= int(figures['deadline_misses'])
    assert {'latent_age_p99_ms', 'decision_p99_ms'} <= set(figures)


def test_policy_node_acts_within_limits_once_it_is_active(
    pendulum: Bundle, tmp_path: Path
) -> None:
    space = f'{SPACE}/arm'
    node = NodeProcess(
        tmp_path / 'log',
        f'policy:={pendulum.path}',
        'message:=trajectory_msgs/msg/JointTrajectory',
        'names:=elbow',
        'quantity:=velocity',
        'high:="0.5"',
        'max_change_per_s:=4.0',
        module='policy_node',
        namespace=space,
    )
    fed = Fusion(pendulum, JointTrajectory, space)
    try:
        assert fed.change_state(Transition.TRANSITION_CONFIGURE, 'policy')
        fed.fuse()
        fed.run(0.1)
        assert not fed.received['action'], 'it is not active'
        assert fed.change_state(Transition.TRANSITION_ACTIVATE, 'policy')
        fed.run(0.1)
        assert not fed.received['action'], 'no latent came yet'
        fed.until_connected()
        for _ in range(10):
            fed.fuse()
            fed.run(PERIOD_S)
    finally:
        fed.close()
        assert node.stop() == 0
    assert fed.received['action'][-1].joint_names == ['elbow']
    sent = np.array([message.points[0].velocities[0] for message in fed.received['action']])
    assert sent.max() <= 0.5
    assert np.ptp(sent) > 0.0
    assert np.abs(np.diff(sent)).max() <= 4.0 * PERIOD_S + 1e-9


def test_policy_node_says_what_is_wrong_and_ends(pendulum: Bundle, tmp_path: Path) -> None:
    good = f'policy:={pendulum.path}'
    cases = [
        (['policy:=nowhere'], 'nowhere: no policy'),
        ([good, 'names:=a,b'], 'names: 2 given; the policy has 1'),
        ([good, 'low:="x"'], "low: could not convert string to float: 'x'"),
        (
            [good, 'message:=geometry_msgs/msg/Twist'],
            'names: of a Twist they are some of linear.x',
        ),
    ]
    nodes = [
        NodeProcess(tmp_path / f'log{k}', 'autostart:=true', *parameters, module='policy_node')
        for k, (parameters, _) in enumerate(cases)
    ]
    for node, (_, line) in zip(nodes, cases):
        assert node.process.wait(60.0) == UNUSABLE, node.log
        assert line in node.log
        assert 'Traceback' not in node.log
