"""message_filters' interface, and a synchroniser that fires with whatever is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

try:
    from message_filters import SimpleFilter, Subscriber
except ImportError:
    # message_filters is not on PyPI: the same interface, as far as this package uses it.
    class SimpleFilter:  # type: ignore[no-redef]
        """Something with output that callbacks can be registered for."""

        def __init__(self) -> None:
            self.callbacks: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}

        def registerCallback(self, cb: Callable[..., None], *args: Any) -> int:
            """Have ``cb`` called with every output, followed by ``args``."""
            connection = len(self.callbacks)
            self.callbacks[connection] = (cb, args)
            return connection

        def signalMessage(self, *msg: Any) -> None:
            """Hand an output to every callback."""
            for callback, args in list(self.callbacks.values()):
                callback(*msg, *args)

    class Subscriber(SimpleFilter):  # type: ignore[no-redef]
        """A subscription as a filter; takes what ``create_subscription`` takes."""

        def __init__(self, node: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__()
            self.node = node
            self.topic = args[1]
            kwargs.setdefault('qos_profile', 10)
            self.sub = node.create_subscription(*args, self.signalMessage, **kwargs)

        def getTopic(self) -> str:
            """Topic as it was given."""
            return str(self.topic)


__all__ = ['PartialSynchronizer', 'SimpleFilter', 'Subscriber']


class PartialSynchronizer(SimpleFilter):
    """
    Calls back with the latest message of every input, None for those that gave none yet.

    Unlike message_filters' synchronisers it never waits for an input, never queues, and calls
    back outside its lock. Whether a message is still fresh is for the callback to judge.

    :param fs: filters, one per input; the callback gets one message of each, in this order.
    :param triggers: inputs (positions in ``fs``) whose arrival fires; others wait for
        the next firing, or for :meth:`fire`.
    """

    def __init__(self, fs: Sequence[Any], triggers: Collection[int] = ()) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._triggers = frozenset(triggers)
        self.connectInput(fs)

    def connectInput(self, fs: Sequence[Any]) -> None:
        """Take messages from these filters."""
        self._latest: list[Any] = [None] * len(fs)
        self.input_connections = [f.registerCallback(self.add, k) for k, f in enumerate(fs)]

    def add(self, msg: Any, index: int) -> None:
        """Keep the message of one input, and fire if that input triggers."""
        with self._lock:
            self._latest[index] = msg
        if index in self._triggers:
            self.fire()

    def fire(self) -> None:
        """Call back with what is there now."""
        with self._lock:
            latest = tuple(self._latest)
        self.signalMessage(*latest)

    def clear(self) -> None:
        """Forget all messages."""
        with self._lock:
            self._latest = [None] * len(self._latest)
