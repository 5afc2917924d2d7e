"""What a release needs: addresses, versions, a changelog that bloom reads."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / 'requirements'


@pytest.fixture
def tools() -> dict[str, Any]:
    """Functions of the scripts, by name."""
    check = runpy.run_path(str(REQUIREMENTS / 'check_release.py'))
    return {**check, **runpy.run_path(str(REQUIREMENTS / 'changelog.py'))}


def test_changelog_is_one_that_bloom_reads(tools: dict[str, Any]) -> None:
    catkin = pytest.importorskip('catkin_pkg.changelog', reason='catkin_pkg is not installed')
    pytest.importorskip('docutils', reason='docutils is not installed')
    text = (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')
    changelog, rendered = catkin.Changelog('mm_perception'), tools['render'](text)
    catkin.populate_changelog_from_rst(changelog, rendered)
    assert '\nForthcoming\n' in rendered  # which bloom turns into the version
    ((version, date, lists),) = changelog.foreach_version()
    assert (version, date.year) == ('0.1.0', 2026)
    bullets = [str(bullet) for each in lists for bullet in each.bullets]
    released = text.split('## 0.1.0')[1].splitlines()
    assert len(bullets) == sum(line.startswith('- ') for line in released)


def test_changelog_without_a_date_is_refused(tools: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r'1\.2\.3" names no version with a date'):
        tools['render']('# Changelog\n\n## 1.2.3\n\n- One.\n')
    shown = tools['render'](
        '## 1.2.3 (2026-01-31)\n\n### Fixed\n\n- `a`, see [b](https://c.org).\n'
    )
    assert shown.splitlines()[-1] == '* Fixed: ``a``, see `b <https://c.org>`__.'


def test_release_is_refused_until_everything_fits(tools: dict[str, Any], tmp_path: Path) -> None:
    for name in ('package.xml', 'CHANGELOG.md', 'mm_perception/__init__.py'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    wrong = '\n'.join(tools['faults']('v9.9.9', tmp_path))
    for part in ('the tag v9.9.9', 'CHANGELOG.rst: absent', '.example belongs to nobody'):
        assert part in wrong
    with pytest.raises(ValueError, match='NAME <EMAIL>'):
        tools['put']('https://forge.org/me/mm_perception', 'nobody', tmp_path)
    tools['put']('https://forge.org/me/mm_perception', 'Ada L. <ada@forge.org>', tmp_path)
    text = (tmp_path / 'CHANGELOG.md').read_text(encoding='utf-8')
    (tmp_path / 'CHANGELOG.rst').write_text(tools['render'](text), encoding='utf-8')
    assert tools['faults']('v0.1.0', tmp_path) == []
    manifest = (tmp_path / 'package.xml').read_text(encoding='utf-8')
    assert 'https://forge.org/me/mm_perception/issues' in manifest
    assert '<maintainer email="ada@forge.org">Ada L.</maintainer>' in manifest
