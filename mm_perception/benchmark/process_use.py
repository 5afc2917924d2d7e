"""What a running process takes of the machine, from ``/proc``."""

from __future__ import annotations

import os
import time
from pathlib import Path

TICKS_PER_S = os.sysconf('SC_CLK_TCK')
UTIME, STIME = 11, 12  # fields of /proc/PID/stat after the name, in parentheses


class ProcessUse:
    """
    CPU time since it was made, and memory now.

    :param pid: of the process.
    """

    def __init__(self, pid: int) -> None:
        self._folder = Path('/proc') / str(pid)
        self._begin_s, self._cpu_begin_s = time.monotonic(), self._cpu_s()

    def cpu_percent(self) -> float:
        """CPU time of all threads over time on the clock, in % of one core."""
        elapsed_s = time.monotonic() - self._begin_s
        return 100.0 * (self._cpu_s() - self._cpu_begin_s) / elapsed_s

    def resident_mb(self) -> float:
        """Resident memory (10^6 bytes)."""
        for line in (self._folder / 'status').read_text().splitlines():
            if line.startswith('VmRSS:'):
                return int(line.split()[1]) * 1024e-6
        return 0.0

    def _cpu_s(self) -> float:
        fields = (self._folder / 'stat').read_text().rpartition(')')[2].split()
        return (int(fields[UTIME]) + int(fields[STIME])) / TICKS_PER_S
