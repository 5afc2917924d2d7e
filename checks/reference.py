"""
Write what the code knows into the reference: every parameter of the nodes.

    python -m checks.reference            write docs/reference/node.md
    python -m checks.reference --check    write nothing; exit code 1 if the page is out of date
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from mm_perception.lab.gym import node as gym_node
from mm_perception.lab.replay import node as replay_node
from mm_perception.ros import microphone_node, policy_node
from mm_perception.ros.cmi.parameters import NODE_SPECS, modality_specs
from mm_perception.ros.parameters import ParameterSpec
from mm_perception.ros.view import node as view_node
from mm_perception.spec import ModalitySpec

PAGE = Path(__file__).parents[1] / 'docs' / 'reference' / 'node.md'
WIDTH = 108
OF_THE_BUNDLE = 'of the bundle'


def describe(row: ParameterSpec, default: str = '') -> str:
    """
    Describe a parameter as one item of a list.

    :param default: what to write for the default; empty for the row's own.
    """
    usual = 'empty' if row.default in ('', ()) else f'`{row.default}`'
    facts = [row.type_name, default or usual]
    if row.span:
        facts.append(' to '.join(f'{bound:,.10g}' for bound in row.span))
    if row.read_only or row.local:
        facts.append('start')
    if row.structural:
        facts.append('unconfigured')
    kind = 'Any of' if row.several else 'One of'
    choices = ', '.join(f'`{choice}`' for choice in row.choices)
    escaped = row.description.replace('<', r'\<')  # else Markdown takes it for a tag
    text = f'`{row.name}` ({", ".join(facts)}): {escaped}'
    if choices:
        text += f' {kind} {choices}.'
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent='- ',
        subsequent_indent='  ',
        break_long_words=False,
        break_on_hyphens=False,
    )
    return '\n'.join(lines)


def of_modality() -> list[str]:
    """Describe the parameters of any modality; a default that its spec decides is the bundle's."""
    one = ModalitySpec('<m>', 'vector', 1, topic='one', max_age_s=1.0)
    message = 'geometry_msgs/msg/WrenchStamped'
    other = ModalitySpec('<m>', 'vector', 1, topic='other', message=message, max_age_s=2.0)
    return [
        describe(row, '' if row.default == changed.default else OF_THE_BUNDLE)
        for row, changed in zip(modality_specs(one), modality_specs(other))
    ]


def of_sensor() -> list[str]:
    """Describe the parameters of any sensor of an environment."""
    return [describe(row, OF_THE_BUNDLE) for row in gym_node.sensor_rows('<s>', 'topic', 'type')]


def sections() -> dict[str, list[str]]:
    """What stands between each pair of marks: items of a list, by the name in the mark."""
    return {
        'cmi': [*map(describe, NODE_SPECS), *of_modality()],
        'policy': [*map(describe, policy_node.ROWS)],
        'gym': [*map(describe, gym_node.ROWS), *of_sensor()],
        'replay': [*map(describe, replay_node.ROWS)],
        'microphone': [*map(describe, microphone_node.ROWS)],
        'view': [*map(describe, view_node.ROWS)],
    }


def render(page: str) -> str:
    """
    Bring a page up to date.

    :param page: text with a pair of marks per section.
    :raises ValueError: if a pair of marks is missing.
    """
    for name, items in sections().items():
        page = _replace(page, name, items)
    return page


def _replace(page: str, name: str, items: Iterable[str]) -> str:
    begin = f'<!-- written by checks.reference, {name}: begin -->'
    end = f'<!-- written by checks.reference, {name}: end -->'
    pattern = re.compile(f'{re.escape(begin)}.*?{re.escape(end)}', re.DOTALL)
    text = '\n'.join([begin, *items, end])
    page, count = pattern.subn(lambda _: text, page)
    if count != 1:
        raise ValueError(f'{PAGE}: expected the marks of "{name}" once, found {count}')
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the page; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--check', action='store_true', help='write nothing')
    options = parser.parse_args(arguments)
    page = PAGE.read_text(encoding='utf-8')
    current = render(page)
    if options.check:
        if page != current:
            print(f'{PAGE} is out of date: python -m checks.reference', file=sys.stderr)
        return int(page != current)
    PAGE.write_text(current, encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
