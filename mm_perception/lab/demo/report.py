"""The folder that a demonstration leaves: summary.json, mosaic.png, index.html."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np

from mm_perception.errors import DataError

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>mm_perception demo: $verdict</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th { text-align: left; border-bottom: 2px solid #999; padding: .25rem .6rem; }
td { border-bottom: 1px solid #ddd; padding: .25rem .6rem; vertical-align: middle; }
.bar { display: inline-block; width: 9rem; height: .8rem; background: #eee; }
.bar i { display: block; height: 100%; background: #146ec8; }
.met { color: #17692b; } .missed { color: #b3261e; font-weight: bold; }
.dim { color: #666; } img { max-width: 100%; border: 1px solid #ddd; }
</style>
</head>
<body>
<h1>Sensors fail, the model fills them in</h1>
<p>A camera, a microphone, a pen tablet and a labeller watched digits being written and spoken.
They fell silent one after the other, in pairs and in threes. From whatever was left, the node
<code>cmi</code> kept publishing one latent and generated what the silent sensors would have
shown; independent classifiers read what it generated. Recordings: $recordings. Bundle:
<code>$bundle</code>.</p>
<p><strong>$verdict</strong> $rate latents per second; from a sensor's stamp to the latent
$latency.</p>
<h2>Targets</h2>
<table><tr><th>figure</th><th>measured</th><th>target</th><th></th></tr>
$targets
</table>
<h2>One sensor out</h2>
<table><tr><th>missing</th><th>what was generated shows the true digit</th><th>published</th>
<th>ticks scored</th><th>digits</th></tr>
$singles
</table>
<h2>What it looked like</h2>
<p class="dim">One moment of every phase; grey frames: the sensor, blue frames: generated.</p>
<img alt="observed beside generated, a row per phase" src="data:image/png;base64,$mosaic">
<h2>All phases</h2>
<table><tr><th>out</th><th>generated</th><th>shows the true digit</th><th>published</th>
<th>node says</th><th>ticks scored</th></tr>
$phases
</table>
<p class="dim">Scored are ticks in which all that the node used shows one digit; a failure counts
from when the node no longer uses the sensor's last value. $when</p>
</body>
</html>
""")


def write_report(folder: Path, summary: Mapping[str, Any], picture: np.ndarray) -> None:
    """
    Write the report.

    :param summary: as :meth:`mm_perception.lab.demo.run.Demo.run` gives it.
    :param picture: ``uint8[H, W, 3]``, BGR.
    :raises DataError: if the folder cannot be written.
    """
    png = cv2.imencode('.png', picture)[1].tobytes()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'mosaic.png').write_bytes(png)
        (folder / 'summary.json').write_text(json.dumps(summary, indent=1) + '\n')
        (folder / 'index.html').write_text(render_page(summary, png), encoding='utf-8')
    except OSError as error:
        raise DataError(f'{folder}: cannot be written ({error.strerror}); see --out') from error


def render_page(summary: Mapping[str, Any], png: bytes) -> str:
    """Write the page, with the picture in it."""
    latency = summary['latency_ms']
    return PAGE.substitute(
        verdict='Every target was met.' if summary['ok'] else 'Not every target was met.',
        recordings=html.escape(summary['recordings']),
        bundle=html.escape(summary['bundle']),
        rate=_number(summary['latent_rate_hz']),
        latency=f'{latency["p50"]} ms (median), {latency["p99"]} ms (p99)' if latency else '-',
        targets='\n'.join(_target_row(target) for target in summary['targets']),
        singles='\n'.join(
            _row(name, _bar(s['coherence']), _percent(s['published_fraction']), s['n'],
                 s['digits'])
            for name, s in summary['one_sensor_out'].items()
        ),
        mosaic=base64.b64encode(png).decode(),
        phases='\n'.join(_phase_rows(phase) for phase in summary['phases']),
        when=html.escape(f'{summary["seconds"]} s, {summary["started"]}.'),
    )  # fmt: skip


def _target_row(target: Mapping[str, Any]) -> str:
    met = target['met']
    limit = f'at least {_number(target["at_least"])}'
    if 'at_most' in target:
        limit += f', at most {_number(target["at_most"])}'
    verdict = f'<span class="{"met" if met else "missed"}">{"met" if met else "missed"}</span>'
    return _row(html.escape(target['name']), _number(target['value']), limit, verdict)


def _phase_rows(phase: Mapping[str, Any]) -> str:
    if not phase['missing']:
        return _row('nothing', '', f'{phase["latents"]} latents', '', '', '')
    rows = []
    for k, (name, s) in enumerate(phase['modalities'].items()):
        out = ' + '.join(phase['missing']) if k == 0 else ''
        published = _percent(s['published_fraction'])
        rows.append(_row(out, name, _bar(s['coherence']), published, s['state'] or '-', s['n']))
    return '\n'.join(rows)


def _row(*cells: Any) -> str:
    return '<tr>' + ''.join(f'<td>{cell}</td>' for cell in cells) + '</tr>'


def _bar(share: float | None) -> str:
    if share is None:
        return '-'
    return f'<span class="bar"><i style="width:{share:.1%}"></i></span> {share:.1%}'


def _percent(share: float | None) -> str:
    return '-' if share is None else f'{share:.1%}'


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.4g}'
