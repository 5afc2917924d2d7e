"""What gets installed where: data files, manifest, colcon."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import mm_perception
from tests.packaging.test_imports import ROS_PACKAGES, imported, modules

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def setup_script():
    """The module setup.py, which installs only when run as a script."""
    spec = importlib.util.spec_from_file_location('setup_script', ROOT / 'setup.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def manifest():
    return ElementTree.parse(ROOT / 'package.xml').getroot()


def test_data_files_register_the_package(setup_script):
    folders = dict(setup_script.data_files())
    assert folders['share/ament_index/resource_index/packages'] == ['resource/mm_perception']
    assert folders['share/mm_perception'] == ['package.xml']
    assert all((ROOT / file).is_file() for files in folders.values() for file in files)


def test_data_files_keep_the_tree_of_models(setup_script, tmp_path):
    for file in ('models/mhd/bundle.json', 'models/mhd/recordings/speech/0.wav', 'launch/a.py'):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text('x')
    folders = dict(setup_script.data_files(tmp_path))
    share = 'share/mm_perception'
    assert folders[f'{share}/models/mhd'] == ['models/mhd/bundle.json']
    assert folders[f'{share}/models/mhd/recordings/speech'] == [
        'models/mhd/recordings/speech/0.wav'
    ]
    assert folders[f'{share}/launch'] == ['launch/a.py']


def test_manifest_is_a_valid_ament_python_package(manifest):
    assert manifest.get('format') == '3'
    assert manifest.findtext('name') == 'mm_perception'
    assert manifest.findtext('version') == mm_perception.__version__
    assert manifest.findtext('export/build_type') == 'ament_python'
    email = manifest.find('maintainer').get('email')
    # The expression by which catkin_pkg decides; colcon silently drops a package that fails it.
    assert re.match(r'^[-a-zA-Z0-9_%+]+(\.[-a-zA-Z0-9_%+]+)*@[-a-zA-Z0-9%]+(\.[-a-zA-Z0-9%]+)*\.[a-zA-Z]{2,}$', email)  # noqa: E501  # fmt: skip


def test_manifest_names_every_message_package_that_is_imported(manifest):
    depends = {element.text for element in manifest.iter('exec_depend')}
    text = '\n'.join(file.read_text() for file in (ROOT / 'mm_perception').rglob('*.py'))
    imported = set(re.findall(r'^\s*from (\w+_msgs|std_srvs|builtin_interfaces)\b', text, re.M))
    assert imported - {'audio_common_msgs'} <= depends


def test_every_library_that_is_pinned_is_asked_for(setup_script):
    def names(lines):
        matches = (re.match(r'[A-Za-z][\w.-]*', line) for line in lines)
        return {match[0].lower() for match in matches if match}

    pins = (ROOT / 'requirements' / 'constraints.txt').read_text().splitlines()
    assert all('==' in line for line in pins if line and line[0] != '#')
    asked = names(setup_script.NODE).union(*map(names, setup_script.EXTRAS.values()))
    assert names(pins) - {'setuptools'} == asked - {'numpy', 'gymnasium'}


def test_node_and_extras_cover_what_is_imported(setup_script):
    """Every library that the package imports comes with it, an extra, or ROS 2."""
    libraries = {'cv2': 'opencv-python-headless', 'yaml': 'pyyaml', 'PIL': 'matplotlib'}
    listed = str([setup_script.NODE, setup_script.EXTRAS])
    known = set(sys.stdlib_module_names) | {'mm_perception'} | ROS_PACKAGES
    for file, _ in modules():
        for name, line in imported(file):
            library = name.split('.')[0]
            if library not in known:
                package = libraries.get(library, library)
                assert re.search(rf'\b{package}\b', listed), f'{file}:{line}: {library}'


def test_colcon_takes_it_for_an_ament_python_package():
    colcon = shutil.which('colcon', path=f'{Path(sys.executable).parent}{os.pathsep}{os.defpath}')
    if colcon is None:
        pytest.skip('colcon is not installed')
    done = subprocess.run(
        [colcon, 'list', '--base-paths', str(ROOT)],
        capture_output=True, text=True, timeout=60, cwd='/',
        env={**os.environ, 'COLCON_LOG_PATH': os.devnull},
    )  # fmt: skip
    assert 'mm_perception' in done.stdout, done.stderr
    assert '(ros.ament_python)' in done.stdout, done.stdout
