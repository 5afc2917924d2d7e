"""What a demonstration asks of whoever tells how good the values are that the model fills in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.text import Text

from mm_perception.lab.demo.log import Log, Phase, Showing, Tick

Figures = Mapping[str, Any]
TicksOf = Mapping[Phase, Sequence[Tick]]


@dataclass(frozen=True)
class Criterion:
    """A figure and what it has to reach."""

    name: str
    value: float | None
    at_least: float
    at_most: float = float('inf')

    @property
    def met(self) -> bool:
        """Whether it is reached; not if it could not be measured."""
        return self.value is not None and self.at_least <= self.value <= self.at_most

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        limits = {'at_least': self.at_least}
        if self.at_most != float('inf'):
            limits['at_most'] = self.at_most
        return {'name': self.name, 'value': self.value, **limits, 'met': self.met}


class Judge(ABC):
    """Compares what was filled in with what the sensor that is out would have given."""

    kind: str
    columns: tuple[str, str]  # of the live table
    legend: str  # of the remarks in a picture
    knows_truth: bool

    @abstractmethod
    def read(self, log: Log) -> None:
        """Read what was generated and not read yet."""

    @abstractmethod
    def on_show(self, showing: Showing) -> str:
        """What is on show, in a word or two."""

    @abstractmethod
    def live(self, name: str, log: Log, now_ns: int) -> tuple[Text, Text]:
        """What the live table says of a modality now."""

    @abstractmethod
    def figures(self, name: str, ticks: Sequence[Tick]) -> dict[str, Any]:
        """Judge ticks in which a modality took no part and was generated."""

    @abstractmethod
    def criteria(self, name: str, figures: Figures) -> list[Criterion]:
        """What has to be reached while a modality alone is out."""

    @abstractmethod
    def sentence(self, name: str, figures: Figures) -> str:
        """Figures of a phase in some words."""

    @abstractmethod
    def remark(self, name: str, tick: Tick) -> tuple[str, bool]:
        """What to write on a picture of what was generated, may be empty; whether it is good."""

    @abstractmethod
    def truth(self, name: str, tick: Tick) -> np.ndarray | None:
        """Model array of what the sensor would have given; None if that cannot be known."""

    @abstractmethod
    def moments(self, ticks: Sequence[Tick]) -> list[Tick]:
        """Those of the settled ticks of a phase that a moving picture shows."""

    @abstractmethod
    def overall(self, ticks: TicksOf) -> dict[str, Any]:
        """Figures over all phases, for the summary."""
