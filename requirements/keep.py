"""
Print constraints for pip that leave a distribution's Python libraries as they are.

    python3 requirements/keep.py > FILE

What the Python that runs this has already, of what the package imports, stays in its version;
constraints.txt pins the rest. Tests and lint bring their own tools, whatever is there.
"""

from __future__ import annotations

import re
import runpy
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).parent
TOOLS = ('test', 'lint')


def name_of(requirement: str) -> str:
    """Name that a requirement begins with."""
    match = re.match(r'[\w.-]+', requirement)
    assert match is not None, requirement
    return match[0].lower()


def kept() -> dict[str, str]:
    """Libraries that are here already, with their versions."""
    setup = runpy.run_path(str(HERE.parent / 'setup.py'))
    asked = list(setup['NODE'])
    for extra, rows in setup['EXTRAS'].items():
        asked += [] if extra in TOOLS else rows
    found = {}
    for requirement in asked:
        name = name_of(requirement)
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Print one constraint a line."""
    here = kept()
    pins = (HERE / 'constraints.txt').read_text(encoding='utf-8').splitlines()
    for name, number in here.items():
        print(f'{name}=={number}')
    for pin in pins:
        if pin and not pin.startswith('#') and name_of(pin) not in here:
            print(pin)


if __name__ == '__main__':
    main()
