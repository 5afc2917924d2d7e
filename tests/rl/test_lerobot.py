"""Episodes of an environment as a LeRobot dataset: what was seen, done and gained."""

from __future__ import annotations

from pathlib import Path

import cv2
import gymnasium
import numpy as np
import pytest

parquet = pytest.importorskip('pyarrow.parquet', reason='pyarrow is not installed')

from mm_perception.data.lerobot_files import open_lerobot  # noqa: E402
from mm_perception.errors import ConfigError, DataError  # noqa: E402
from mm_perception.rl.failures import Failures, SensorFailures, Spell  # noqa: E402
from mm_perception.rl.lerobot import record_lerobot  # noqa: E402
from mm_perception.rl.pendulum import ID  # noqa: E402


def test_episodes_become_a_dataset_that_is_read_back(tmp_path: Path):
    env = SensorFailures(gymnasium.make(ID), Failures((Spell(('joints',), begin=3, end=5),)))
    act = lambda seen: np.float32([seen['joints'][2] / 8])  # noqa: E731
    assert record_lerobot(env, act, tmp_path / 'swing', 2, 20.0, 'swing up', seed=6) == 400
    found = open_lerobot(tmp_path / 'swing')
    assert found.fps == 20
    table = parquet.read_table(found.data_file(1)).to_pydict()
    twin = gymnasium.make(ID)
    seen, _ = twin.reset(seed=7)
    for k in range(3):
        picture = cv2.imdecode(
            np.frombuffer(table['observation.images.camera'][k]['bytes'], np.uint8),
            cv2.IMREAD_COLOR,
        )
        np.testing.assert_array_equal(picture[..., ::-1], seen['camera'])
        np.testing.assert_array_equal(np.float32(table['observation.joints'][k]), seen['joints'])
        assert table['action'][k] == pytest.approx(float(act(seen)[0]))
        seen, reward, *_ = twin.step(act(seen))
        assert table['next.reward'][k] == pytest.approx(reward, rel=1e-5)
    gone = [not each[1] for each in table['observation.present']]
    assert np.flatnonzero(gone).tolist() == [3, 4]
    assert np.flatnonzero(table['next.done']).tolist() == [199]


def test_what_makes_no_dataset_leaves_nothing(tmp_path: Path):
    with pytest.raises(ConfigError, match='whole frames per second'):
        record_lerobot(gymnasium.make(ID), None, tmp_path / 'out', 1, 12.5)
    with pytest.raises(DataError, match='give 1 or more'):
        record_lerobot(gymnasium.make(ID), None, tmp_path / 'out', 0, 20.0)
    with pytest.raises(ConfigError, match='a Dict of Box'):
        record_lerobot(gymnasium.make('Pendulum-v1'), None, tmp_path / 'out', 1, 20.0)
    assert list(tmp_path.iterdir()) == []
