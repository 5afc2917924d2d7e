"""The report folder."""

import json

import cv2
import numpy as np
import pytest

from mm_perception.errors import DataError
from mm_perception.lab.demo.report import write_report

SCORES = {'published_fraction': 1.0, 'coherence': None, 'state': None, 'n': 0, 'digits': 0}
ERRORS = {
    'published_fraction': 1.0,
    'error': None,
    'hold': None,
    'ticks': 0,
    'state': None,
    'n': 0,
}
SUMMARY = {
    'ok': False,
    'bundle': 'latent/<odd>@01234567',
    'recordings': 'those of the bundle',
    'judged_by': 'labels',
    'latent_rate_hz': 9.99,
    'latency_ms': None,
    'one_sensor_out': {'image': {**SCORES, 'coherence': 0.975, 'n': 40}},
    'targets': [
        {'name': 'coherence of image', 'value': 0.975, 'at_least': 0.95, 'met': True},
        {'name': 'rate', 'value': None, 'at_least': 9.5, 'at_most': 10.5, 'met': False},
    ],
    'phases': [
        {'missing': [], 'latents': 30, 'modalities': {}},
        {'missing': ['image', 'sound'], 'modalities': {'image': SCORES, 'sound': SCORES}},
    ],
    'seconds': 80.0,
    'started': '2024-01-01T00:00:00+00:00',
}
PICTURE = np.full((40, 60, 3), 200, np.uint8)


def test_report_holds_everything_in_one_folder(tmp_path):
    write_report(tmp_path / 'report', SUMMARY, PICTURE)
    assert json.loads((tmp_path / 'report' / 'summary.json').read_text()) == SUMMARY
    assert cv2.imread(str(tmp_path / 'report' / 'mosaic.png')).shape == PICTURE.shape
    page = (tmp_path / 'report' / 'index.html').read_text()
    assert 'Not every target was met' in page
    assert '97.5%' in page
    assert '&lt;odd&gt;' in page
    assert 'src="data:image/png;base64,' in page
    assert 'http' not in page  # nothing is loaded from elsewhere


def test_report_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(DataError, match='cannot be written'):
        write_report(tmp_path / 'file' / 'report', SUMMARY, PICTURE)


def test_report_of_errors_has_those_of_holding_beside_them(tmp_path):
    arm = {**ERRORS, 'error': 0.0625, 'hold': 0.375, 'n': 40, 'ticks': 40}
    ages = [
        {'from_s': 0.0, 'to_s': 1.0, 'error': 0.125, 'hold': 0.25, 'ticks': 3},
        {'from_s': 1.0, 'to_s': None, 'error': None, 'hold': None, 'ticks': 0},
    ]
    summary = {
        **SUMMARY,
        'judged_by': 'errors',
        'one_sensor_out': {'arm': arm},
        'errors_by_age': {'arm': ages},
        'phases': [
            {'missing': [], 'latents': 30, 'modalities': {}},
            {'missing': ['arm', 'hand'], 'modalities': {'arm': arm, 'hand': ERRORS}},
        ],
    }
    write_report(tmp_path, summary, PICTURE, curves=PICTURE[:20])
    page = (tmp_path / 'index.html').read_text()
    assert page.count('<td>0.0625</td><td>0.375</td>') == 2
    assert '<td>arm</td><td>0.125 / 0.25</td><td>-</td>' in page
    assert '<th>0 to 1 s</th><th>over 1 s</th>' in page
    assert page.count('src="data:image/png;base64,') == 2
    assert cv2.imread(str(tmp_path / 'errors.png')).shape == (20, 60, 3)
