"""
Run the node for a long time beside sensors that fail and recover at random, and watch it.

    python -m checks.soak --seconds 1800 --json soak.json

Two processes, `cmi_node` and `replay_node`; the replay breaks its sensors by a random schedule
(`--seed` repeats it), up to three at once. Exit code 0 only if no exception is in the logs, the
node's memory is flat, latents came at the rate, and `~/status` named every fault within its
detection time, and its end.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String

from mm_perception.bundle import load_bundle
from mm_perception.lab.harness.client import RosClient
from mm_perception.lab.harness.processes import NodeProcess, isolate
from mm_perception.ros.codecs import filled_type, input_codec
from mm_perception.ros.qos import latched_qos

RATE_HZ = 10.0
TICK_S = 1.0 / RATE_HZ
QUIET_S, MARGIN_S, AFTER_STALL_S = 10.0, 0.5, 2.0
MEMORY_PERIOD_S = 1.0
WARM_UP = 1 / 3
GROWTH, RATE_ERROR = 0.01, 0.02
# In the first minutes much happens for the first time: a short run may grow by this, but once.
SHORT_S, FIRST_TIMES_MIB = 600.0, 16.0
TOGETHER = 3
# Seconds between complete values; a spoken digit is complete after its pause, and the digit
# that a fault interrupts does not count.
PERIOD_S = {'image': 0.04, 'trajectory': 0.4, 'sound': 1.6, 'symbol': 0.3}
# From the first broken message on.
LIMIT_S = {'black': 1.0, 'nan': 0.0, 'frozen': 1.0}
FAULTS = {
    'image': ('silent', 'frozen', 'black', 'nan'),
    'sound': ('silent', 'frozen', 'black', 'nan'),
    'trajectory': ('silent', 'black', 'nan'),
    'symbol': ('silent', 'black', 'nan'),
}


@dataclass(frozen=True)
class Injected:
    """
    One fault of one sensor.

    :param within_s: seconds after its start by which the status must say so.
    :param back_s: seconds after its end by which the sensor must be in use again.
    """

    sensor: str
    fault: str
    start_s: float
    duration_s: float
    within_s: float
    back_s: float

    @property
    def state(self) -> str:
        """What the status must call it."""
        return 'stale' if self.fault == 'silent' else 'rejected'

    @property
    def end_s(self) -> float:
        """When the sensor works again."""
        return self.start_s + self.duration_s


def plan(seconds: float, seed: int, max_age_s: dict[str, float]) -> list[Injected]:
    """Draw faults at random, every sensor's apart from each other, at most three at once."""
    rng = random.Random(seed)
    planned: list[Injected] = []
    free_s = dict.fromkeys(FAULTS, QUIET_S)
    now_s = QUIET_S
    while True:
        now_s += rng.uniform(0.3, 3.0)
        sensor = rng.choice(list(FAULTS))
        fault = rng.choice(FAULTS[sensor])
        limit_s = LIMIT_S.get(fault, max_age_s[sensor])
        within_s = limit_s + PERIOD_S[sensor] + TICK_S + MARGIN_S
        duration_s = within_s + rng.uniform(0.5, 4.0)
        back_s = PERIOD_S[sensor] + TICK_S + MARGIN_S
        if now_s + duration_s + back_s > seconds - 1.0:
            return planned
        others = [p for p in planned if p.end_s + p.back_s > now_s]
        if now_s >= free_s[sensor] and len(others) < TOGETHER:
            planned.append(Injected(sensor, fault, now_s, duration_s, within_s, back_s))
            free_s[sensor] = now_s + duration_s + back_s + rng.uniform(3.0, 10.0)


def schedule_json(planned: Sequence[Injected]) -> str:
    """Write faults as the schedule of the replay node."""
    return json.dumps(
        [
            {
                'sensor': fault.sensor,
                'start_s': round(fault.start_s, 2),
                'duration_s': round(fault.duration_s, 2),
                'fault': fault.fault,
            }
            for fault in planned
        ]
    )


STALL_S = 0.35  # this process wakes every 0.05 s


