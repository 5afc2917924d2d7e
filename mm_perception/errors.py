"""
Errors that a user can fix.

Every message is one line that says what is wrong, where, and what to do.
"""

from __future__ import annotations

MAX_MESSAGE = 2000


def printable(text: str) -> str:
    """Text of anybody's making for a terminal or a log: nothing in it moves the cursor."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


class MMPerceptionError(Exception):
    """Base of all errors that are the user's to mend; shown without a traceback, in one line."""

    def __str__(self) -> str:
        """Give the message, escaped where it holds what somebody else wrote, and not endless."""
        return printable(super().__str__()[:MAX_MESSAGE])


class ConfigError(MMPerceptionError):
    """A configuration file or parameter is wrong."""


class DataError(MMPerceptionError):
    """A recording, dataset or folder of data is missing, broken or does not fit."""


class InvalidInput(DataError):
    """
    One sensor value cannot be used (wrong shape, not finite, empty).

    :param fault: what is wrong, in one word.
    """

    def __init__(self, message: str, fault: str = 'malformed') -> None:
        super().__init__(message)
        self.fault = fault


class BundleError(MMPerceptionError):
    """A trained bundle is missing, truncated, altered or incompatible."""


class EngineUnavailable(MMPerceptionError):
    """The requested inference device or engine is not on this machine."""


class MissingDependency(MMPerceptionError):
    """An optional program or package is needed for what was asked."""


class ProcessLost(MMPerceptionError):
    """Another process of a training on several has ended or gone silent."""


class NothingObserved(MMPerceptionError):
    """A fusion was asked for with no modality present."""
