"""Sound: chunks of samples that carry their own times."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from mm_perception.errors import InvalidInput
from mm_perception.modalities import Modality, Waveform
from mm_perception.ros.codecs.base import (
    OutputCodec,
    make_header,
    read_table,
    register_input,
    register_output,
    stamp_of,
    table_message,
)
from mm_perception.ros.codecs.image import decode_image, encode_float_image

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
