"""The rules of imports: one way between parts, heavy libraries only where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / 'mm_perception'

# Each part may import the parts of its own level or below; nothing above imports the laboratory.
LEVELS = [
    {'errors'},
    {'spec'},
    {'config', 'markdown', 'modalities', 'progress', 'resources'},
    {'model'},
    {'bundle'},
    {'engines'},
    {'fusion'},
    {'data', 'training', 'evaluation'},
    {'rl'},
    {'ros'},
    {'lab'},
    {'cli'},
]
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}
ROS_PACKAGES = {
    'rclpy', 'sensor_msgs', 'std_msgs', 'geometry_msgs', 'trajectory_msgs', 'diagnostic_msgs',
    'std_srvs', 'rosgraph_msgs', 'lifecycle_msgs', 'builtin_interfaces', 'rcl_interfaces',
    'message_filters',
}  # fmt: skip
WITHOUT_TORCH = [
    'mm_perception.spec',
    'mm_perception.config',
    'mm_perception.modalities',
    'mm_perception.bundle',
    'mm_perception.lab.digits.recordings',
    'mm_perception.lab.digits.pen',
    'mm_perception.engines.build',
    'mm_perception.fusion.perception',
    'mm_perception.engines.onnx_engine',
    'mm_perception.ros.cmi_node',
    'mm_perception.rl.policy',
    'mm_perception.lab.replay.node',
    'mm_perception.lab.gym.node',
    'mm_perception.lab.demo.acting',
    'mm_perception.ros.policy_node',
    'mm_perception.ros.microphone_node',
    'mm_perception.lab.demo.run',
    'mm_perception.lab.demo.report',
    'mm_perception.lab.demo.command',
    'mm_perception.cli.info',
]
FOR_TRAINING = (
    'torch',
    'onnx',
    'onnxscript',
    'matplotlib',
    'psutil',
    'scipy',
    'tensorboard',
    'tqdm',
)


def modules():
    """All modules of the package, as (file, part it belongs to)."""
    for file in sorted(PACKAGE.rglob('*.py')):
        part = file.relative_to(PACKAGE).parts[0].removesuffix('.py')
        if part != '__init__':
            yield file, part


def imported(file):
    """Absolute names of the modules that a file imports anywhere, with their lines."""
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{file}:{node.lineno}: import with the full name'
            for alias in node.names:
                yield f'{node.module}.{alias.name}', node.lineno


def own_imports():
    """All imports between parts: (where, importing part, imported part)."""
    for file, part in modules():
        for name, line in imported(file):
            names = name.split('.')
            if names[0] == 'mm_perception' and len(names) > 1 and names[1] != '__version__':
                yield f'{file.relative_to(PACKAGE)}:{line}', part, names[1]


def test_imports_every_part_has_a_level():
    assert {part for _, part in modules()} <= set(LEVEL)


def test_imports_go_one_way():
    wrong = [
        f'{where}: {part} imports {other}'
        for where, part, other in own_imports()
        if other != part and LEVEL[other] > LEVEL[part]
    ]
    assert not wrong, '\n'.join(wrong)


def test_imports_ros_never_imports_training():
    wrong = [where for where, part, other in own_imports() if (part, other) == ('ros', 'training')]
    assert not wrong, '\n'.join(wrong)


def test_imports_rclpy_only_where_topics_are():
    wrong = [
        f'{file.relative_to(PACKAGE)}:{line}: {name}'
        for file, part in modules()
        if part not in {'ros', 'lab'}
        for name, line in imported(file)
        if name.split('.')[0] in ROS_PACKAGES
    ]
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize('module', WITHOUT_TORCH)
def test_imports_work_without_what_training_needs(module):
    code = f'import sys; sys.modules |= dict.fromkeys({FOR_TRAINING}); import {module}'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
