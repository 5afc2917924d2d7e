"""Sound: chunks of samples that carry their own times."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Float32MultiArray, Header, Int16MultiArray, UInt8MultiArray

from mm_perception.errors import ConfigError, InvalidInput
from mm_perception.modalities import Modality, Waveform
from mm_perception.modalities.sound import RAW_FORMATS
from mm_perception.ros.codecs.base import (
    Decode,
    InputCodec,
    OutputCodec,
    make_header,
    read_table,
    register_input,
    register_later,
    register_output,
    stamp_of,
    table_message,
)
from mm_perception.ros.codecs.image import decode_image, encode_float_image
from mm_perception.ros.codecs.places import fields_of, import_message

MAX_AMPLITUDE = 2.0
MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 400_000
MAX_SAMPLES = MAX_RATE_HZ


@register_input('sound', PointCloud2, depth=10)
def decode_sound(
    message: PointCloud2, receipt_ns: int, modality: Modality[Any]
) -> tuple[Waveform, int]:
    """
    Read samples, mixed to mono, and their rate out of the times.

    :returns: the chunk and the time of its first sample in ns.
    """
    if message.width > MAX_SAMPLES:
        raise InvalidInput(f'{message.width} samples in one message; at most {MAX_SAMPLES}')
    columns = read_table(message)
    channels = [columns[name] for name in columns if name.startswith('ch')]
    if 't' not in columns or not channels:
        fields = ', '.join(repr(name[:16]) for name in list(columns)[:8])
        raise InvalidInput(f'fields are [{fields}]; expected t and ch0, ch1, ...')
    samples = np.asarray(np.mean(channels, axis=0), np.float32)
    if not np.isfinite(samples).all():
        raise InvalidInput('sound holds NaN or infinity')
    peak = float(np.abs(samples).max())
    if peak > MAX_AMPLITUDE:
        raise InvalidInput(f'samples reach {peak:.3g}; expected -1..1 (divide integers first)')
    times_s = columns['t'].astype(np.float64)
    start_ns = stamp_of(message.header, receipt_ns)
    return Waveform(samples, _rate(times_s)), start_ns + int(times_s[0] * 1e9)


def _waveform(samples: NDArray[Any], channels: int, rate_hz: int) -> Waveform:
    """A chunk of samples, those of whole numbers scaled to -1..1, channels mixed."""
    if not channels or not len(samples) or len(samples) % channels:
        raise InvalidInput(f'{len(samples)} samples are none of {channels} channels')
    if len(samples) > MAX_SAMPLES * channels:
        raise InvalidInput(f'{len(samples)} samples in one message; at most {MAX_SAMPLES}')
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise InvalidInput(
            f'sample rate is {rate_hz} Hz, not {MIN_RATE_HZ} to {MAX_RATE_HZ}; where messages do'
            ' not tell it, set preprocessing.raw_rate_hz'
        )
    mixed = samples.reshape(-1, channels).mean(axis=1, dtype=np.float64)
    if samples.dtype.kind == 'u':
        mixed -= 128.0
    if samples.dtype.kind in 'iu':
        mixed /= 2.0 ** (8 * samples.dtype.itemsize - 1)
    found = mixed.astype(np.float32)
    peak = float(np.abs(found).max())
    if not peak <= MAX_AMPLITUDE:
        raise InvalidInput(f'samples reach {peak:.3g}; expected -1..1')
    return Waveform(found, rate_hz)


def _raw(samples: NDArray[Any], modality: Modality[Any]) -> Waveform:
    options = modality.options
    return _waveform(samples, options.raw_channels, options.raw_rate_hz)


def _bytes(data: Any, modality: Modality[Any]) -> Waveform:
    dtype = np.dtype(RAW_FORMATS[modality.options.raw_format])
    if len(data) % dtype.itemsize:
        raise InvalidInput(f'{len(data)} bytes are no {modality.options.raw_format}')
    return _raw(np.frombuffer(data, dtype), modality)


def _just_heard(waveform: Waveform, receipt_ns: int) -> tuple[Waveform, int]:
    """A chunk without a stamp ends when it comes."""
    return waveform, receipt_ns - round(waveform.seconds * 1e9)


@register_input('sound', UInt8MultiArray, depth=10)
def decode_bytes(message: Any, receipt_ns: int, modality: Modality[Any]) -> tuple[Waveform, int]:
    """Read samples of the configured format, rate and channels: also audio_common's AudioData."""
    return _just_heard(_bytes(message.data, modality), receipt_ns)


@register_input('sound', Int16MultiArray, depth=10)
@register_input('sound', Float32MultiArray, depth=10)
def decode_samples(message: Any, receipt_ns: int, modality: Modality[Any]) -> tuple[Waveform, int]:
    """Read samples of the configured rate and channels."""
    return _just_heard(_raw(np.asarray(message.data), modality), receipt_ns)


