"""
Refuse a release whose tag, version, changelogs or addresses do not fit.

    python3 requirements/check_release.py v0.1.0
    python3 requirements/check_release.py --repository https://HOST/OWNER/mm_perception \
        --maintainer "NAME <EMAIL>"     puts these into package.xml instead
"""

from __future__ import annotations

import argparse
import re
import runpy
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESERVED = '.example'


def faults(tag: str, root: Path = ROOT) -> list[str]:
    """Say what is wrong with a release, a line each; empty if nothing is."""
    manifest = ElementTree.parse(root / 'package.xml').getroot()
    version = manifest.findtext('version')
    source = (root / 'mm_perception' / '__init__.py').read_text(encoding='utf-8')
    found = re.search(r"__version__ = '([^']+)'", source)
    changes = (root / 'CHANGELOG.md').read_text(encoding='utf-8')
    wrong = []
    if found is None or found[1] != version:
        wrong.append(f'mm_perception/__init__.py: its version is not {version}, as in package.xml')
    if tag != f'v{version}':
        wrong.append(f'the tag {tag} is not v{version}, the version in package.xml')
    if not re.search(rf'^## \[?{re.escape(str(version))}\b', changes, re.MULTILINE):
        wrong.append(f'CHANGELOG.md: no heading of {version}; move what is unreleased below one')
    wrong += _changelog_faults(root, changes)
    for element in manifest:
        address = element.get('email') or (element.text if element.tag == 'url' else '') or ''
        if RESERVED in address:
            wrong.append(f'package.xml, {element.tag}: {address} belongs to nobody; put yours')
    return wrong


def _changelog_faults(root: Path, changes: str) -> list[str]:
    """What is wrong with CHANGELOG.rst, which bloom reads."""
    try:
        expected = runpy.run_path(str(ROOT / 'requirements' / 'changelog.py'))['render'](changes)
    except ValueError as error:
        return [f'CHANGELOG.md: {error}']
    file = root / 'CHANGELOG.rst'
    if file.exists() and file.read_text(encoding='utf-8') == expected:
        return []
    return ['CHANGELOG.rst: absent or out of date; python3 requirements/changelog.py writes it']


def put(repository: str, maintainer: str, root: Path = ROOT) -> None:
    """
    Put real addresses into package.xml.

    :param repository: address of the repository, without a slash at its end.
    :param maintainer: name and address, ``NAME <EMAIL>``, who is the author, too.
    :raises ValueError: if that is no name and address.
    """
    found = re.fullmatch(r'\s*([^<>]+?)\s*<([^<>\s]+@[^<>\s]+)>\s*', maintainer)
    if found is None or not re.fullmatch(r'https://[^\s<>"]+[^/\s<>"]', repository):
        raise ValueError('give --repository https://HOST/PATH --maintainer "NAME <EMAIL>"')
    file = root / 'package.xml'
    text = file.read_text(encoding='utf-8')
    for kind, address in {'website': '', 'repository': '', 'bugtracker': '/issues'}.items():
        text = re.sub(f'(<url type="{kind}">)[^<]*', rf'\g<1>{repository}{address}', text)
    for role in ('maintainer', 'author'):
        text = re.sub(f'<{role} email=[^<]*', f'<{role} email="{found[2]}">{found[1]}', text)
    file.write_text(re.sub(r'  <!-- This repository has.*?-->\n', '', text, flags=re.S), 'utf-8')


def main() -> int:
    """Check a tag, or put addresses; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('tag', nargs='?', default='')
    parser.add_argument('--repository', default='')
    parser.add_argument('--maintainer', default='')
    options = parser.parse_args()
    if options.repository or options.maintainer:
        try:
            put(options.repository, options.maintainer)
        except ValueError as error:
            parser.error(str(error))
        return 0
    lines = faults(options.tag)
    print('\n'.join(lines), file=sys.stderr)
    return int(bool(lines))


if __name__ == '__main__':
    sys.exit(main())
