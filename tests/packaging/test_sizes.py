"""Modules are as long as their subject, functions fit on a screen, and no file is a mere scrap."""

import ast
from pathlib import Path

from tests.packaging.test_imports import imported

PACKAGE = Path(__file__).parents[2] / 'mm_perception'
MODULE_LINES = 400
FUNCTION_LINES = 40
SCRAP_LINES = 60

LONG_MODULES = {'bundle.py': 482}
LONG_FUNCTIONS: dict[str, int] = {}
"""What is longer than the rest may be, and how long; nothing of it may grow."""
SCRAPS = {'modalities/symbol.py': 'a kind of modality is a file'}
"""Short files that one file imports -> why they stand alone."""


def files():
    """Every module with its name relative to the package."""
    return {file.relative_to(PACKAGE).as_posix(): file for file in PACKAGE.rglob('*.py')}


def length(file):
    """Lines of a file."""
    return len(file.read_text().splitlines())


def test_sizes_of_modules():
    found = {name: length(file) for name, file in files().items()}
    long = {n: k for n, k in found.items() if k > LONG_MODULES.get(n, MODULE_LINES)}
    assert not long, f'over {MODULE_LINES} lines: {long}'
    done = [name for name in LONG_MODULES if found.get(name, 0) <= MODULE_LINES]
    assert not done, f'no longer long, take them off the list: {done}'


def test_sizes_of_functions():
    found = {}
    for name, file in files().items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                key = f'{name}: {node.name}'
                found[key] = max(found.get(key, 0), node.end_lineno - node.lineno + 1)
    long = {n: k for n, k in found.items() if k > LONG_FUNCTIONS.get(n, FUNCTION_LINES)}
    assert not long, f'over {FUNCTION_LINES} lines: {long}'
    done = [name for name in LONG_FUNCTIONS if found.get(name, 0) <= FUNCTION_LINES]
    assert not done, f'no longer long, take them off the list: {done}'


def importers():
    """Module -> the modules of the package that import it or something of it."""
    names = {
        'mm_perception.' + name.removesuffix('.py').replace('/', '.'): name for name in files()
    }
    found = {name: set() for name in files()}
    for name, file in files().items():
        for full, _ in imported(file):
            module = full if full in names else full.rpartition('.')[0]
            if module in names and names[module] != name:
                found[names[module]].add(name)
    return found


def test_sizes_no_file_is_a_scrap_of_its_only_importer():
    started = {'__init__.py', '__main__.py'}
    scraps = {
        name: users
        for name, users in importers().items()
        if len(users) == 1 and length(PACKAGE / name) < SCRAP_LINES
        if name not in SCRAPS and Path(name).name not in started
    }
    assert not scraps, f'under {SCRAP_LINES} lines and one importer; merge them: {scraps}'
