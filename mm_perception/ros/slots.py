"""The input side: from messages to the newest complete value of a modality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mm_perception.errors import InvalidInput
from mm_perception.modalities import Modality, Stamped
from mm_perception.ros.codecs import InputCodec
from mm_perception.ros.synchronizer import SimpleFilter


@dataclass(frozen=True)
class Reading:
    """
    What the input of one modality says now.

    :param value: newest complete value, or None.
    :param refused: why the last message was refused; empty if it was not.
    """

    value: Stamped | None
    refused: str = ''


class InputSlot(SimpleFilter):
    """
    A filter from messages to readings: decodes, gathers in the modality's window.

    Its output changes when a value becomes complete, and when messages begin or cease to be
    refused. Not thread-safe: it lives in the executor's thread.

    :param now_ns: the node's clock.
    :param report: called with the reason of each refused message, and with the exception if
        the reason is a defect of ours.
    """

    def __init__(
        self,
        modality: Modality[Any],
        codec: InputCodec,
        now_ns: Callable[[], int],
        report: Callable[[str, Exception | None], None],
    ) -> None:
        super().__init__()
        self.received = 0
        self.rejected = 0
        self._codec = codec
        self._now_ns = now_ns
        self._report = report
        self._reading = Reading(None)
        self.adopt(modality)

    def connectInput(self, f: SimpleFilter) -> None:
        """Take messages from a filter."""
        self.incoming_connection = f.registerCallback(self.add)

    def adopt(self, modality: Modality[Any]) -> None:
        """Prepare for another configuration of the modality; what was gathered is lost."""
        self._modality = modality
        self._window = modality.new_window()

    def add(self, message: Any) -> None:
        """Take a message; it never raises."""
        self.received += 1
        refused, defect = '', None
        try:
            raw, stamp_ns = self._codec.decode(message, self._now_ns(), self._modality)
            self._window.push(raw, stamp_ns)
        except InvalidInput as error:
            refused = str(error)
        except Exception as error:  # noqa: BLE001 - a message must not stop the node
            refused, defect = f'cannot be read: {error!r}', error
        if refused:
            self.rejected += 1
            self._report(refused, defect)
        self._settle(refused)

    def advance(self) -> None:
        """Let time pass, for values that only silence completes."""
        self._window.advance(self._now_ns())
        self._settle(self._reading.refused)

    def clear(self) -> None:
        """Forget everything."""
        self._window.clear()
        self._settle('')

    def _settle(self, refused: str) -> None:
        value = self._window.latest
        if value is not self._reading.value or refused != self._reading.refused:
            self._reading = Reading(value, refused)
            self.signalMessage(self._reading)
