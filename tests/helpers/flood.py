"""
Sends to every sensor's topic at given rates and never reads what comes back.

A program for test_endurance.py: `flood.py NAMESPACE SECONDS {"image": 300, ...}`.
SIGINT ends it sooner.
"""

from __future__ import annotations

import json
import signal
import sys
import time

from tests.helpers.robot import Robot


def main(namespace: str, seconds: float, rates_hz: dict[str, float]) -> None:
    """Publish what is due until the time is over; print how many messages that were."""
    # It subscribes to the node's results reliably, and nothing takes them out of its queues.
    robot = Robot(namespace)
    time.sleep(1.0)
    begin_s = time.monotonic()
    sent = dict.fromkeys(rates_hz, 0)
    ended: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: ended.append(number))
    while not ended and (elapsed_s := time.monotonic() - begin_s) < seconds:
        behind = {name: elapsed_s * rate_hz - sent[name] for name, rate_hz in rates_hz.items()}
        name = max(behind, key=lambda n: behind[n] / rates_hz[n])
        if behind[name] < 1.0:
            time.sleep(0.0005)
            continue
        robot.send(name)
        sent[name] += 1
    print(json.dumps(sent))
    robot.close()


if __name__ == '__main__':
    main(sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3]))
