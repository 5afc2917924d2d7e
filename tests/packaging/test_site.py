"""The site of the documentation: built from the pages as they are, with every link checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('zensical', reason='zensical is not installed: pip install ".[docs]"')

import tomllib  # with which zensical came, from Python 3.11 on

from checks import site

ROOT = Path(__file__).parents[2]


def test_site_is_built_and_shows_every_page_and_docstring() -> None:
    assert site.main() == 0
    html = site.SITE / 'html'
    config = tomllib.loads((ROOT / 'zensical.toml').read_text(encoding='utf-8'))
    listed = set(named(config['project']['nav']))
    pages = {page.relative_to(ROOT).as_posix() for page in (ROOT / 'docs').rglob('*.md')}
    pages |= {f'api/{name}.md' for name, _ in site.api()}
    assert not pages - listed, 'name it in zensical.toml'
    for page in pages:
        assert (html / page).with_suffix('.html').exists(), page
    shown = (html / 'api' / 'ros.html').read_text(encoding='utf-8')
    assert 'Cross-modality inference over topics.' in shown
    assert not re.search(r':(class|meth|func):', shown)


def named(nav: Any) -> Iterator[str]:
    """Pages that a tree of navigation names."""
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else (entry,):
            if isinstance(value, list):
                yield from named(value)
            else:
                yield value