class Watcher(RosClient):
    """
    Notes when latents came, and when the state of a sensor changed.

    Times are in seconds from the start of the replay's schedule.

    :param domain_id: ROS domain of the nodes.
    :param names: of the sensors, which are of kinds of the same names.
    """

    step_s = 0.05

    def __init__(self, domain_id: int, names: Sequence[str]) -> None:
        super().__init__('soak', domain_id)
        self.start_s: float | None = None
        self.latents_s: list[float] = []
        self._stalls_s: list[tuple[float, float]] = []
        self._awake_s = 0.0
        self._changes: dict[str, list[tuple[float, str]]] = {name: [] for name in names}
        self.subscribe(String, 'replay/truth', self._take_truth, latched_qos())
        self.subscribe(PointCloud2, 'latent', self._take_latent)
        self.subscribe(DiagnosticArray, 'cmi/status', self._take_status)
        for name in names:
            # So that all of them are generated while they are missing.
            kind = filled_type(name, input_codec(name))
            self.subscribe(kind, f'filled/{name}', lambda message: None, 5)

    def elapsed_s(self) -> float:
        """Time since the schedule began; negative before."""
        return -1.0 if self.start_s is None else time.time() - self.start_s

    def step(self) -> None:
        """Take what has come; note for how long this process stood still before."""
        now_s = self.elapsed_s()
        if now_s - self._awake_s > STALL_S:
            self._stalls_s.append((self._awake_s, now_s))
        self._awake_s = now_s
        super().step()

    def first(self, name: str, begin_s: float, end_s: float, state: str) -> float | None:
        """When a sensor first had a state within a time; None if it had not."""
        changes = self._changes[name]
        position = max(bisect_left(changes, (begin_s, '')) - 1, 0)
        for change_s, to_state in changes[position:]:
            if change_s > end_s:
                return None
            if to_state == state:
                return max(change_s, begin_s)
        return None

    def stalled_s(self, begin_s: float, end_s: float) -> float:
        """For how long of a time this process stood still too, and so the machine."""
        cut = ((max(a_s, begin_s), min(b_s, end_s)) for a_s, b_s in self._stalls_s)
        return sum(max(b_s - a_s, 0.0) for a_s, b_s in cut)

    def latent_rate_hz(self, begin_s: float, end_s: float) -> float:
        """Latents per second within a time."""
        first, last = (bisect_left(self.latents_s, at_s) for at_s in (begin_s, end_s))
        return (last - first) / (end_s - begin_s)

    def _take_truth(self, message: String) -> None:
        self.start_s = json.loads(message.data)['schedule_start_ns'] * 1e-9

    def _take_latent(self, message: PointCloud2) -> None:
        self.latents_s.append(self.elapsed_s())

    def _take_status(self, message: DiagnosticArray) -> None:
        now_s = self.elapsed_s()
        for entry in message.status:
            state = next(value.value for value in entry.values if value.key == 'state')
            changes = self._changes[entry.name]
            if not changes or changes[-1][1] != state:
                changes.append((now_s, state))


