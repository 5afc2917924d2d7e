"""The demonstration's nodes as processes."""

import socket
import time

import pytest

from mm_perception.lab.harness import processes
from mm_perception.lab.harness.processes import DemoFailed, NodeProcess, free_domain

pytest.importorskip('rclpy', reason='rclpy is not installed')


def test_free_domain_avoids_domains_in_use(monkeypatch):
    monkeypatch.setattr(processes, 'DOMAINS', range(44, 46))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(('', 7400 + 250 * 44))
        assert free_domain() == 45
        monkeypatch.setattr(processes, 'DOMAINS', range(44, 45))
        with pytest.raises(DemoFailed, match='no free ROS domain'):
            free_domain()


def test_node_that_fails_is_quoted():
    node = NodeProcess('replay_node', {'recordings': "/no'where", 'seed': 1})
    end_s = time.monotonic() + 30
    with pytest.raises(DemoFailed, match=r"exit code 1.*/no'where/recordings.json"):
        while time.monotonic() < end_s:
            node.check()
            time.sleep(0.05)
    node.stop()
