"""Filters that a user might put before a sensor; they need no message_filters, as theirs may."""

from __future__ import annotations

from typing import Any

from std_msgs.msg import String


class Corrected:
    """Gives another message for each: a label in words as a digit; fails at one."""

    words = ('zero', 'one', 'two', 'three')

    def __init__(self, source: Any) -> None:
        source.registerCallback(self.take)

    def registerCallback(self, callback: Any, *args: Any) -> None:
        """Name what takes the messages."""
        self._callback, self._args = callback, args

    def take(self, message: String) -> None:
        """Take a message of the sensor."""
        if message.data == 'broken':
            raise RuntimeError('no such word')
        self._callback(String(data=str(self.words.index(message.data))), *self._args)


class EverySecond(Corrected):
    """Holds every second message back."""

    count = 0

    def take(self, message: Any) -> None:
        """Take a message of the sensor."""
        self.count += 1
        if self.count % 2:
            self._callback(message, *self._args)


class NoFilter:
    """Takes an input and gives nothing."""

    def __init__(self, source: Any) -> None:
        pass
