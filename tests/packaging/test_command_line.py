"""The frame of the command line, and the command info."""

import json
import os
import subprocess
import sys

import pytest

from mm_perception import __version__
from mm_perception.cli import main as frame
from mm_perception.errors import UNUSABLE
from mm_perception.modalities import kinds

WITHOUT = 'import sys; sys.modules[{!r}] = None; from mm_perception.cli.main import main; '


def command_line(*arguments, prelude=None):
    start = ['-m', 'mm_perception.cli.main']
    if prelude is not None:
        start = ['-c', f'{prelude}sys.exit(main())']
    return subprocess.run(
        [sys.executable, *start, *arguments], capture_output=True, text=True, timeout=60
    )


def test_help_names_every_command():
    done = command_line('--help')
    assert done.returncode == 0
    assert all(command in done.stdout for command in frame.COMMANDS)


@pytest.mark.parametrize('command', frame.COMMANDS)
def test_help_of_every_command_has_examples(command, capsys):
    with pytest.raises(SystemExit) as ended:
        frame.main([command, '--help'])
    assert ended.value.code == 0
    assert f'examples:\n  mm-perception {command}' in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        frame.main(['--version'])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == __version__


def test_unknown_command_lists_what_exists(capsys):
    with pytest.raises(SystemExit) as ended:
        frame.main(['demonstrate'])
    assert ended.value.code == 2
    assert 'demo' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('module', 'code'),
    [
        (('mm_perception.ros.cmi_node',), UNUSABLE),
        (('mm_perception.cli.main', 'info', '--devices'), frame.FAILED),
    ],
)
def test_middleware_that_is_absent_is_named_in_one_line(module, code):
    environment = {**os.environ, 'RMW_IMPLEMENTATION': 'rmw_nothing'}
    command = (sys.executable, '-m', *module)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == code
    assert done.stderr.startswith('error: RMW_IMPLEMENTATION=rmw_nothing is not installed')
    assert 'rmw_fastrtps_cpp' in done.stderr and len(done.stderr.splitlines()) == 1


def test_user_error_is_one_line(capsys):
    assert frame.main(['info', '/nowhere']) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith('mm-perception: error: no bundle "/nowhere"')
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(
    ('library', 'command', 'remedy'),
    [
        ('torch', ['evaluate', 'small'], 'pip install ".[train]"'),
        ('safetensors', ['info', 'mhd'], 'pip install . in the repository'),
        ('rich', ['demo'], 'pip install ".[demo]"'),
        ('rclpy', ['demo'], 'source a ROS 2'),
        ('mujoco', ['build-data', 'arm', '--out', 'no_arm'], 'pip install ".[arm]"'),
    ],
)
def test_missing_library_is_one_line(library, command, remedy, tmp_path):
    if command == ['demo']:
        from mm_perception.bundle import save_bundle
        from tests.helpers.small_bundle import make_bundle

        save_bundle(make_bundle(), tmp_path / 'small', '# small\n')
        command = ['demo', '--bundle', str(tmp_path / 'small')]
    done = command_line(*command, prelude=WITHOUT.format(library))
    assert done.returncode == 2
    assert f'needs the Python package {library}: ' in done.stderr
    assert remedy in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_interrupt_ends_with_its_own_code(monkeypatch, capsys):
    def interrupt(subparsers):
        raise KeyboardInterrupt

    import mm_perception.cli.info

    monkeypatch.setattr(mm_perception.cli.info, 'add_parser', interrupt)
    assert frame.main(['info', '--kinds']) == 130
    assert 'interrupted' in capsys.readouterr().err


def test_info_lists_kinds(capsys, tmp_path):
    assert frame.main(['info', '--kinds', '--json', str(tmp_path / 'kinds.json')]) == 0
    assert capsys.readouterr().out.splitlines() == list(kinds())
    assert json.loads((tmp_path / 'kinds.json').read_text()) == list(kinds())


def test_info_lists_families(capsys):
    pytest.importorskip('torch', reason='torch is not installed')
    assert frame.main(['info', '--families']) == 0
    assert 'nexus' in capsys.readouterr().out.splitlines()


def test_info_shows_the_card_of_a_bundle(capsys, tmp_path):
    from mm_perception.bundle import save_bundle
    from tests.helpers.small_bundle import make_bundle

    bundle = save_bundle(make_bundle(), tmp_path / 'small', '# A small one\n')
    file = tmp_path / 'info.json'
    assert frame.main(['info', str(bundle.path), '--json', str(file)]) == 0
    out = capsys.readouterr().out
    assert out.startswith('# A small one')
    assert bundle.frame_id in out
    assert json.loads(file.read_text())['spec']['family'] == 'nexus'


def test_a_full_disk_or_memory_is_one_line(capsys, monkeypatch):
    import mm_perception.cli.info

    for error, said in (
        (OSError(28, 'No space left on device', '/d/f'), '/d/f: No space left on device'),
        (MemoryError(), 'not enough memory'),
    ):

        def fail(args, error=error):
            raise error

        monkeypatch.setattr(mm_perception.cli.info, 'run', fail)
        assert frame.main(['info', '--kinds']) == 2
        assert said in capsys.readouterr().err
    with open('/dev/full', 'w') as full:
        command = [sys.executable, '-m', 'mm_perception.cli.main', 'info', '--kinds']
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode != 0 and 'Traceback' not in done.stderr
    assert 'No space left' in done.stderr


def test_a_node_without_a_home_that_can_be_written_says_so_in_one_line():
    pytest.importorskip('rclpy', reason='rclpy is not installed')
    done = subprocess.run(
        [sys.executable, '-m', 'mm_perception.ros.cmi_node'],
        env={**os.environ, 'HOME': '/proc/nowhere', 'ROS_HOME': '', 'ROS_LOG_DIR': ''},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert 'ROS_LOG_DIR or HOME' in done.stderr
