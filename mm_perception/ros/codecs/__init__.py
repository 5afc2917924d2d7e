"""ROS messages to raw sensor values, and model arrays to ROS messages."""

from mm_perception.ros.codecs.base import (
    InputCodec,
    OutputCodec,
    input_codec,
    input_names,
    make_header,
    message_name,
    output_codec,
    read_table,
    stamp_of,
    table_message,
    time_message,
)
from mm_perception.ros.codecs.image import (
    compressed_message,
    image_message,
    picture_message,
)
from mm_perception.ros.codecs.sound import audio_message
from mm_perception.ros.codecs.trajectory import trajectory_message
from mm_perception.ros.codecs.vector import (
    Latent,
    array_message,
    latent_message,
    latent_vector_message,
    read_latent,
)

__all__ = [
    'InputCodec',
    'Latent',
    'OutputCodec',
    'array_message',
    'audio_message',
    'compressed_message',
    'image_message',
    'input_codec',
    'input_names',
    'latent_message',
    'latent_vector_message',
    'make_header',
    'message_name',
    'output_codec',
    'picture_message',
    'read_latent',
    'read_table',
    'stamp_of',
    'table_message',
    'time_message',
    'trajectory_message',
]
