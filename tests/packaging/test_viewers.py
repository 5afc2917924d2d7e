"""The files that RViz, Foxglove and PlotJuggler open, against the topics of the node."""

from __future__ import annotations

import ast
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mm_perception.bundle import load_bundle

ROOT = Path(__file__).parents[2]
MODALITIES = ('image', 'trajectory', 'sound', 'symbol')
TOPICS = {'/cmi/mosaic', '/cmi/status', '/diagnostics', '/image', '/latent/vector'} | {
    f'/{what}/{name}' for what in ('filled', 'reconstruction') for name in MODALITIES
}


def test_rviz_shows_topics_of_the_node():
    tree = yaml.safe_load((ROOT / 'config' / 'cmi.rviz').read_text())
    displays = tree['Visualization Manager']['Displays']
    assert {display['Class'] for display in displays} == {'rviz_default_plugins/Image'}
    topics = [display['Topic']['Value'] for display in displays]
    assert set(topics) <= TOPICS
    # The camera is best effort, which a reliable display would not see.
    (camera,) = (d for d in displays if d['Topic']['Value'] == '/image')
    assert camera['Topic']['Reliability Policy'] == 'Best Effort'
    # The launch file moves the same ones into its namespace.
    launch = ast.parse((ROOT / 'launch' / 'cmi.launch.py').read_text())
    (shown,) = (
        ast.literal_eval(node.value)
        for node in launch.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'SHOWN'
    )
    assert topics == [f'/{topic}' for topic in shown]


def test_foxglove_layout_names_its_panels_and_topics_of_the_node():
    layout = json.loads((ROOT / 'config' / 'foxglove.json').read_text())
    panels = list(leaves(layout['layout']))
    assert sorted(panels) == sorted(layout['configById'])
    known = {'Image', 'StateTransitions', 'Plot', 'DiagnosticSummary'}
    assert {panel.split('!')[0] for panel in panels} == known
    values = [value for panel in layout['configById'].values() for value in texts(panel)]
    topics = {re.match(r'[\w/]+', value)[0] for value in values if value.startswith('/')}
    assert topics <= TOPICS
    assert {'/cmi/mosaic', '/filled/image', '/cmi/status', '/latent/vector'} <= topics


def test_plotjuggler_and_foxglove_plot_means_and_deviations_of_the_bundle():
    dimensions = load_bundle('mhd').spec.joint_latent_dim
    wanted = {*range(8), *range(dimensions, dimensions + 8)}
    root = ElementTree.parse(ROOT / 'config' / 'plotjuggler.xml').getroot()
    curves = [curve.get('name') for curve in root.iter('curve')]
    assert {int(re.fullmatch(r'/latent/vector/data\[(\d+)\]', name)[1]) for name in curves} == (
        wanted
    )
    assert [topic.get('name') for topic in root.iter('topic')] == ['/latent/vector']
    text = (ROOT / 'config' / 'foxglove.json').read_text()
    assert set(map(int, re.findall(r'/latent/vector\.data\[(\d+)\]', text))) == wanted


def leaves(tree: Any) -> Iterator[str]:
    """Panels of a layout: a name, or a division of two."""
    if isinstance(tree, str):
        yield tree
    else:
        assert tree['direction'] in ('row', 'column')
        yield from leaves(tree['first'])
        yield from leaves(tree['second'])


def texts(tree: Any) -> Iterator[str]:
    """All texts in plain data."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from texts(value)
