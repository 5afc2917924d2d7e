"""Modules and functions stay small enough to read in one sitting."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / 'mm_perception'
MODULE_LINES = 480
FUNCTION_LINES = 60


def test_sizes_of_modules():
    lines = {file: len(file.read_text().splitlines()) for file in PACKAGE.rglob('*.py')}
    long = [f'{f.relative_to(PACKAGE)}: {n}' for f, n in lines.items() if n > MODULE_LINES]
    assert not long, f'over {MODULE_LINES} lines: {long}'


def test_sizes_of_functions():
    long = []
    for file in PACKAGE.rglob('*.py'):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long.append(f'{file.relative_to(PACKAGE)}: {node.name}: {lines}')
    assert not long, f'over {FUNCTION_LINES} lines: {long}'
