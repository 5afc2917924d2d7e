"""
Build the documentation's site, with the API from the docstrings, and check its links.

    python -m checks.site         writes .site/html (zensical.toml); needs the extra [docs]

The pages keep the places that they have in the repository, so that a link is good on GitHub and on
the site.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[1]
SITE = ROOT / '.site'
LINK = re.compile(r'(?:\]\(|src=")([^)"#:]+)[)"#]')
ROLE = re.compile(r':(?:class|meth|func|mod|attr|data|exc):`~?([^`]+)`')
APART = ('cli', 'lab')
"""Parts of the package that no other program imports."""


class Roles(griffe.Extension):
    """Shows the roles of Sphinx in a docstring as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite a docstring."""
        if obj.docstring:
            obj.docstring.value = ROLE.sub(r'`\1`', obj.docstring.value)


def pages() -> list[Path]:
    """Pages of the repository, and what they link to, by links that lead from page to page."""
    found: list[Path] = []
    left = [*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md')]
    while left:
        file = left.pop()
        if file in found:
            continue
        found.append(file)
        if file.suffix == '.md':
            links = LINK.findall(file.read_text(encoding='utf-8'))
            targets = ((file.parent / link).resolve() for link in links)
            left += [target for target in targets if target.is_file()]
    return found


def api() -> Iterator[tuple[str, str]]:
    """Name and text of a page per part of the package; what it lists, the docstrings say."""
    package = ROOT / 'mm_perception'
    parts = [part for part in sorted(package.iterdir()) if part.name not in APART]
    for part in parts:
        modules = sorted(part.rglob('*.py')) if part.is_dir() else [part]
        names = [_module(file) for file in modules if file.suffix == '.py']
        if names:
            body = '\n\n'.join(f'::: {name}' for name in names)
            yield names[0].rpartition('.')[2], f'# {names[0]}\n\n{body}\n'


def _module(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def lay_out(folder: Path) -> None:
    """Put all pages into a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for file in pages():
        target = folder / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    (folder / 'api').mkdir()
    for name, text in api():
        (folder / 'api' / f'{name}.md').write_text(text, encoding='utf-8')


def main() -> int:
    """Build; returns the exit code."""
    lay_out(SITE / 'pages')
    command = ('build', '--strict', '--clean', '--config-file', str(ROOT / 'zensical.toml'))
    return subprocess.run([sys.executable, '-m', 'zensical', *command], check=False).returncode


if __name__ == '__main__':
    sys.exit(main())
