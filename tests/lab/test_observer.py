"""The observer of the demonstration."""

import sys
import threading
import time

import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed')

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.node import Node

from mm_perception.lab.demo.observer import Observer
from mm_perception.lab.harness.processes import free_domain

TIMES = 40
FLOOD_S = 0.0001


@pytest.fixture
def failed_threads(monkeypatch):
    """Threads change often, so that a race is lost often; those that fail are gathered."""
    failed = []
    monkeypatch.setattr(threading, 'excepthook', failed.append)
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield failed
    sys.setswitchinterval(before_s)


@pytest.fixture
def flooded():
    """Domain in which a status comes as fast as it can."""
    domain_id, done, context = free_domain(), threading.Event(), Context()
    rclpy.init(context=context, domain_id=domain_id)
    publisher = Node('talker', context=context).create_publisher(DiagnosticArray, 'cmi/status', 10)

    def flood():
        while not done.wait(FLOOD_S):
            publisher.publish(DiagnosticArray())

    talker = threading.Thread(target=flood)
    talker.start()
    yield domain_id
    done.set()
    talker.join()
    rclpy.shutdown(context=context)


def test_an_observer_that_leaves_under_load_fails_nothing(flooded, failed_threads):
    for _ in range(TIMES):
        observer = Observer({}, flooded)
        end_s = time.monotonic() + 20
        while not observer.log.statuses and time.monotonic() < end_s:
            time.sleep(0.01)
        assert observer.log.statuses, 'no status came'
        observer.close()
    assert not failed_threads
