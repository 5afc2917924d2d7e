"""The folder that a demonstration leaves: summary.json, mosaic.png, index.html."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
<p>$about Recordings: $recordings. Bundle: <code>$bundle</code>.</p>
<p><strong>$verdict</strong> $rate latents per second; from a sensor's stamp to the latent
$latency.</p>
<h2>Targets</h2>
<table><tr><th>figure</th><th>measured</th><th>target</th><th></th></tr>
$targets
</table>
<h2>One sensor out</h2>
<table><tr><th>missing</th>$judged<th>published</th><th>ticks scored</th></tr>
$singles
</table>
$overall
<h2>What it looked like</h2>
<p class="dim">One moment of every phase; grey frames: the sensor, blue frames: generated.</p>
$mosaic
<h2>All phases</h2>
<table><tr><th>out</th><th>generated</th>$judged<th>published</th><th>node says</th>
<th>ticks scored</th></tr>
$phases
</table>
<p class="dim">Scored are ticks in which all that the node used is of one recording; a failure
counts from when the node no longer uses the sensor's last value. $when</p>
</body>
</html>
""")


@dataclass(frozen=True)
class Form:
    """
    What a page says about figures of one sort.

    :param about: what happened, as HTML.
    :param headings: of the columns that the judge fills.
    :param cells: of these columns, from the figures of a modality.
    :param overall: table over all phases, as HTML, from the summary.
    """

    about: str
    headings: tuple[str, ...]
    cells: Callable[[Mapping[str, Any]], tuple[str, ...]]
    overall: Callable[[Mapping[str, Any]], str]


def write_report(
    folder: Path,
    summary: Mapping[str, Any],
    picture: np.ndarray,
    curves: np.ndarray | None = None,
) -> None:
    """
    Write the report.

    :param summary: as :meth:`mm_perception.lab.demo.run.Demo.run` gives it.
    :param picture: ``uint8[H, W, 3]``, BGR.
    :param curves: errors over time, likewise, if there are any.
    :raises DataError: if the folder cannot be written.
    """
    pictures = {'mosaic': picture} | ({} if curves is None else {'errors': curves})
    files = {name: cv2.imencode('.png', p)[1].tobytes() for name, p in pictures.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, png in files.items():
            (folder / f'{name}.png').write_bytes(png)
        (folder / 'summary.json').write_text(json.dumps(summary, indent=1) + '\n')
        (folder / 'index.html').write_text(render_page(summary, files), encoding='utf-8')
    except OSError as error:
        raise DataError(f'{folder}: cannot be written ({error.strerror}); see --out') from error


def render_page(summary: Mapping[str, Any], files: Mapping[str, bytes]) -> str:
    """Write the page, with the pictures in it."""
    latency, form = summary['latency_ms'], FORMS[summary['judged_by']]
    return PAGE.substitute(
        verdict='Every target was met.' if summary['ok'] else 'Not every target was met.',
        about=form.about,
        judged=''.join(f'<th>{heading}</th>' for heading in form.headings),
        overall=form.overall(summary) + _image(files, 'errors', 'errors over time'),
        recordings=html.escape(summary['recordings']),
        bundle=html.escape(summary['bundle']),
        rate=_number(summary['latent_rate_hz']),
        latency=f'{latency["p50"]} ms (median), {latency["p99"]} ms (p99)' if latency else '-',
        targets='\n'.join(_target_row(target) for target in summary['targets']),
        singles='\n'.join(
            _row(name, *form.cells(s), _percent(s['published_fraction']), s['n'])
            for name, s in summary['one_sensor_out'].items()
        ),
        mosaic=_image(files, 'mosaic', 'observed beside generated, a row per phase'),
        phases='\n'.join(_phase_rows(phase, form) for phase in summary['phases']),
        when=html.escape(f'{summary["seconds"]} s, {summary["started"]}.'),
    )  # fmt: skip


def _target_row(target: Mapping[str, Any]) -> str:
    met = target['met']
    limit = f'at least {_number(target["at_least"])}'
    if 'at_most' in target:
        limit += f', at most {_number(target["at_most"])}'
    verdict = f'<span class="{"met" if met else "missed"}">{"met" if met else "missed"}</span>'
    return _row(html.escape(target['name']), _number(target['value']), limit, verdict)


def _image(files: Mapping[str, bytes], name: str, alt: str) -> str:
    if name not in files:
        return ''
    return (
        f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(files[name]).decode()}">'
    )


def _phase_rows(phase: Mapping[str, Any], form: Form) -> str:
    if not phase['missing']:
        empty = [''] * (len(form.headings) + 2)
        return _row('nothing', f'{phase["latents"]} latents', *empty)
    rows = []
    for k, (name, s) in enumerate(phase['modalities'].items()):
        out = ' + '.join(phase['missing']) if k == 0 else ''
        published = _percent(s['published_fraction'])
        rows.append(_row(out, name, *form.cells(s), published, s['state'] or '-', s['n']))
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


def _errors_by_age(summary: Mapping[str, Any]) -> str:
    by_age = summary['errors_by_age']
    ages = [_age(entry) for entry in next(iter(by_age.values()), [])]
    rows = [_row(name, *(_pair(entry) for entry in found)) for name, found in by_age.items()]
    heads = ''.join(f'<th>{age}</th>' for age in ages)
    return (
        '<h2>Error of what was filled in / of holding, by the age of the last value</h2>\n'
        f'<table><tr><th>missing</th>{heads}</tr>\n' + '\n'.join(rows) + '\n</table>\n'
    )


def _age(entry: Mapping[str, Any]) -> str:
    if entry['to_s'] is None:
        return f'over {entry["from_s"]:g} s'
    return f'{entry["from_s"]:g} to {entry["to_s"]:g} s'


def _pair(entry: Mapping[str, Any]) -> str:
    return '-' if entry['error'] is None else f'{entry["error"]:.3g} / {entry["hold"]:.3g}'


FELL_SILENT = """They fell silent one after the other, in pairs and in threes. From whatever
was left, the node <code>cmi</code> kept publishing one latent and generated what the silent
sensors would have shown"""
FORMS = {
    'labels': Form(
        f"""A camera, a microphone, a pen tablet and a labeller watched digits being written and
spoken. {FELL_SILENT}; independent classifiers read what it generated.""",
        ('shows the true digit', 'digits'),
        lambda scores: (_bar(scores['coherence']), str(scores['digits'])),
        lambda summary: '',
    ),
    'errors': Form(
        f"""The sensors of a robot gave what was recorded while it moved. {FELL_SILENT}. Beside
each error (RMS, in the sensor's unit; of an image, in grey levels of 255) stands that of holding
the sensor's last value.""",
        ('our error', 'error of hold'),
        lambda scores: (_number(scores['error']), _number(scores['hold'])),
        _errors_by_age,
    ),
}
"""Sort of figures -> what the page says about them."""
