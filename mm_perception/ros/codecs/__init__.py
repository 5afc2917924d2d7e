"""ROS messages to raw sensor values, and model arrays to ROS messages."""

from mm_perception.ros.codecs import cloud, image_writing  # noqa: F401 - register
from mm_perception.ros.codecs.base import (
    Draft,
    InputCodec,
    OutputCodec,
    filled_type,
    input_codec,
    input_names,
    make_header,
    message_name,
    output_codec,
    read_output,
    read_table,
    restamped,
    stamp_of,
    table_message,
    time_message,
)
from mm_perception.ros.codecs.fields import codec_for
from mm_perception.ros.codecs.image import (
    compressed_message,
    image_message,
    picture_message,
)
from mm_perception.ros.codecs.sound import audio_message
from mm_perception.ros.codecs.trajectory import trajectory_message
from mm_perception.ros.codecs.vector import (
    Latent,
    array_header,
    array_message,
    latent_joints_message,
    latent_message,
    latent_vector_message,
    read_latent,
)

__all__ = [
    'Draft',
    'InputCodec',
    'Latent',
    'OutputCodec',
    'array_header',
    'array_message',
    'audio_message',
    'codec_for',
    'compressed_message',
    'filled_type',
    'image_message',
    'input_codec',
    'input_names',
    'latent_joints_message',
    'latent_message',
    'latent_vector_message',
    'make_header',
    'message_name',
    'output_codec',
    'picture_message',
    'read_latent',
    'read_output',
    'read_table',
    'restamped',
    'stamp_of',
    'table_message',
    'time_message',
    'trajectory_message',
]
