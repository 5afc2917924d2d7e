"""Sensors and node on two hosts: network namespaces, or UDP where those are not allowed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = '4'


def test_two_hosts_give_latents_of_compressed_images(tmp_path: Path) -> None:
    figures = tmp_path / 'figures.json'
    command = [sys.executable, 'checks/two_hosts.py', '--compressed', '--seconds', SECONDS]
    done = subprocess.run(
        [*command, '--json', str(figures)], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    row = found['rows']['JPEG']
    assert row['images_with_latent'] > 0.2 * row['sent']['image'], (found, done.stderr)
    assert row['latency_ms']['p50'] < 1000.0
    for topic, sent in row['sent'].items():
        assert sent > 5 and 0 <= row['lost'][topic] < 0.7 * sent, (topic, found)
    assert '| JPEG |' in done.stdout
