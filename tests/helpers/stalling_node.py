"""
The node with ticks that can be stopped in many ways; a program for test_watchdog.py.

The file that STALL names says how, from the moment on at which it is there.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from mm_perception.fusion import loading
from mm_perception.fusion.perception import Perception
from mm_perception.ros import cmi_node

FILE = Path(os.environ['STALL'])
LONG_S = 1000.0
hung: list[Any] = []


class StallingPerception(Perception):
    """Does in a tick what the file says."""

    def tick(self, *args: Any, **options: Any) -> Any:
        """Stall, or tick."""
        how = FILE.read_text() if FILE.exists() else ''
        if how == 'hang once' and not hung:
            hung.append(self)
            time.sleep(LONG_S)
        if how == 'hang':
            time.sleep(LONG_S)
        if how == 'raise':
            raise ZeroDivisionError('on purpose')
        if how == 'end of the thread':
            raise SystemExit
        if how == 'interpreter held':
            ctypes.PyDLL(None).sleep(int(LONG_S))
        if how == 'lock':
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()
        return super().tick(*args, **options)


class StallingNode(cmi_node.CmiNode):
    """Blocks its executor where the file says so."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.create_timer(0.1, self._block)

    def _block(self) -> None:
        how = FILE.read_text() if FILE.exists() else ''
        if how == 'executor':
            time.sleep(LONG_S)
        if how == 'lock of the inputs' and not hung:
            hung.append(self)
            threading.Thread(target=self._hold, daemon=True).start()

    def _hold(self) -> None:
        with self._inputs.lock:
            time.sleep(LONG_S)


if __name__ == '__main__':
    loading.Perception = cmi_node.Perception = StallingPerception
    cmi_node.CmiNode = StallingNode
    sys.exit(cmi_node.main())
