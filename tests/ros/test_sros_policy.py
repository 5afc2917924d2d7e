"""The SROS 2 policy that ships names what each node has: nothing is missing, nothing too much."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mm_perception.bundle import Bundle
from tests.helpers.robot import NodeProcess, Robot
from tests.ros.conftest import SECOND

POLICY = Path(__file__).parents[2] / 'config' / 'sros2' / 'policy.xml'
ONLY_WITH_SIM_TIME = {'/clock'}


def allowed(node: str, kind: str, permission: str) -> set[str]:
    """Full names that the policy allows, for a node in the tests' namespace."""
    profiles = ElementTree.parse(POLICY).findall('enclaves/enclave/profiles/profile')
    (profile,) = [each for each in profiles if each.get('node') == node]
    names = []
    for group in profile.iter(kind):
        if group.get(permission) == 'ALLOW':
            names += [str(entry.text) for entry in group]
    assert len(names) == len(set(names))
    return {full_name(name, f'{SECOND}/{profile.get("node")}') for name in names}


def full_name(name: str, node: str) -> str:
    """What ROS makes of a relative, private or absolute name."""
    if name.startswith('~/'):
        return f'{node}/{name[2:]}'
    return name if name.startswith('/') else f'{SECOND}/{name}'


def test_sros_policy_names_exactly_what_the_nodes_have(
    bundle: Bundle, start: Callable[..., NodeProcess], robot: Robot, tmp_path: Path
) -> None:
    from tests.helpers.acting_pendulum import save_policy

    save_policy(bundle, tmp_path / 'policy')
    start(f'bundle:={bundle.path}', 'autostart:=true')
    start(f'policy:={tmp_path}', 'autostart:=true', module='policy_node')
    for node in ('cmi', 'policy'):
        compare(node, robot)


def compare(node: str, robot: Robot) -> None:
    """Compare what a node has on the graph with what it is allowed."""
    not_in_every_distribution = {f'{SECOND}/{node}/get_type_description'}

    def names(kind: str) -> set[str]:
        known = robot.node.get_node_names_and_namespaces()
        if (node, SECOND) not in known:
            return set()
        found = getattr(robot.node, f'get_{kind}_names_and_types_by_node')(node, SECOND)
        return {name for name, _ in found}

    expected = {
        'publisher': allowed(node, 'topics', 'publish'),
        'subscriber': allowed(node, 'topics', 'subscribe') - ONLY_WITH_SIM_TIME,
        'service': allowed(node, 'services', 'reply') - not_in_every_distribution,
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
        assert names(kind) - not_in_every_distribution == wanted, kind


@pytest.mark.parametrize('tag', ['enclave', 'profile'])
def test_sros_policy_has_what_its_schema_needs(tag: str) -> None:
    root = ElementTree.parse(POLICY).getroot()
    assert (root.tag, root.attrib) == ('policy', {'version': '0.2.0'})
    needed = {'enclave': {'path'}, 'profile': {'ns', 'node'}}[tag]
    assert all(set(element.attrib) == needed for element in root.iter(tag))
