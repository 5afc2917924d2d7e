import shutil

import numpy as np
import pytest

from mm_perception.errors import DataError, MissingDependency
from mm_perception.lab.digits import speech as voices
from mm_perception.lab.digits.speech import (
    FSDD_FOLDER,
    add_noise,
    change_speed,
    read_fsdd,
    read_wav,
    split_utterances,
    write_wav,
)
from mm_perception.modalities import Waveform

needs_programs = pytest.mark.skipif(
    not (shutil.which('espeak-ng') and shutil.which('flite')),
    reason='espeak-ng or flite is not installed',
)


def test_fsdd_splits_share_no_recording_and_hold_a_speaker_out(raw_root):
    splits = split_utterances(read_fsdd(raw_root))
    assert {name: len(part) for name, part in splits.items()} == {
        'train': 40, 'validation': 20, 'test': 40, 'test_speaker': 50,
    }  # fmt: skip
    assert {u.speaker for u in splits['test_speaker']} == {'fsdd-zoe'}
    assert {u.speaker for u in splits['train']} == {'fsdd-anna', 'fsdd-bert'}
    assert {u.index for u in splits['train']} == {5, 6}
    assert {u.index for u in splits['validation']} == {45}
    assert {u.speaker for u in splits['validation']} == {'fsdd-anna', 'fsdd-bert'}
    assert {u.index for u in splits['test']} == {0, 1}


def test_fsdd_reads_all_of_the_real_recordings(real_root):
    splits = split_utterances(read_fsdd(real_root))
    sizes = [len(splits[s]) for s in ('train', 'validation', 'test', 'test_speaker')]
    assert sizes == [2000, 250, 250, 500]
    assert {u.waveform.rate_hz for u in splits['train']} == {8000}
    assert {u.speaker for u in splits['test_speaker']} == {'fsdd-yweweler'}


def test_fsdd_missing_folder_and_odd_name_are_one_line(tmp_path):
    with pytest.raises(DataError, match='--data'):
        read_fsdd(tmp_path)
    (tmp_path / FSDD_FOLDER).mkdir(parents=True)
    (tmp_path / FSDD_FOLDER / 'readme.wav').write_bytes(b'')
    with pytest.raises(DataError, match='expected a name like'):
        read_fsdd(tmp_path)


def test_wav_round_trip(tmp_path):
    samples = np.sin(np.arange(400) / 7).astype(np.float32) * 0.5
    write_wav(tmp_path / 'a.wav', Waveform(samples, 8000))
    back = read_wav(tmp_path / 'a.wav')
    assert back.rate_hz == 8000
    np.testing.assert_allclose(back.samples, samples, atol=1e-4)


@pytest.mark.parametrize('content', [b'', b'RIFF', b'no sound at all, not a bit of it'])
def test_wav_broken_file_is_one_line(tmp_path, content):
    (tmp_path / 'a.wav').write_bytes(content)
    with pytest.raises(DataError, match=r'a\.wav: no readable WAV') as error:
        read_wav(tmp_path / 'a.wav')
    assert '\n' not in str(error.value)


def test_change_speed_moves_length_and_pitch():
    tone = Waveform(np.sin(2 * np.pi * 440 * np.arange(8000) / 8000).astype(np.float32), 8000)
    fast = change_speed(tone, 11)
    assert len(fast.samples) == pytest.approx(8000 / 1.1, abs=2)
    spectrum = np.abs(np.fft.rfft(fast.samples, 8000))
    assert np.argmax(spectrum) == pytest.approx(484, abs=3)


def test_add_noise_has_the_wanted_level():
    tone = Waveform(np.sin(np.arange(8000)).astype(np.float32), 8000)
    noise = add_noise(tone, 20.0, np.random.default_rng(0)).samples - tone.samples
    assert 10 * np.log10((tone.samples**2).mean() / (noise**2).mean()) == pytest.approx(
        20, abs=0.5
    )


def test_sample_voices_differ_from_the_training_voices():
    training, validation = voices.training_voices(), voices.validation_voices()
    samples = voices.sample_voices()
    keys = [voice.key for voice in (*training, *validation, *samples)]
    assert len(set(keys)) == len(keys)
    assert {v.speaker for v in samples} == {v.speaker for v in (*training, *validation)}


def test_validation_voices_share_no_speaker_with_training():
    training = {v.speaker for v in voices.training_voices()}
    validation = {v.speaker for v in voices.validation_voices()}
    assert not training & validation and len(training) == 53
    assert {s for s in validation if s.startswith('flite')} == {'flite-rms', 'flite-slt'}
    accents = {s.split('+')[0] for s in validation if s.startswith('espeak')}
    assert len(accents) == 6 and len(validation) == 8


@needs_programs
def test_every_speaker_has_a_voice_of_its_own(tmp_path):
    everyone = (*voices.training_voices(), *voices.validation_voices())
    one_each = {voice.speaker: voice for voice in everyone}.values()
    spoken = voices.speak_digits([(v, 7) for v in one_each], tmp_path, progress=False)
    assert len({u.waveform.samples.tobytes() for u in spoken}) == len(one_each) == 61


@needs_programs
def test_speak_digits_gives_speech_and_keeps_it(tmp_path):
    training = voices.training_voices()
    requests = [(training[0], 7), (training[-1], 3)]
    first = voices.speak_digits(requests, tmp_path, progress=False)
    assert [u.label for u in first] == ['7', '3']
    for utterance in first:
        assert utterance.waveform.rate_hz == 8000
        assert 0.2 < utterance.waveform.seconds < 1.5
        assert np.abs(utterance.waveform.samples).max() == pytest.approx(0.7, abs=0.01)
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == 2
    voices.speak_digits(requests, tmp_path, progress=False)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files


def test_speak_digits_without_the_program_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(MissingDependency, match='apt-get install espeak-ng flite'):
        voices.speak_digits([(voices.training_voices()[0], 1)], tmp_path, progress=False)
