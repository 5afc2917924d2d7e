"""The linters of ROS 2, where it is installed: what colcon test runs in any other package."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = [str(ROOT / 'mm_perception'), str(ROOT / 'launch')]
OURS = ('D400', 'D401', 'D403')  # setup.cfg says why


def test_code_follows_the_rules_of_ament_flake8() -> None:
    linter = pytest.importorskip('ament_flake8.main', reason='ament_flake8 comes with ROS 2')
    code, errors = linter.main_with_errors(argv=['--config', str(ROOT / 'setup.cfg'), *CODE])
    assert code == 0, '\n'.join(errors)


def test_docstrings_follow_the_rules_of_ament_pep257() -> None:
    linter = pytest.importorskip('ament_pep257.main', reason='ament_pep257 comes with ROS 2')
    assert linter.main(argv=[*CODE, '--add-ignore', *OURS]) == 0


def test_licence_is_one_that_ament_copyright_knows() -> None:
    linter = pytest.importorskip('ament_copyright.parser', reason='comes with ROS 2')
    licence = linter.parse_file(str(ROOT / 'LICENSE'))
    contributing = linter.parse_file(str(ROOT / 'CONTRIBUTING.md'))
    assert licence.license_identifier == 'apache2'
    assert contributing.exists  # no statement of copyright in each file: QUALITY_DECLARATION.md