def soak(seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Run the nodes and watch them; what goes into the JSON file."""
    bundle = load_bundle('mhd')
    planned = plan(seconds, seed, {m.name: m.max_age_s for m in bundle.spec.modalities})
    domain = isolate()
    cmi = NodeProcess('cmi_node', folder / 'cmi.log', {'autostart': True, 'rate_hz': RATE_HZ})
    schedule = {'seed': seed, 'wait_for_subscribers': True, 'schedule': schedule_json(planned)}
    replay = NodeProcess('replay_node', folder / 'replay.log', schedule)
    watcher = Watcher(domain, list(FAULTS))
    memory_mib: list[float] = []
    codes: list[int] = []
    try:
        watcher.expect(lambda: watcher.start_s is not None, replay, 'the nodes did not start')
        next_memory_s = 0.0
        while (now_s := watcher.elapsed_s()) < seconds:
            watcher.step()
            if now_s >= next_memory_s:
                next_memory_s += MEMORY_PERIOD_S
                memory_mib.append(cmi.resident_bytes() / 2**20)
    finally:
        codes = [process.stop() for process in (cmi, replay)]
        watcher.close()
    lines = (cmi.log + replay.log).splitlines()
    exceptions = [line for line in lines if 'Traceback' in line or 'defect' in line]
    return judge(seconds, planned, watcher, memory_mib, exceptions, codes)


def compare(
    planned: Sequence[Injected], watcher: Watcher
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """
    Find out which faults were noticed in time.

    While the machine stands still nothing can be reported; a node that does is no excuse.

    :returns: times until faults were reported, those that were not, and late recoveries.
    """
    missed, late_back = [], []
    found_s: dict[str, list[float]] = defaultdict(list)
    for fault in planned:
        seen_s = watcher.first(fault.sensor, fault.start_s, fault.end_s, fault.state)
        stalled_s = watcher.stalled_s(fault.start_s, fault.end_s)
        if seen_s is None or seen_s - fault.start_s > fault.within_s + stalled_s:
            missed.append({**asdict(fault), 'seen_s': seen_s})
        else:
            found_s[f'{fault.sensor} {fault.fault}'].append(seen_s - fault.start_s)
        limit_s = fault.end_s + fault.back_s
        limit_s += watcher.stalled_s(fault.end_s, limit_s + AFTER_STALL_S)
        if watcher.first(fault.sensor, fault.end_s, limit_s, 'ok') is None:
            late_back.append(asdict(fault))
    detection_s = {
        name: {'n': len(s), 'p50': round(statistics.median(s), 2), 'max': round(max(s), 2)}
        for name, s in sorted(found_s.items())
    }
    return detection_s, missed, late_back


def memory_over_time(memory_mib: Sequence[float], seconds: float) -> tuple[dict[str, Any], bool]:
    """Figures of the memory, and whether it was flat."""
    warm = memory_mib[int(len(memory_mib) * WARM_UP) :]
    part = max(len(warm) // 5, 1)
    before_mib, after_mib = statistics.median(warm[:part]), statistics.median(warm[-part:])
    growth = after_mib / before_mib - 1.0
    figures = {
        'memory_mib': {'after_warm_up': round(before_mib, 1), 'end': round(after_mib, 1)},
        'memory_series_mib': [
            round(value) for value in memory_mib[:: max(len(memory_mib) // 30, 1)]
        ],
        'memory_growth_percent': round(100.0 * growth, 2),
    }
    first_times = seconds < SHORT_S and after_mib - before_mib < FIRST_TIMES_MIB
    return figures, growth < GROWTH or first_times


def judge(
    seconds: float,
    planned: Sequence[Injected],
    watcher: Watcher,
    memory_mib: Sequence[float],
    exceptions: list[str],
    codes: list[int],
) -> dict[str, Any]:
    """Compare what was seen with what was injected; what goes into the JSON file."""
    faults, missed, late_back = compare(planned, watcher)
    memory, flat = memory_over_time(memory_mib, seconds)
    rate_hz = watcher.latent_rate_hz(QUIET_S, seconds)
    checks = {
        'no exception': not exceptions and codes == [0, 0],
        'memory flat': flat,
        'latents at rate': abs(rate_hz / RATE_HZ - 1.0) <= RATE_ERROR,
        'every fault reported': not missed,
        'every recovery in time': not late_back,
    }
    return {
        'seconds': seconds,
        'faults': len(planned),
        'latent_rate_hz': round(rate_hz, 3),
        'latents': len(watcher.latents_s),
        'stalled_s': round(watcher.stalled_s(QUIET_S, seconds), 2),
        **memory,
        'exceptions': exceptions[:10],
        'missed': missed,
        'late_back': late_back,
        'detection_s': faults,
        'checks': checks,
        'ok': all(checks.values()),
    }


def main(args: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--seconds', type=float, default=1800.0)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', type=Path, help='file for the result')
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory() as folder:
        result = soak(options.seconds, options.seed, Path(folder))
    result['seed'] = options.seed
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + '\n')
    for name, value in result.items():
        if name not in ('detection_s', 'checks'):
            print(f'{name:24} {value}')
    for name, figures in result['detection_s'].items():
        print(f'  {name:22} {figures["n"]:4} times, found after {figures["p50"]} s (median),'
              f' {figures["max"]} s (longest)')  # fmt: skip
    for name, met in result['checks'].items():
        print(f'{"ok  " if met else "FAIL"} {name}')
    return 0 if result['ok'] else 1


if __name__ == '__main__':
    sys.exit(main())
