"""Sound: waveform to mel spectrogram and back, and the windows that find pieces of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mm_perception.errors import ConfigError, InvalidInput
from mm_perception.modalities.base import (
    CLIPPED,
    FROZEN,
    SILENT,
    Array,
    Fault,
    Modality,
    Stamped,
    Thresholds,
    Trace,
    Waveform,
    Window,
    register_kind,
    require_finite,
)
from mm_perception.modalities.dsp import (
    MelSpectrum,
    StreamResampler,
    griffin_lim,
    high_pass,
    mel_filters,
    resample,
    spread_mel,
    without_lows,
)
from mm_perception.modalities.utterances import UtteranceWindow, trim_silence
from mm_perception.spec import ModalitySpec


class SlidingSoundWindow(Window):
    """
    The last samples of a steady sound, at the rate of the analysis.

    It slides by whole hops, so that one value shares the frames of its spectrogram with the
    next. After a gap longer than itself, and at another sample rate, it fills anew.

    :param length: samples of a value.
    :param hop: samples by which it slides.
    :param rate_hz: of the analysis.
    """

    def __init__(self, length: int, hop: int, rate_hz: int) -> None:
        super().__init__()
        self._length = length
        self._hop = hop
        self._rate_hz = rate_hz
        self._samples: Array
        self._expected_ns: int | None
        self._taken: int  # samples of the stream that came
        self._end: int  # position after the last sample at the rate of the analysis
        self.clear()

    def clear(self) -> None:
        """Forget all samples and the last value."""
        super().clear()
        self._begin(self._rate_hz)

    def push(self, raw: Waveform, stamp_ns: int) -> None:
        """Take a chunk; ``stamp_ns`` is the time of its first sample."""
        gap_s = 0.0 if self._expected_ns is None else (stamp_ns - self._expected_ns) * 1e-9
        if raw.rate_hz != self._source_hz or abs(gap_s) > self._length / self._rate_hz:
            if gap_s < 0:
                super().clear()
            self._begin(raw.rate_hz)
        end_ns = stamp_ns + int(raw.seconds * 1e9)
        self._expected_ns = end_ns
        self._taken += len(raw.samples)
        new = raw.samples if self._resampler is None else self._resampler.push(raw.samples)
        self._samples = np.concatenate((self._samples, new))
        self._end += len(new)
        keep = self._length + self._end % self._hop
        self._samples = self._samples[-keep:]
        if len(self._samples) == keep:
            self._complete(end_ns)

    def _complete(self, end_ns: int) -> None:
        """Make the newest whole hops the value; some of the last samples may wait."""
        end = self._end - self._end % self._hop
        up, down = (self._resampler.up, self._resampler.down) if self._resampler else (1, 1)
        waiting_s = (self._taken - end * down / up) / self._source_hz
        value = Waveform(
            self._samples[: self._length], self._rate_hz, self._stream, end - self._length
        )
        self._latest = Stamped(value, end_ns - int(waiting_s * 1e9))

    def _begin(self, source_hz: int) -> None:
        self._source_hz = source_hz
        same = source_hz == self._rate_hz
        self._resampler = None if same else StreamResampler(source_hz, self._rate_hz)
        self._stream = object()
        self._samples = np.zeros(0, np.float32)
        self._taken = self._end = 0
        self._expected_ns = None


MAX_SECONDS = 60.0
MAX_FRAMES, MAX_TRANSFORM = 4096, 1 << 14
FULL_SCALE = 0.999


@dataclass(frozen=True)
class SoundOptions:
    """
    How a waveform becomes a mel spectrogram.

    :param rate_hz: sample rate of the analysis; other rates are resampled to it.
    :param mels: mel bins (rows of the array).
    :param frames: time frames (columns of the array).
    :param hop: samples between frames; ``frames * hop / rate_hz`` seconds are looked at.
    :param window_length: samples per frame.
    :param transform_length: length of the Fourier transform.
    :param range_db: dB below the loudest point that become 0.
    :param window: ``utterance`` (speech between silences) or ``sliding`` (a steady sound).
    :param silence_db: dB below the loudest frame that count as silence.
    :param pause_s: silence that ends an utterance.
    :param high_pass_hz: frequency below which nothing counts, such as an offset and the mains'
        hum; 0 for none.
    """

    rate_hz: int = 8000
    mels: int = 128
    frames: int = 32
    hop: int = 250
    window_length: int = 512
    transform_length: int = 1024
    range_db: float = 60.0
    window: str = 'utterance'
    silence_db: float = 30.0
    pause_s: float = 0.2
    high_pass_hz: float = 0.0

    @property
    def seconds(self) -> float:
        """Length of the spectrogram in seconds."""
        return self.frames * self.hop / self.rate_hz


def _check_sizes(name: str, options: SoundOptions) -> None:
    """Refuse what would take gigabytes, before it does."""
    for key, high in (
        ('rate_hz', 400_000), ('mels', 1024), ('frames', MAX_FRAMES), ('hop', 1 << 16),
        ('window_length', MAX_TRANSFORM), ('transform_length', MAX_TRANSFORM),
    ):  # fmt: skip
        value = getattr(options, key)
        if not 1 <= value <= high:
            raise ConfigError(f'{name}: {key} is {str(value)[:20]}; give 1 to {high}')
    if options.seconds > MAX_SECONDS:
        raise ConfigError(f'{name}: {options.seconds:.4g} s; at most {MAX_SECONDS:.0f} s')
    if not 0.0 <= options.high_pass_hz < options.rate_hz / 2:
        raise ConfigError(
            f'{name}: high_pass_hz is {options.high_pass_hz}; give 0 to below half the rate_hz'
        )
    if options.window_length > options.transform_length:
        raise ConfigError(f'{name}: window_length is more than transform_length')


@register_kind('sound')
class SoundModality(Modality[SoundOptions]):
    """Raw: a :class:`Waveform`."""

    options_type = SoundOptions

    def __init__(self, spec: ModalitySpec) -> None:
        super().__init__(spec)
        if self.options.window not in ('utterance', 'sliding'):
            raise ConfigError(
                f'{spec.name}: window is "{self.options.window}"; known: utterance, sliding'
            )
        options = self.options
        _check_sizes(spec.name, options)
        self._filters = mel_filters(options.mels, options.transform_length, options.rate_hz)
        passed = high_pass(options.transform_length, options.rate_hz, options.high_pass_hz)
        self._spectrum = MelSpectrum(
            self._filters * passed**2, options.window_length, options.transform_length, options.hop
        )

    @property
    def shape(self) -> tuple[int, int]:
        """``(mels, frames)``."""
        return self.options.mels, self.options.frames

    def to_model(self, raw: Waveform) -> Array:
        """Mel spectrogram in dB below its peak, scaled to 0..1: ``float32[mels, frames]``."""
        options = self.options
        samples = require_finite(raw.samples, 'sound')
        if samples.ndim != 1 or not 0 < len(samples) <= MAX_SECONDS * raw.rate_hz:
            raise InvalidInput(f'sound must be mono and up to {MAX_SECONDS:.0f} s long')
        samples = resample(samples, raw.rate_hz, options.rate_hz)
        if options.window == 'utterance':
            if options.high_pass_hz:
                samples = without_lows(samples, options.rate_hz, options.high_pass_hz)
            samples = trim_silence(samples, options.rate_hz, options.silence_db)
        length = options.frames * options.hop
        samples = samples[-length:] if options.window == 'sliding' else samples[:length]
        samples = np.pad(samples, (0, length - len(samples)))
        if not np.abs(samples).max() > 1e-6:
            raise InvalidInput('sound is silent')
        power = self._spectrum.power(samples, raw.stream, raw.start)
        decibel = 10.0 * np.log10(np.maximum(power, 1e-12))
        scaled = 1.0 + (decibel - decibel.max()) / options.range_db
        return np.asarray(np.clip(scaled, 0.0, 1.0), np.float32)

    def from_model(self, array: Array) -> Waveform:
        """Waveform whose mel spectrogram is the array (Griffin-Lim), peak 0.8."""
        options = self.options
        power = 10.0 ** ((np.asarray(array, np.float64) - 1.0) * options.range_db / 10.0)
        power[np.asarray(array) <= 0.0] = 0.0
        magnitude = np.sqrt(spread_mel(power, self._filters)).T
        samples = griffin_lim(
            magnitude, options.window_length, options.transform_length, options.hop
        )
        samples *= 0.8 / max(float(np.abs(samples).max()), 1e-9)
        return Waveform(samples.astype(np.float32), options.rate_hz)

    def draw(self, array: Array, side: int) -> NDArray[Any]:
        """The spectrogram, low tones below."""
        levels = np.clip(array[::-1] * 255.0, 0, 255).astype(np.uint8)
        enlarged = cv2.resize(levels, (side, side), interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.applyColorMap(enlarged, cv2.COLORMAP_VIRIDIS))

    def trace(self, raw: Waveform) -> Trace:
        """All samples; digital zeros are a fault whatever the other sensors do."""
        if not raw.samples.any():
            return Trace(b'', SILENT, alone=True)
        return Trace(raw.samples.tobytes(), FROZEN)

    def find_fault(self, raw: Waveform, array: Array, thresholds: Thresholds) -> Fault | None:
        """Find samples that are cut off at full scale."""
        clipped = float((np.abs(raw.samples) >= FULL_SCALE).mean())
        if clipped <= thresholds.max_clipped:
            return None
        return Fault(CLIPPED, f'clipped: {clipped:.0%} of the samples are at full scale')

    def new_window(self) -> Window:
        """A window that finds utterances, or keeps the last seconds."""
        options = self.options
        if options.window == 'sliding':
            return SlidingSoundWindow(options.frames * options.hop, options.hop, options.rate_hz)
        return UtteranceWindow(options.seconds, options.pause_s, options.silence_db)
