"""
Refuse a release whose tag, version, changelog or addresses do not fit.

    python3 requirements/check_release.py v0.1.0
"""

from __future__ import annotations

import re
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
    for element in manifest:
        address = element.get('email') or (element.text if element.tag == 'url' else '') or ''
        if RESERVED in address:
            wrong.append(f'package.xml, {element.tag}: {address} belongs to nobody; put yours')
    return wrong


if __name__ == '__main__':
    lines = faults(sys.argv[1])
    print('\n'.join(lines), file=sys.stderr)
    sys.exit(bool(lines))
