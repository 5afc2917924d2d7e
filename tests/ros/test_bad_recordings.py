"""What is wrong with recordings: one line, exit code 2, nothing written."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy', reason='rclpy is not installed')
pytest.importorskip('rosbags', reason='rosbags is not installed')

from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from std_msgs.msg import String

from mm_perception.cli.main import main
from mm_perception.ros.bag_files import MAX_MESSAGE_BYTES, _plain, installed_type, zstd
from tests.helpers.driving_bag import START_NS, write_driving_bag

ARM = {
    'name': 'arm',
    'kind': 'vector',
    'topic': '/joint_states',
    'message': 'sensor_msgs/msg/JointState',
}
IMPORT = ('import-bag', '--config', 'robot.yaml')


def configured(arm=None, **changes):
    """A configuration of one arm, with changes to the modality or to the whole."""
    plain = {'name': 'robot', 'dataset': 'data', 'model': {'modalities': [ARM | (arm or {})]}}
    return yaml.safe_dump(plain | changes)


def named(*names, **options):
    return configured({'preprocessing': {'names': list(names), **options}})


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A good bag and broken ones, in a folder in which the commands run."""
    here = tmp_path_factory.mktemp('bad')
    write_driving_bag(here / 'good', 3.0)
    write_driving_bag(here / 'mcap', 3.0, StoragePlugin.MCAP)
    database = next((here / 'good').glob('*.db3')).read_bytes()
    mcap = next((here / 'mcap').glob('*.mcap')).read_bytes()
    for name, content in (
        ('cut.db3', database[: len(database) // 2]),
        ('empty.mcap', b''),
        ('noise.mcap', np.random.default_rng(0).bytes(5000)),
        ('head.mcap', mcap[:100]),
        ('noise.bag', b'#ROSBAG V2.0\n' + bytes(500)),
        ('text.db3', b'a list of what to buy'),
        ('picture.png', b'\x89PNG'),
    ):
        (here / name).write_bytes(content)
    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(here / 'silent', version=9) as writer:
        writer.add_connection('/joint_states', ARM['message'], typestore=store)
    with Writer(here / 'other_type', version=9) as writer:
        to = writer.add_connection('/joint_states', 'std_msgs/msg/String', typestore=store)
        writer.write(to, START_NS, serialize_message(String(data='arm')))
    (here / 'nothing').mkdir()
    os.mkfifo(here / 'pipe.mcap')
    (here / 'bomb.db3.zstd').write_bytes(zstd.compress(bytes(64 << 20)))
    shutil.copytree(here / 'good', here / 'no_files')
    next((here / 'no_files').glob('*.db3')).unlink()
    (here / 'other_metadata').mkdir()
    (here / 'other_metadata' / 'metadata.yaml').write_text('shopping: [milk]')
    (here / 'lerobot' / 'meta').mkdir(parents=True)
    (here / 'lerobot' / 'meta' / 'info.json').write_text(json.dumps({'fps': 30}))
    (here / 'old.yaml').write_text('mine')
    return here


CASES = {
    'no such bag': (IMPORT, 'absent', None, 'absent: not a readable bag (no such file)'),
    'empty folder': (IMPORT, 'nothing', None, 'no bag in it'),
    'folder without its files': (IMPORT, 'no_files', None, 'no bag in it'),
    'foreign metadata': (IMPORT, 'other_metadata', None, 'no bag in it'),
    'database cut off': (IMPORT, 'cut.db3', None, 'mend it with ros2 bag reindex'),
    'no database': (IMPORT, 'text.db3', None, 'text.db3: not a readable bag'),
    'empty file': (IMPORT, 'empty.mcap', None, 'seems to be empty'),
    'noise': (IMPORT, 'noise.mcap', None, 'File magic is invalid'),
    'head of a file': (IMPORT, 'head.mcap', None, 'head.mcap: holds no topics'),
    'noise of ROS 1': (IMPORT, 'noise.bag', None, 'mend it with rosbag reindex'),
    'a pipe': (IMPORT, 'pipe.mcap', None, 'pipe.mcap: not a readable bag (not a regular file)'),
    'a bomb': (IMPORT, 'bomb.db3.zstd', None, 'more than 1000 times as large as its file'),
    'another file': (IMPORT, 'picture.png', None, "Unrecognized storage format '.png'"),
    'no messages': (IMPORT, 'silent', None, 'no messages on /joint_states'),
    'another type': (IMPORT, 'other_type', None, 'is std_msgs/msg/String, not sensor_msgs'),
    'no such topic': (IMPORT, 'good', configured({'topic': '/legs'}), 'none of the topics /legs'),
    'no such joint': (IMPORT, 'good', named('elbow'), 'but not elbow'),
    'joint twice': (IMPORT, 'good', named('arm_1_joint', 'arm_1_joint'), 'different ones'),
    'range upside down': (
        *(IMPORT, 'good', named('arm_1_joint', low=[1.0], high=[-1.0])),
        'low and high need one pair low < high',
    ),
    'no such message type': (
        *(IMPORT, 'good', configured({'message': 'sensor_msgs/msg/Joints'})),
        'no codec from "sensor_msgs/msg/Joints" to vector',
    ),
    'no such kind': (IMPORT, 'good', configured({'kind': 'smell'}), 'unknown kind "smell"'),
    'no such option': (
        *(IMPORT, 'good', configured({'preprocessing': {'span': 2}})),
        'arm.preprocessing.span: unknown key',
    ),
    'no such key': (IMPORT, 'good', configured(speed=3), 'speed: unknown key'),
    'no YAML': (IMPORT, 'good', 'name: [', 'not valid YAML'),
    'no configuration': ((*IMPORT[:2], 'absent.yaml'), 'good', None, 'absent.yaml'),
    'a rate of nothing': ((*IMPORT, '--rate', '0'), 'good', None, '--rate is 0'),
    'no time': ((*IMPORT, '--start', '5', '--end', '1'), 'good', None, 'leave no time'),
    'a span without rows': (
        (*IMPORT, '--start', '900'),
        'good',
        None,
        'nothing in it can be used',
    ),
    'two shares': ((*IMPORT, '--split', '70/30'), 'good', None, '--split is 70/30'),
    'a share of nothing': ((*IMPORT, '--split', '70/30/0'), 'good', None, '--split is 70/30/0'),
    'too short for shares': (
        *((*IMPORT, '--split', '98/1/1'), 'good', None),
        'split validation and test would be empty (good: 30 rows in 2.9 s)',
    ),
    'range not known yet': ((*IMPORT, '--split', 'test'), 'good', None, 'import the split train'),
    'init of nothing': (('init',), 'nothing', None, 'no bag in it'),
    'init of another topic': (('init', '--topics', '/legs', '--'), 'good', None, 'no topic /legs'),
    'init over a file': (('init', '--out', 'old.yaml'), 'good', None, 'old.yaml: exists'),
    'init of a broken dataset': (('init',), 'lerobot', None, 'meta/info.json: missing or broken'),
    'play of nothing': (('play',), 'silent', None, 'nothing to play after 0 s'),
    'play of another topic': (('play', '--topics', '/legs', '--'), 'good', None, 'no topic /legs'),
    'play backwards': (('play', '--rate', '-1'), 'good', None, 'give a rate above 0'),
    'play after its end': (('play', '--start', '99'), 'good', None, 'nothing to play after 99 s'),
}
"""Command, recording, configuration (None: a good one), and what the line says."""


@pytest.mark.parametrize('case', CASES)
def test_bad_recordings_are_one_clear_line_and_leave_nothing(case, folder, monkeypatch, capsys):
    command, recording, content, line = CASES[case]
    monkeypatch.chdir(folder)
    Path('robot.yaml').write_text(content or configured())
    before = {file: file.stat().st_size for file in folder.rglob('*')}
    assert main([*command, recording]) == 2
    said = [part for part in capsys.readouterr().err.replace('\r', '\n').splitlines() if part]
    errors = [part for part in said if part.startswith('mm-perception: error: ')]
    assert len(errors) == 1 and line in errors[0], said
    assert not any('Traceback' in part for part in said)
    assert {file: file.stat().st_size for file in folder.rglob('*')} == before


def test_no_module_is_imported_for_the_name_of_a_type():
    assert installed_type('this/msg/Type') is None
    assert 'this' not in sys.modules
    assert installed_type(ARM['message']).__name__ == 'JointState'


def test_message_that_unpacks_without_end_is_not_unpacked():
    packed = zstd.compress(bytes(MAX_MESSAGE_BYTES + 1))
    with pytest.raises(ValueError, match='more than 256 MiB'):
        _plain(packed)
    assert _plain(zstd.compress(b'abc')) == b'abc' == _plain(b'abc')
