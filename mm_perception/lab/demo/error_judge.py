"""Episodes of a robot: the error of what was filled in, beside that of the last value held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.text import Text

from mm_perception.errors import InvalidInput
from mm_perception.lab.demo.judge import Criterion, Figures, Judge, TicksOf
from mm_perception.lab.demo.log import Log, Received, Showing, Status, Tick
from mm_perception.lab.demo.observer import read_received
from mm_perception.lab.replay.episodes import Episodes
from mm_perception.modalities import Modality

AGES_S = (0.0, 0.5, 1.0, 2.0, 5.0, float('inf'))
MOMENTS = 10  # the last second of a phase, at ten ticks a second


@dataclass(frozen=True)
class Errors:
    """
    Errors of one modality in one tick, each the RMS over its elements, in the sensor's unit.

    :param age_s: since the sensor's last value.
    :param ours: of what was filled in.
    :param hold: of the sensor's last value.
    """

    age_s: float
    ours: float
    hold: float


class ErrorJudge(Judge):
    """
    Knows from the recording what a sensor that is out would have given.

    :param recorded: what is played.
    :param modalities: of the bundle.
    :param log: what was received.
    """

    kind = 'errors'
    columns = ('our error', 'error of hold')
    legend = 'pale: what the sensor would have given.  below: our error / that of hold'
    knows_truth = True

    def __init__(
        self, recorded: Episodes, modalities: Mapping[str, Modality[Any]], log: Log
    ) -> None:
        self._tracks = {episode.label: episode.tracks for episode in recorded.episodes}
        self._modalities = modalities
        self._log = log

    def read(self, log: Log) -> None:
        """Nothing to do: errors are found when they are asked for."""

    def on_show(self, showing: Showing) -> str:
        """The episode."""
        return f'episode {showing.label}'

    def live(self, name: str, log: Log, now_ns: int) -> tuple[Text, Text]:
        """Errors of the newest message while the sensor is out."""
        status, entries = log.statuses[-1], log.filled[name]
        found = None
        if name not in status.used and entries:
            found = self._errors(name, entries[-1], entries[-1].receipt_ns, status)
        if found is None:
            return Text(''), Text('')
        better = found.ours <= found.hold
        return Text(f'{found.ours:.3g}', 'green' if better else 'red'), Text(f'{found.hold:.3g}')

    def errors(self, name: str, tick: Tick) -> Errors | None:
        """Errors of a modality that is out; None if nothing was filled in, or ever given."""
        entry = tick.filled.get(name)
        if entry is None:
            return None
        return self._errors(name, entry, tick.status.tick_ns, tick.status)

    def elapsed_s(self, tick: Tick) -> float:
        """When a tick was, since the schedule began."""
        return self._log.elapsed_s(tick.status.tick_ns)

    def figures(self, name: str, ticks: Sequence[Tick]) -> dict[str, Any]:
        """RMS over ticks."""
        return _rms(self._all(name, ticks))

    def criteria(self, name: str, figures: Figures) -> list[Criterion]:
        """Filling in has to be worth it."""
        ours, hold = figures['error'], figures['hold']
        ratio = round(ours / hold, 4) if ours is not None and hold else None
        return [Criterion(f'error of {name} / hold', ratio, 0.0, 1.0)]

    def sentence(self, name: str, figures: Figures) -> str:
        """Both errors."""
        if figures['error'] is None:
            return f'{name} not measured'
        return f'{name} {figures["error"]:.3g} (hold {figures["hold"]:.3g})'

    def remark(self, name: str, tick: Tick) -> tuple[str, bool]:
        """Both errors."""
        found = self.errors(name, tick)
        if found is None:
            return '', True
        return f'{found.ours:.2g} / {found.hold:.2g}', found.ours <= found.hold

    def truth(self, name: str, tick: Tick) -> np.ndarray | None:
        """As recorded."""
        return self._recorded(name, tick.status.tick_ns)

    def moments(self, ticks: Sequence[Tick]) -> list[Tick]:
        """The last second, as it was."""
        return list(ticks[-MOMENTS:])

    def overall(self, ticks: TicksOf) -> dict[str, Any]:
        """RMS by age of the sensor's last value, over all phases in which it is out."""
        by_age: dict[str, list[dict[str, Any]]] = {}
        for name in self._modalities:
            out = [t for p, found in ticks.items() if name in p.missing for t in found]
            errors = self._all(name, [tick for tick in out if name not in tick.status.used])
            by_age[name] = [
                {'from_s': low, 'to_s': None if high == AGES_S[-1] else high}
                | _rms([e for e in errors if low <= e.age_s < high])
                for low, high in zip(AGES_S, AGES_S[1:])
            ]
        return {'errors_by_age': by_age}

    def _all(self, name: str, ticks: Sequence[Tick]) -> list[Errors]:
        found = (self.errors(name, tick) for tick in ticks)
        return [errors for errors in found if errors is not None]

    def _errors(self, name: str, entry: Received, time_ns: int, status: Status) -> Errors | None:
        if name not in status.ages_ms:
            return None
        data_ns, modality = status.data_ns(name), self._modalities[name]
        truth, before = self._recorded(name, time_ns), self._recorded(name, data_ns)
        try:
            filled = read_received(modality, entry)
        except InvalidInput:
            return None
        if truth is None or before is None:
            return None
        unit = [np.asarray(modality.from_model(a), float) for a in (filled, truth, before)]
        ours, hold = (float(np.sqrt(np.mean((a - unit[1]) ** 2))) for a in (unit[0], unit[2]))
        return Errors((time_ns - data_ns) * 1e-9, ours, hold)

    def _recorded(self, name: str, time_ns: int) -> np.ndarray | None:
        """Model array of what a sensor gave at a time."""
        showing = self._log.showing_at(time_ns)
        if showing is None or showing.label not in self._tracks:
            return None
        raw = self._tracks[showing.label][name].at((time_ns - showing.start_ns) * 1e-9)
        return np.asarray(self._modalities[name].to_model(raw))


def _rms(errors: Sequence[Errors]) -> dict[str, Any]:
    if not errors:
        return {'error': None, 'hold': None, 'ticks': 0}
    ours, hold = (
        round(float(np.sqrt(np.mean(np.square([getattr(e, name) for e in errors])))), 5)
        for name in ('ours', 'hold')
    )
    return {'error': ours, 'hold': hold, 'ticks': len(errors)}
