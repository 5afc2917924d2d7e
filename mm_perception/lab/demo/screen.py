"""What the terminal shows: a live table, or plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mm_perception.lab.demo.judge import Judge
from mm_perception.lab.demo.log import Log, Phase, Showing, phase_at
from mm_perception.lab.demo.scores import latency_ms, rate_hz

WINDOW = 50


class Screen:
    """
    Shows how the demonstration goes.

    :param names: modalities.
    :param phases: what is planned.
    :param judge: tells how good it is.
    """

    def __init__(
        self, names: Sequence[str], phases: Sequence[Phase], judge: Judge, console: Console
    ) -> None:
        self.console = console
        self._names = names
        self._judge = judge
        self._phases = phases
        self._live: Live | None = None

    def __enter__(self) -> Screen:
        """Begin to draw, if there is a terminal."""
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()

    def update(self, log: Log, now_ns: int) -> None:
        """Draw what is known now."""
        if self._live is None or not log.statuses:
            return
        phase = phase_at(self._phases, log.elapsed_s(now_ns))
        showing = log.showing_at(now_ns)
        table = Table(box=None, padding=(0, 2), title=self._title(log, phase, showing, now_ns))
        for heading in ('sensor', 'works', 'node says', 'age', *self._judge.columns):
            table.add_column(heading, min_width=len(heading))
        for name in self._names:
            table.add_row(*self._row(name, phase, log, now_ns))
        self._live.update(Group('', table, '', Text(_footer(log), style='dim')), refresh=True)

    def finish_phase(self, scores: Mapping[str, Any]) -> None:
        """Say in a line what a phase gave."""
        if not scores['missing']:
            self.console.print(f'{scores["name"]:34} {scores["latents"]:4} latents')
            return
        parts = [
            f'{self._judge.sentence(name, s)} ({_percent(s["published_fraction"])} filled)'
            for name, s in scores['modalities'].items()
        ]
        self.console.print(
            f'{scores["name"]:34} {", ".join(parts)}', highlight=False, soft_wrap=True
        )

    def _title(self, log: Log, phase: Phase | None, showing: Showing | None, now_ns: int) -> Text:
        total_s = self._phases[-1].end_s
        return Text.assemble(
            (phase.name if phase else 'starting', 'bold'),
            f'   {self._judge.on_show(showing)} is on show' if showing else '',
            (f'   {max(log.elapsed_s(now_ns), 0):.0f} of {total_s:.0f} s', 'dim'),
        )

    def _row(
        self, name: str, phase: Phase | None, log: Log, now_ns: int
    ) -> tuple[Text | str, ...]:
        status = log.statuses[-1]
        works = phase is None or name not in phase.missing
        age_ms = status.ages_ms.get(name)
        return (
            name,
            Text('yes', 'green') if works else Text('OUT', 'bold red'),
            Text(status.states.get(name, ''), 'green' if name in status.used else 'yellow'),
            '' if age_ms is None else f'{age_ms / 1e3:.1f} s',
            *self._judge.live(name, log, now_ns),
        )


def _footer(log: Log) -> str:
    latents = log.latents[-WINDOW:]
    hz, latency = rate_hz(latents), latency_ms(latents)
    frame = log.model_info.get('frame_id', '')
    parts = [
        frame,
        f'{hz:.1f} latents/s' if hz else 'no latents yet',
        f'latency {latency["p50"]:.0f} ms (p99 {latency["p99"]:.0f} ms)' if latency else '',
    ]
    return '   '.join(filter(None, parts))


def _percent(share: float | None) -> str:
    return '  - ' if share is None else f'{share:4.0%}'
