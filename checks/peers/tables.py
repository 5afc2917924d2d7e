"""The Markdown of the comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mm_perception.markdown import markdown_table

Result = Mapping[str, Any]
REFERENCE = 'multivae_nexus'


def spread(values: Iterable[float], form: str) -> str:
    """Mean, and standard deviation over the seeds if there are several."""
    numbers = list(values)
    text = format(float(np.mean(numbers)), form)
    return text if len(numbers) == 1 else f'{text} ± {format(float(np.std(numbers)), form)}'


def markdown(report: Mapping[str, Any]) -> str:
    """Two tables: what each model costs, and how well it generates."""
    results: Sequence[Result] = report['results']
    keys = list(dict.fromkeys(result['case'] for result in results))
    groups = {key: [r for r in results if r['case'] == key] for key in keys}
    return '\n'.join([*_head(report), '', *_costs(groups), '', *_quality(groups), ''])


def _head(report: Mapping[str, Any]) -> list[str]:
    settings = report['settings']
    accuracy = ', '.join(f'{n} {100 * v:.1f}' for n, v in report['classifier_accuracy'].items())
    return [
        f'{settings["rows"]:,} training rows, {settings["epochs"]} epochs, batch'
        f' {settings["batch_size"]}, {settings["seeds"]} seed(s), {settings["threads"]} CPU'
        f' thread(s), {settings["test_rows"]:,} test rows, means of all latents.'
        f' Classifiers on the real test rows, %: {accuracy}.',
    ]


def _costs(groups: Mapping[str, Sequence[Result]]) -> list[str]:
    columns = ('training, s', 'CPU, s', 'rows/s', 'against MultiVae Nexus')
    columns += ('parameters', 'latency p50, ms', 'p99, ms')
    lines = [
        [
            group[0]['title'],
            spread((r['seconds'] for r in group), '.1f'),
            spread((r['cpu_seconds'] for r in group), '.1f'),
            spread((r['rows'] * r['epochs'] / r['seconds'] for r in group), '.0f'),
            _times_faster(group, groups.get(REFERENCE, ())),
            f'{group[0]["parameters"] / 1e6:.2f} M',
            spread((r['latency_ms']['p50'] for r in group), '.2f'),
            spread((r['latency_ms']['p99'] for r in group), '.2f'),
        ]
        for group in groups.values()
    ]
    return markdown_table(['model', *columns], lines)


def _times_faster(group: Sequence[Result], reference: Sequence[Result]) -> str:
    seconds = {r['seed']: r['seconds'] for r in reference}
    ratios = [seconds[r['seed']] / r['seconds'] for r in group if r['seed'] in seconds]
    return spread(ratios, '.2f') + ' x' if ratios else ''


def _quality(groups: Mapping[str, Sequence[Result]]) -> list[str]:
    first = next(iter(groups.values()))[0]
    targets, distances = sorted(first['coherence']), sorted(first['frechet'])
    head = [f'{t}, coherence %' for t in targets] + [f'{t}, MFD' for t in distances]
    lines = []
    for group in groups.values():
        cells = [_ends(group, lambda r, t=t: r['coherence'][t], 100, '.1f') for t in targets]
        cells += [_ends(group, lambda r, t=t: r['frechet'][t], 1, '.2f') for t in distances]
        lines.append([group[0]['title'], *cells])
    about = 'Every cell: from 1 / from all 3 other modalities.'
    return [about, '', *markdown_table(['model', *head], lines)]


def _ends(
    group: Sequence[Result],
    read: Callable[[Result], Mapping[str, float]],
    factor: float,
    form: str,
) -> str:
    sizes = sorted(read(group[0]))
    ends = (sizes[0], sizes[-1])
    return ' / '.join(spread((factor * read(r)[size] for r in group), form) for size in ends)
