"""
Write CHANGELOG.rst, which bloom and rosdoc2 read (REP 132), from CHANGELOG.md.

    python3 requirements/changelog.py

Only the lists of changes go over; the section of each stands before it.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = re.compile(r'## \[?(\d+\.\d+\.\d+)\]?(?: [-(] ?(\d{4}-\d\d-\d\d)\)?)?$')
LINK = re.compile(r'\[([^]]+)\]\(([^)]+)\)')
WIDTH = 99


def render(markdown: str, package: str = 'mm_perception') -> str:
    """
    Render a changelog of Keep a Changelog as one of REP 132.

    :raises ValueError: if a version has no date, which REP 132 asks for.
    """
    title = f'Changelog for package {package}'
    line = '^' * len(title)
    written = [line, title, line, '']
    for block in re.split(r'^(?=## )', markdown, flags=re.MULTILINE)[1:]:
        heading, _, body = block.partition('\n')
        named = _heading(heading)
        written += [named, '-' * len(named), *_changes(body), '']
    return '\n'.join(written)


def _heading(heading: str) -> str:
    if heading == '## Unreleased':
        return 'Forthcoming'
    found = HEAD.match(heading)
    if found is None or found[2] is None:
        raise ValueError(f'"{heading}" names no version with a date: ## 1.2.3 (2026-01-31)')
    return f'{found[1]} ({found[2]})'


def _changes(body: str) -> list[str]:
    """Items of all lists below a version, each in lines of reStructuredText."""
    section, lines = '', []
    for block in re.split(r'\n(?=- |#)|\n\n', body):
        text = ' '.join(block.split())
        if text.startswith('### '):
            section = text[4:]
        elif text.startswith('- '):
            change = f'* {section}: {_inline(text[2:])}'
            lines += textwrap.wrap(
                change,
                WIDTH,
                subsequent_indent='  ',
                break_long_words=False,
                break_on_hyphens=False,
            )
    return lines


def _inline(text: str) -> str:
    """Code and links; one within the repository is its text."""
    text = re.sub(r'`([^`]+)`', r'``\1``', text)
    return LINK.sub(lambda m: f'`{m[1]} <{m[2]}>`__' if '://' in m[2] else m[1], text)


def main() -> int:
    """Write it; returns the exit code."""
    source = ROOT / 'CHANGELOG.md'
    try:
        text = render(source.read_text(encoding='utf-8'))
    except ValueError as error:
        print(f'error: {source}: {error}', file=sys.stderr)
        return 2
    (ROOT / 'CHANGELOG.rst').write_text(text, encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
