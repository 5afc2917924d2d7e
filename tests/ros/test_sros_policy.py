"""The SROS 2 policy that ships names what the nodes have: nothing is missing, nothing too much."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.helpers.acting_pendulum import save_policy
from tests.helpers.robot import NodeProcess, Robot
from tests.ros.conftest import SECOND
from tests.ros.test_microphone_node import microphone, speech

__all__ = ['microphone', 'speech']  # fixtures

POLICY = Path(__file__).parents[2] / 'config' / 'sros2' / 'policy.xml'
ONLY_WITH_SIM_TIME = {'/clock'}
ONLY_WHILE_WATCHED = {
    f'{SECOND}/{topic}' for topic in ('cmi/mosaic', 'cmi/status', 'latent/vector')
} | {'/diagnostics'}
NOT_IN_EVERY_DISTRIBUTION = 'get_type_description'


def allowed(node: str, kind: str, permission: str) -> set[str]:
    """Full names that the policy allows, for a node in the tests' namespace."""
    profile = ElementTree.parse(POLICY).find(f'enclaves/enclave/profiles/profile[@node="{node}"]')
    assert profile is not None
    names = []
    for group in profile.iter(kind):
        if group.get(permission) == 'ALLOW':
            names += [str(entry.text) for entry in group]
    assert len(names) == len(set(names))
    found = {full_name(name, f'{SECOND}/{node}') for name in names}
    return {name for name in found if not name.endswith(NOT_IN_EVERY_DISTRIBUTION)}


def full_name(name: str, node: str) -> str:
    """What ROS makes of a relative, private or absolute name."""
    if name.startswith('~/'):
        return f'{node}/{name[2:]}'
    return name if name.startswith('/') else f'{SECOND}/{name}'


@pytest.mark.parametrize('node', ['cmi', 'policy', 'view', 'microphone'])
def test_sros_policy_names_exactly_what_a_node_has(
    node: str,
    start: Callable[..., NodeProcess],
    robot: Robot,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    bundle = request.getfixturevalue('bundle')
    if node == 'cmi':
        start(f'bundle:={bundle.path}', 'autostart:=true')
    elif node == 'policy':
        save_policy(bundle, tmp_path / 'policy')
        start(f'policy:={tmp_path}', 'autostart:=true', module='policy_node')
    elif node == 'view':
        start('port:=0', module='view_node')
    else:
        start(*request.getfixturevalue('microphone'), module='microphone_node')

    def names(kind: str) -> set[str]:
        known = robot.node.get_node_names_and_namespaces()
        if (node, SECOND) not in known:
            return set()
        found = getattr(robot.node, f'get_{kind}_names_and_types_by_node')(node, SECOND)
        return {name for name, _ in found if not name.endswith(NOT_IN_EVERY_DISTRIBUTION)}

    seldom = ONLY_WITH_SIM_TIME | (ONLY_WHILE_WATCHED if node == 'view' else set())
    expected = {
        'publisher': allowed(node, 'topics', 'publish'),
        'subscriber': allowed(node, 'topics', 'subscribe') - seldom,
        'service': allowed(node, 'services', 'reply'),
        'client': allowed(node, 'services', 'request'),
    }

    def complete() -> bool:
        return all(expected[kind] <= names(kind) for kind in expected)

    try:
        robot.until(complete, 'topics and services of the policy', 60.0)
    except AssertionError:
        for kind, wanted in expected.items():
            assert wanted <= names(kind), kind
    for kind, wanted in expected.items():
        assert names(kind) == wanted, kind


@pytest.mark.parametrize('tag', ['enclave', 'profile'])
def test_sros_policy_has_what_its_schema_needs(tag: str) -> None:
    root = ElementTree.parse(POLICY).getroot()
    assert (root.tag, root.attrib) == ('policy', {'version': '0.2.0'})
    needed = {'enclave': {'path'}, 'profile': {'ns', 'node'}}[tag]
    assert all(set(element.attrib) == needed for element in root.iter(tag))
