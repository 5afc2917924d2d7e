"""The joint posterior as messages."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Float32MultiArray, Header

from mm_perception.ros.codecs.points import table_message
from mm_perception.ros.codecs.vector import array_message


def latent_message(mean: np.ndarray, std: np.ndarray, header: Header) -> PointCloud2:
    """
    Build the message of a joint posterior.

    :param mean: ``float32[D]``.
    :param std: ``float32[D]``.
    """
    return table_message({'mean': mean, 'std': std}, header)


def latent_vector_message(mean: np.ndarray, std: np.ndarray) -> Float32MultiArray:
    """Build the same as a bare array, ``float32[2, D]``: means, then standard deviations."""
    return array_message(np.stack((mean, std)), ['statistic', 'latent'])
