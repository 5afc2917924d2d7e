"""What gets installed where: data files, manifest, colcon."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import mm_perception
from tests.packaging.test_imports import ROS_PACKAGES, imported, modules

ROOT = Path(__file__).parents[2]
# Keys of rosdep that name something on Ubuntu (rosdistro's base.yaml and python.yaml of August
# 2026), with the library that each brings. Those from PyPI end in -pip.
ROSDEP_KEYS = {
    'portaudio19-dev': '',
    'python3-aiohttp': 'aiohttp',
    'python3-matplotlib': 'matplotlib',
    'python3-numpy': 'numpy',
    'python3-onnxruntime-pip': 'onnxruntime',
    'python3-opencv': 'opencv-python-headless',
    'python3-psutil': 'psutil',
    'python3-pytest': 'pytest',
    'python3-pytest-timeout': 'pytest-timeout',
    'python3-rich': 'rich',
    'python3-scipy': 'scipy',
    'python3-setuptools': '',
    'python3-sounddevice-pip': 'sounddevice',
    'python3-tqdm': 'tqdm',
    'python3-yaml': 'pyyaml',
}
# Packages of ROS 2 that Jazzy, Kilted and Lyrical have alike: their distribution.yaml of that day.
ROS_KEYS = {
    'ament_copyright', 'ament_flake8', 'ament_index_python', 'ament_pep257',
    'builtin_interfaces', 'diagnostic_msgs', 'geometry_msgs', 'launch', 'launch_ros',
    'launch_testing', 'launch_testing_ros', 'lifecycle_msgs', 'message_filters', 'rcl_interfaces',
    'nav_msgs', 'rclpy', 'rosgraph_msgs', 'sensor_msgs', 'std_msgs', 'std_srvs',
    'trajectory_msgs',
}  # fmt: skip


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


def test_manifest_names_what_rosdep_resolves(manifest):
    depends = {element.text for element in manifest if element.tag.endswith('_depend')}
    assert depends == set(ROSDEP_KEYS) | ROS_KEYS
    assert {url.get('type') for url in manifest.iter('url')} == {
        'website', 'repository', 'bugtracker',
    }  # fmt: skip
    assert manifest.findtext('author') and manifest.findtext('buildtool_depend')


def test_robot_gets_what_the_node_needs_from_apt_or_from_pypi(setup_script):
    """And asks PyPI only for what apt lacks, in the versions that setup.py asks for."""
    asked = {*setup_script.NODE, *setup_script.EXTRAS['microphone']}
    lines = (ROOT / 'requirements' / 'robot.txt').read_text().splitlines()
    script = (ROOT / 'requirements' / 'robot.sh').read_text()
    runtime = 'onnxruntime' + re.search(r'\$\{ONNXRUNTIME:-onnxruntime\}([^"]+)"', script)[1]
    from_pypi = {line for line in lines if not line.startswith('#')} | {runtime}
    assert from_pypi <= asked
    names = {re.match(r'[\w-]+', each)[0] for each in asked - from_pypi}
    assert names <= set(ROSDEP_KEYS.values())
    skipped = {key for key in ROSDEP_KEYS if key.endswith('-pip')}
    assert {ROSDEP_KEYS[key] for key in skipped} <= {re.match(r'\w+', e)[0] for e in from_pypi}
    for page in ('README.md', 'docs/robot.md', 'Dockerfile'):
        assert f'--skip-keys "{" ".join(sorted(skipped))}"' in (ROOT / page).read_text(), page


def test_robot_script_says_what_is_missing(tmp_path):
    script = str(ROOT / 'requirements' / 'robot.sh')
    bare = {'PATH': os.defpath}
    for environment, said in (
        (bare, 'no ROS 2 is sourced'),
        ({**bare, 'ROS_DISTRO': 'lyrical'}, 'cannot import the rclpy of ROS 2 lyrical'),
    ):
        done = subprocess.run(
            ['bash', script, str(tmp_path)], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 2 and said in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


def test_libraries_of_the_distribution_are_kept_by_the_constraints():
    """Run by a Python that has numpy and PyYAML: these stay, what it lacks is pinned."""
    done = subprocess.run(
        [sys.executable, str(ROOT / 'requirements' / 'keep.py')],
        capture_output=True, text=True, check=True, cwd='/',
    )  # fmt: skip
    rows = [line.split(';')[0].split('==') for line in done.stdout.splitlines()]
    constraints = dict(rows)
    assert constraints['numpy'] == version('numpy')
    assert constraints['pyyaml'] == version('pyyaml')
    pins = (ROOT / 'requirements' / 'constraints.txt').read_text()
    assert f'pytest=={constraints["pytest"]}' in pins


@pytest.mark.parametrize(
    ('python', 'machine'),
    [('310', 'x86_64'), ('314', 'x86_64'), ('314', 'aarch64')],
)
def test_node_resolves_to_wheels(setup_script, python: str, machine: str, tmp_path):
    """For the Pythons of Ubuntu 22.04 to 26.04, with the pins; only metadata is downloaded."""
    # pip applies the markers of constraints to the Python that it runs in.
    number = f'{python[0]}.{python[1:]}'
    pins = (ROOT / 'requirements' / 'constraints.txt').read_text().splitlines()
    asked = [Requirement(pin) for pin in pins if pin and not pin.startswith('#')]
    constraints = tmp_path / 'constraints.txt'
    constraints.write_text(
        '\n'.join(
            f'{each.name}{each.specifier}'
            for each in asked
            if each.marker is None or each.marker.evaluate({'python_version': number})
        )
    )
    platforms = [
        f'--platform=manylinux{tag}_{machine}' for tag in ('_2_28', '_2_27', '_2_17', '2014')
    ]
    done = subprocess.run(
        [
            sys.executable, '-m', 'pip', '--retries=0', '--timeout=10', 'install', '--quiet',
            '--dry-run', '--ignore-installed', f'--target={tmp_path}', '--only-binary=:all:',
            '--implementation=cp', f'--python-version={python}', *platforms,
            f'--constraint={constraints}',
            *setup_script.NODE, *setup_script.EXTRAS['microphone'], *setup_script.EXTRAS['demo'],
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if re.search('connection broken|NewConnectionError|Read timed out', done.stdout + done.stderr):
        pytest.skip('the package index is unreachable')
    assert done.returncode == 0, done.stderr


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
    assert names(pins) - {'setuptools'} == asked - {'numpy'}


def test_node_and_extras_cover_what_is_imported(setup_script):
    """Every library that the package imports comes with it, an extra, or ROS 2."""
    libraries = {'cv2': 'opencv-python-headless', 'yaml': 'pyyaml', 'PIL': 'matplotlib'}
    libraries |= {'stable_baselines3': 'stable-baselines3', 'backports': 'rosbags'}
    listed = str([setup_script.NODE, setup_script.EXTRAS])
    known = set(sys.stdlib_module_names) | {'mm_perception'} | ROS_PACKAGES
    known.add('compression')  # of the standard library from 3.14 on; before it backports.zstd
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
