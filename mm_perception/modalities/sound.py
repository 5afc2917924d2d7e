"""Sound: waveform to mel spectrogram and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mm_perception.errors import ConfigError, InvalidInput
from mm_perception.modalities.base import Modality, Window, register_kind, require_finite
from mm_perception.modalities.mel import MelSpectrum, griffin_lim, mel_filters, spread_mel
from mm_perception.modalities.quality import CLIPPED, FROZEN, SILENT, Fault, Thresholds, Trace
from mm_perception.modalities.raw import Array, Waveform
from mm_perception.modalities.resampling import resample
from mm_perception.modalities.sliding_sound import SlidingSoundWindow
from mm_perception.modalities.utterance import UtteranceWindow, trim_silence
from mm_perception.spec import ModalitySpec

MAX_SECONDS = 60.0
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

    @property
    def seconds(self) -> float:
        """Length of the spectrogram in seconds."""
        return self.frames * self.hop / self.rate_hz


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
        self._filters = mel_filters(options.mels, options.transform_length, options.rate_hz)
        self._spectrum = MelSpectrum(
            self._filters, options.window_length, options.transform_length, options.hop
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
            samples = trim_silence(samples, options.rate_hz, options.silence_db)
        length = options.frames * options.hop
        samples = samples[-length:] if options.window == 'sliding' else samples[:length]
        samples = np.pad(samples, (0, length - len(samples)))
        if not np.abs(samples).max() > 1e-6:
            raise InvalidInput('sound is silent')
        power = self._spectrum.power(samples, raw.stream, raw.start)
        decibel = 10.0 * np.log10(np.maximum(power, 1e-12))
        scaled = 1.0 + (decibel - decibel.max()) / options.range_db
        return np.clip(scaled, 0.0, 1.0).astype(np.float32)

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
