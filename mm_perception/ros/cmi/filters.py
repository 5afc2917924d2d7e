"""Filters of a user's own, between a sensor's subscription and its stream."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from mm_perception.errors import ConfigError, InvalidInput


class Source:
    """First of a chain: what a filter of ``message_filters`` takes as its input."""

    def __init__(self) -> None:
        self._callbacks: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def registerCallback(self, callback: Callable[..., None], *args: Any) -> int:
        """Have a callback called with each message, followed by these arguments."""
        self._callbacks.append((callback, args))
        return len(self._callbacks) - 1

    def signal(self, message: Any) -> None:
        """Hand a message on."""
        for callback, args in self._callbacks:
            callback(message, *args)


def put_in_front(
    names: Sequence[str], receive: Callable[..., None], parameter: str
) -> Callable[..., None]:
    """
    Put filters before what takes a sensor's messages.

    :param names: of classes, ``package.module.Class``, the first nearest to the sensor. Each is
        made with its input, as ``message_filters.Cache`` is, and gives its messages to what
        ``registerCallback`` is called with.
    :param receive: takes a message, or the reason why it was not read.
    :param parameter: where the names come from, for errors.
    :returns: what takes the sensor's messages now, and what the middleware says about them, which
        goes no further: a filter may hold messages back, or make others of them.
    :raises ConfigError: if a class does not exist, or is no filter.
    """
    source = Source()
    end: Any = source
    for name in names:
        end = _make(name, end, parameter)
    end.registerCallback(receive)

    def take(message: Any, info: Any = None) -> None:
        if isinstance(message, InvalidInput):
            receive(message)
            return
        try:
            source.signal(message)
        except Exception as error:  # noqa: BLE001 - a filter must not stop the node
            receive(InvalidInput(f'{parameter} ({", ".join(names)}) failed: {error!r}'))

    return take


def _make(name: str, source: Any, parameter: str) -> Any:
    """Make a filter; anything that its module or its constructor raises is the user's to mend."""
    module, _, kind = name.rpartition('.')
    try:
        made = getattr(importlib.import_module(module), kind)(source)
    except Exception as error:
        raise ConfigError(
            f'{parameter}: {name} cannot be made ({error!r}); name a class, package.module.Class,'
            ' of a package that is installed or sourced, that takes its input alone'
        ) from error
    if not callable(getattr(made, 'registerCallback', None)):
        raise ConfigError(
            f'{parameter}: {name} is no filter: it has no registerCallback; derive it from'
            ' message_filters.SimpleFilter'
        )
    return made
