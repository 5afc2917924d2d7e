"""What the terminal shows: a live table, or plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mm_perception.lab.demo.log import Digit, Log, Phase, Received, Status, phase_at
from mm_perception.lab.demo.observer import LabelReader
from mm_perception.lab.demo.scores import latency_ms, rate_hz

WINDOW = 50
RECENT_NS = 400_000_000


class Screen:
    """
    Shows how the demonstration goes.

    :param names: modalities.
    :param phases: what is planned.
    """

    def __init__(self, names: Sequence[str], phases: Sequence[Phase], console: Console) -> None:
        self.console = console
        self._names = names
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

    def update(self, log: Log, reader: LabelReader, now_ns: int) -> None:
        """Draw what is known now."""
        if self._live is None or not log.statuses:
            return
        phase = phase_at(self._phases, log.elapsed_s(now_ns))
        digit = log.digit_at(now_ns)
        table = Table(box=None, padding=(0, 2), title=self._title(log, phase, digit, now_ns))
        for heading in ('sensor', 'works', 'node says', 'age', 'sensor shows', 'model fills in'):
            table.add_column(heading, min_width=len(heading))
        status = log.statuses[-1]
        for name in self._names:
            table.add_row(*self._row(name, phase, digit, status, log, reader))
        self._live.update(Group('', table, '', Text(_footer(log), style='dim')), refresh=True)

    def finish_phase(self, scores: Mapping[str, Any]) -> None:
        """Say in a line what a phase gave."""
        if not scores['missing']:
            self.console.print(f'{scores["name"]:34} {scores["latents"]:4} latents')
            return
        parts = [
            f'{name} {_percent(s["coherence"])} right ({_percent(s["published_fraction"])} filled)'
            for name, s in scores['modalities'].items()
        ]
        self.console.print(
            f'{scores["name"]:34} {", ".join(parts)}', highlight=False, soft_wrap=True
        )

    def _title(self, log: Log, phase: Phase | None, digit: Digit | None, now_ns: int) -> Text:
        total_s = self._phases[-1].end_s
        return Text.assemble(
            (phase.name if phase else 'starting', 'bold'),
            f'   digit {digit.label if digit else "?"} is on show',
            (f'   {max(log.elapsed_s(now_ns), 0):.0f} of {total_s:.0f} s', 'dim'),
        )

    def _row(
        self,
        name: str,
        phase: Phase | None,
        digit: Digit | None,
        status: Status,
        log: Log,
        reader: LabelReader,
    ) -> tuple[Text | str, ...]:
        works = phase is None or name not in phase.missing
        used = name in status.used
        state = status.states.get(name, '')
        age_ms = status.ages_ms.get(name)
        return (
            name,
            Text('yes', 'green') if works else Text('OUT', 'bold red'),
            Text(state, 'green' if used else 'yellow'),
            '' if age_ms is None else f'{age_ms / 1e3:.1f} s',
            self._shown(name, log.filled[name], reader, digit) if used else '',
            '' if used else self._shown(name, log.generated[name], reader, digit),
        )

    def _shown(
        self, name: str, entries: list[Received], reader: LabelReader, digit: Digit | None
    ) -> Text:
        """What the newest message of a topic is read as, right or wrong."""
        if not entries:
            return Text('')
        newest = entries[-1]
        reader.read(name, [newest])
        if digit is None or newest.receipt_ns - digit.start_ns < RECENT_NS:
            return Text(newest.shows, 'dim')
        right = newest.shows == digit.label
        return Text(f'{newest.shows} {"right" if right else "wrong"}', 'green' if right else 'red')


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