def decode_stamped_bytes(
    message: Any, receipt_ns: int, modality: Modality[Any]
) -> tuple[Waveform, int]:
    """Read AudioDataStamped of ros-drivers/audio_common; its stamp is of the first sample."""
    return _bytes(message.audio.data, modality), stamp_of(message.header, receipt_ns)


def decode_audio_stamped(
    message: Any, receipt_ns: int, modality: Modality[Any]
) -> tuple[Waveform, int]:
    """Read AudioStamped of mgonzs13/audio_common, which tells its rate and channels."""
    info, data = message.audio.info, message.audio.audio_data
    if info.format not in PORTAUDIO:
        raise InvalidInput(f'audio format {info.format} is none of {list(PORTAUDIO)}')
    samples = np.asarray(getattr(data, PORTAUDIO[info.format]))
    return _waveform(samples, info.channels, info.rate), stamp_of(message.header, receipt_ns)


PORTAUDIO = {
    1: 'float32_data', 2: 'int32_data', 8: 'int16_data', 16: 'int8_data', 32: 'uint8_data'
}  # fmt: skip
"""Sample formats of PortAudio, and the fields in which their samples come."""


def _audio_common(kind: str, field: str, decode: Decode) -> None:
    """Make a type of audio_common_msgs known: two packages of that name have other types."""
    name = f'audio_common_msgs/msg/{kind}'

    def make() -> InputCodec:
        message_type = import_message(name)
        owner = message_type if kind == 'AudioData' else import_message(OF_AUDIO[kind])
        if field not in fields_of(owner):
            raise ConfigError(
                f'{name}: that of the installed audio_common_msgs does not tell its rate; take'
                ' AudioStamped'
            )
        return InputCodec(name, message_type, decode, depth=10)

    register_later('sound', name, make)


OF_AUDIO = {
    'AudioDataStamped': 'audio_common_msgs/msg/AudioData',
    'AudioStamped': 'audio_common_msgs/msg/Audio',
}
_audio_common('AudioData', 'data', decode_bytes)
_audio_common('AudioDataStamped', 'data', decode_stamped_bytes)
_audio_common('AudioStamped', 'info', decode_audio_stamped)


def _rate(times_s: NDArray[Any]) -> int:
    if len(times_s) < 2:
        raise InvalidInput('one sample only: the sample rate cannot be read from t')
    span_s = times_s[-1] - times_s[0]
    if not np.isfinite(times_s).all() or span_s <= 0:
        raise InvalidInput('t does not increase')
    rate_hz = (len(times_s) - 1) / span_s
    if not MIN_RATE_HZ <= round(rate_hz) <= MAX_RATE_HZ:
        raise InvalidInput(
            f'sample rate {rate_hz:.4g} Hz (from t) is not within {MIN_RATE_HZ} to {MAX_RATE_HZ}'
        )
    ideal_s = times_s[0] + np.arange(len(times_s)) / rate_hz
    if np.abs(times_s - ideal_s).max() > 0.5 / rate_hz:
        raise InvalidInput('samples are not equally spaced in t')
    return round(rate_hz)


def audio_message(
    samples: NDArray[Any], rate_hz: int, stamp_ns: int, frame_id: str = 'microphone'
) -> PointCloud2:
    """
    Build a sound message.

    :param samples: ``float32[n]`` mono or ``float32[n, channels]``, in -1..1.
    :param rate_hz: samples per second; goes into the field ``t``.
    :param stamp_ns: time of the first sample.
    """
    samples = np.asarray(samples, np.float32)
    channels = samples.T if samples.ndim == 2 else samples[None]
    columns = {'t': np.arange(len(samples)) / rate_hz}
    columns.update({f'ch{k}': channel for k, channel in enumerate(channels)})
    return table_message(columns, make_header(stamp_ns, frame_id))


def _encode_waveform(modality: Modality[Any], array: NDArray[Any], header: Header) -> PointCloud2:
    waveform = modality.from_model(array)
    times_s = np.arange(len(waveform.samples)) / waveform.rate_hz
    return table_message({'t': times_s, 'ch0': waveform.samples}, header)


def _decode_mel(modality: Modality[Any], message: Image) -> NDArray[Any]:
    pixels, _ = decode_image(message, 0, modality)
    return np.asarray(pixels, np.float32).reshape(modality.shape)


register_output(
    'sound',
    OutputCodec(
        encode=encode_float_image,
        message_type=Image,
        decode=_decode_mel,
        encode_std=encode_float_image,
        std_type=Image,
        encode_native=_encode_waveform,
        native_type=PointCloud2,
    ),
)
