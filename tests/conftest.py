"""Settings that all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path

import pytest

# Several processes share few cores: more threads than cores only wait for each other.
os.environ.setdefault('OMP_NUM_THREADS', '1')

# A shell that runs the tests in the background has SIGINT ignored, and so would every process that
# they start; with a handler it is as usual for those.
signal.signal(signal.SIGINT, signal.default_int_handler)

SLOW = (
    # Faults, load and long lives over real topics.
    'ros/test_cmi_health.py',
    'ros/test_cmi_lifecycle.py',
    'ros/test_cmi_node.py',
    'ros/test_endurance.py',
    'ros/test_fault_matrix.py',
    'ros/test_fuzz.py',
    'ros/test_memory_node.py',
    'ros/test_microphone_node.py',
    'ros/test_pictures.py',
    'ros/test_policy_node.py',
    'ros/test_replay_node.py',
    'ros/test_shared_memory.py',
    'ros/test_slow_engine.py',
    'ros/test_soak.py',
    'ros/test_transport.py',
    'ros/test_tutorial_drive.py',
    'ros/test_tutorial_policy.py',
    'ros/test_two_hosts.py',
    'ros/test_watchdog.py',
    'ros/test_view.py',
    # Training for longer than seconds, and what trains first.
    'evaluation/test_likelihood.py',
    'fusion/test_memory.py',
    'lab/test_acting_demo.py',
    'lab/test_benchmark_command.py',
    'lab/test_build_data_command.py',
    'lab/test_demo_command.py',
    'lab/test_everything.py',
    'lab/test_gym_node.py',
    'lab/test_mhd.py',
    'lab/test_observer.py',
    'lab/test_robots.py',
    'lab/test_tables.py',
    'model/test_hmvae.py',
    'model/test_mhvae.py',
    'packaging/test_gpu_check.py',
    'packaging/test_site.py',
    'rl/test_training.py',
    'ros/test_toy_kind.py',
    'training/test_consistency.py',
    'training/test_distributed.py',
    'training/test_finished_levels.py',
    'training/test_kept.py',
    'training/test_killed.py',
    'training/test_side_by_side.py',
    'training/test_strangeness.py',
    'training/test_training.py',
)
"""Files whose tests carry the marker ``slow``: ``make test-fast`` leaves them out."""
LIVE = (
    'lab/test_acting_demo.py',
    'lab/test_demo_command.py',
    'lab/test_gym_node.py',
    'launch',
    'ros',
)
"""
Files and folders whose tests carry the marker ``live``: nodes run in real time, and the tests wait
for them; two at a time, each worker in a domain of its own.
"""
ALONE = (
    'launch/test_respawn_launch.py',
    'lab/test_acting_demo.py',
    'lab/test_benchmark_command.py',
    'ros/test_consumer.py',
    'ros/test_endurance.py',
    'ros/test_slow_engine.py',
    'ros/test_transport.py',
    'ros/test_two_hosts.py',
)
"""Files whose tests carry the marker ``alone``: what they measure needs the machine to itself."""
IN_COMPANY = (
    'ros/test_bad_recordings.py',
    'ros/test_bag_export.py',
    'ros/test_bag_files.py',
    'ros/test_bag_survey.py',
    'ros/test_bags.py',
    'ros/test_codecs.py',
    'ros/test_fuzz.py',
    'ros/test_live_equals_training.py',
)
"""Files in those folders that need no clock."""
OPTIONAL = (
    'aiohttp',
    'av',
    'griffe',
    'gymnasium',
    'hypothesis',
    'matplotlib',
    'mujoco',
    'onnx',
    'psutil',
    'pyarrow',
    'rich',
    'rosbags',
    'scipy',
    'stable_baselines3',
    'tensorboard',
    'torch',
    'tqdm',
    'zensical',
)
"""Libraries of the extras of setup.py: what imports one is skipped where it is not installed."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, and what runs on live topics, by file."""
    here = Path(__file__).parent
    missing = [n for n in (*SLOW, *LIVE, *ALONE, *IN_COMPANY) if not (here / n).exists()]
    if missing:
        raise pytest.UsageError(f'{__file__}: names what does not exist: {missing}')
    for item in items:
        if under(SLOW, item):
            item.add_marker('slow')
        if under(ALONE, item):
            item.add_marker('alone')
        elif under(LIVE, item) and not under(IN_COMPANY, item):
            item.add_marker('live')


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> Generator[None, object, object]:
    """
    Collect a file whose import fails as such, so that the failure, or the skip, is its own.

    The plugin of launch_testing, which a ROS 2 installation brings, imports every file already
    here; what that raises would end the collection of the whole folder.
    """
    try:
        return (yield)
    except (Exception, pytest.skip.Exception):  # noqa: BLE001 - the file's own import raises it anew
        return pytest.Module.from_parent(parent, path=module_path)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Skip the files that import a library that is not there, as colcon test finds a robot."""
    report = yield
    name = absent_library(report.call.excinfo.value) if report.failed else ''
    if name:
        report.outcome = 'skipped'
        report.longrepr = (str(collector.path), 1, f'Skipped: {name} is not installed')
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip the tests that need such a library only now."""
    report = yield
    name = absent_library(call.excinfo.value) if report.failed and call.excinfo else ''
    if name:
        report.outcome = 'skipped'
        line = (item.location[1] or 0) + 1
        report.longrepr = (str(item.path), line, f'Skipped: {name} is not installed')
    return report


def absent_library(error: BaseException | None) -> str:
    """Name of the optional library whose absence an error comes from; empty for other errors."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        name = (error.name or '').split('.')[0] if isinstance(error, ModuleNotFoundError) else ''
        if name in OPTIONAL and find_spec(name) is None:
            return name
        error = getattr(error, 'cause', None) or error.__cause__ or error.__context__
    return ''


def under(names: tuple[str, ...], item: pytest.Item) -> bool:
    """Whether a test is in one of some files or folders of tests."""
    return any(item.path.is_relative_to(Path(__file__).parent / name) for name in names)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker('gpu') is not None:
        torch = pytest.importorskip('torch', reason='torch is not installed')
        if not torch.cuda.is_available():
            pytest.skip('needs a CUDA GPU')
