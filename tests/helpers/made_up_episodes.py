"""Episodes of a robot that are made up: a camera and two vectors that move evenly."""

from __future__ import annotations

import numpy as np

from mm_perception.lab.replay.episodes import Channel, Episode, Episodes, Track
from mm_perception.spec import ModalitySpec

SECONDS, RATE_HZ = 4.0, 20.0
CHANNELS = {
    'camera': Channel('camera/image_raw', 'image', ''),
    'joints': Channel('joint_states', 'vector', '', ('a', 'b')),
    'force': Channel('wrench', 'vector', 'geometry_msgs/msg/WrenchStamped'),
    'target': Channel('target', 'vector', 'std_msgs/msg/Float32MultiArray'),
}
SPECS = {
    'camera': ModalitySpec('camera', 'image', 4, {'height': 8, 'width': 8, 'channels': 3}),
    'joints': ModalitySpec(
        'joints', 'vector', 4, {'low': (0, 0), 'high': (8, 8), 'names': ('a', 'b')}
    ),
    'force': ModalitySpec('force', 'vector', 4, {'low': (-9,) * 6, 'high': (9,) * 6}),
    'target': ModalitySpec('target', 'vector', 4, {'low': (0,), 'high': (9,)}),
}


def make_episode(label: str) -> Episode:
    """One in which joint ``a`` is as large as the time in seconds, and ``b`` is 1."""
    times_s = np.arange(0.0, SECONDS, 1.0 / RATE_HZ)
    frames = np.zeros((len(times_s), 8, 8, 3), np.uint8)
    frames[:] = np.arange(len(times_s))[:, None, None, None] * [3, 2, 1]
    ramp = times_s[:, None].astype(np.float32)
    values = {
        'camera': frames,
        'joints': np.concatenate((ramp, np.ones_like(ramp)), axis=1),
        'force': ramp * np.arange(1, 7, dtype=np.float32) / 4,
        'target': 2 * ramp,
    }
    return Episode(label, SECONDS, {name: Track(times_s, v) for name, v in values.items()})


def make_episodes(labels: str = 'ab') -> Episodes:
    """Several of them."""
    return Episodes(CHANNELS, [make_episode(label) for label in labels])
