import json
import os
import shutil

import numpy as np
import pytest

from mm_perception.bundle import find_bundle, load_bundle
from mm_perception.engines.build import build_engine
from mm_perception.errors import DataError
from mm_perception.fusion.session import InferenceSession
from mm_perception.lab.digits.pen import load_pen_digits, render_stroke
from mm_perception.lab.digits.recordings import (
    Recording,
    load_recordings,
    real_recordings,
    save_recordings,
)
from mm_perception.modalities import Motion, Waveform, build_modality


def recording(label='7'):
    points = np.array([[0, 10], [6, 10], [2, 0]], np.float32)
    stroke = Motion(points, np.array([0.0, 0.1, 0.25], np.float32))
    speech = Waveform(np.linspace(-0.5, 0.5, 200, dtype=np.float32), 8000)
    return Recording(label, stroke, speech, 'made up')


def test_recordings_round_trip(tmp_path):
    save_recordings(tmp_path, [recording('7'), recording('3')])
    back = load_recordings(tmp_path)
    assert [(r.label, r.source) for r in back] == [('7', 'made up'), ('3', 'made up')]
    np.testing.assert_array_equal(back[0].stroke.points, recording().stroke.points)
    np.testing.assert_allclose(back[0].stroke.times_s, [0.0, 0.1, 0.25], atol=1e-4)
    np.testing.assert_allclose(back[0].speech.samples, recording().speech.samples, atol=1e-4)


def test_recordings_missing_or_broken_are_one_line(tmp_path):
    with pytest.raises(DataError, match='cannot be read'):
        load_recordings(tmp_path)
    save_recordings(tmp_path, [recording()])
    file = tmp_path / 'recordings.json'
    content = json.loads(file.read_text())
    file.write_text('{')
    with pytest.raises(DataError, match='broken'):
        load_recordings(tmp_path)
    content['recordings'][0]['stroke'] = 'absent'
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match='do not fit'):
        load_recordings(tmp_path)


def test_real_recordings_come_from_the_split(raw_root):
    recordings = real_recordings(raw_root, per_label=2)
    assert [r.label for r in recordings] == [c for c in '0123456789' for _ in range(2)]
    again = real_recordings(raw_root, per_label=2)
    assert [r.source for r in again] == [r.source for r in recordings]
    assert all('pendigits-tes' in r.source and 'zoe' not in r.source for r in recordings)
    held_out = real_recordings(raw_root, 'test_speaker', per_label=5)
    assert len(held_out) == 50 and all('zoe' in r.source for r in held_out)
    validation = real_recordings(raw_root, 'validation', per_label=1)
    assert all('pendigits-tra-23' in r.source and '_45' in r.source for r in validation)
    assert all('tra-23' not in r.source for r in real_recordings(raw_root, 'train', per_label=4))
    with pytest.raises(DataError, match='no split'):
        real_recordings(raw_root, 'other')


def test_real_recordings_of_the_real_data(real_root):
    recordings = real_recordings(real_root, per_label=3)
    assert len(recordings) == 30
    assert all(len(r.stroke.points) >= 5 and r.speech.rate_hz == 8000 for r in recordings)


@pytest.mark.skipif(
    not (shutil.which('espeak-ng') and shutil.which('flite')),
    reason='espeak-ng or flite is not installed',
)
def test_samples_are_generated_for_every_digit(raw_root, tmp_path):
    from mm_perception.lab.digits.mhd import write_samples

    assert write_samples(raw_root, tmp_path / 'out', per_label=1, progress=False) == 10
    samples = load_recordings(tmp_path / 'out')
    assert [r.label for r in samples] == list('0123456789')
    real = {d.strokes[0].tobytes() for d in load_pen_digits(raw_root)['train']}
    for sample in samples:
        assert sample.stroke.points.tobytes() not in real
        assert sample.source.startswith('generated')
        assert len(sample.stroke.points) >= 20 and 0.2 < sample.speech.seconds < 2.0


def test_recordings_lead_out_of_their_folder_nowhere(tmp_path):
    save_recordings(tmp_path, [recording()])
    file = tmp_path / 'recordings.json'
    for name in ('/etc/passwd', '../speech/0.wav', ''):
        listed = json.loads(file.read_text())
        listed['recordings'][0]['speech'] = name
        file.write_text(json.dumps(listed))
        with pytest.raises(DataError):
            load_recordings(tmp_path)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match='not a regular file'):
        load_recordings(tmp_path)


def test_recordings_of_the_bundle_do_not_contradict_themselves():
    """A sensor that the demo calls inconsistent is one that was made so."""
    bundle = load_bundle('mhd')
    kinds = {spec.name: build_modality(spec) for spec in bundle.spec.modalities}
    recordings = load_recordings(find_bundle('mhd') / 'recordings')
    session = InferenceSession(
        build_engine(bundle, 'cpu'), bundle.spec, bundle.health, len(recordings)
    )
    for k, each in enumerate(recordings):
        seen = {
            'image': render_stroke(each.stroke.points),
            'trajectory': each.stroke,
            'sound': each.speech,
            'symbol': each.label,
        }
        for name, raw in seen.items():
            session.update(name, kinds[name].to_model(raw), k)
    found = session.judge(np.ones((len(recordings), len(kinds)), bool))
    blamed = {
        f'{each.label}, {each.source}: {judgement.contradicted or "doubtful"}'
        for each, judgement in zip(recordings, found, strict=True)
        if judgement.contradicted or judgement.disagree
    }
    assert not blamed
