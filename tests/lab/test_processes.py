"""The demonstration's nodes as processes."""

import socket
import time

import pytest

from mm_perception.errors import UNUSABLE
from mm_perception.lab.harness import processes
from mm_perception.lab.harness.processes import NodeFailed, NodeProcess, free_domain

pytest.importorskip('rclpy', reason='rclpy is not installed')


def test_free_domain_avoids_domains_in_use(monkeypatch):
    monkeypatch.setattr(processes, 'DOMAINS', range(44, 46))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(('', 7400 + 250 * 44))
        assert free_domain() == 45
        monkeypatch.setattr(processes, 'DOMAINS', range(44, 45))
        with pytest.raises(NodeFailed, match='no free ROS domain'):
            free_domain()


def test_node_that_fails_is_quoted(tmp_path):
    node = NodeProcess('replay_node', tmp_path / 'log', {'recordings': "/no'where", 'seed': 1})
    end_s = time.monotonic() + 30
    with pytest.raises(NodeFailed, match=r"exit code 78.*/no'where/recordings.json"):
        while time.monotonic() < end_s:
            node.check()
            time.sleep(0.05)
    assert node.stop() == UNUSABLE


def test_node_tells_its_memory_and_its_work(tmp_path):
    pytest.importorskip('psutil', reason='psutil is not installed')
    block = "import time; block = b'x' * 100_000_000; print('made', flush=True)\n"
    program = ['-c', f'{block}while True: sum(range(10_000))']
    node = NodeProcess('replay_node', tmp_path / 'log', program=program)
    try:
        end_s = time.monotonic() + 30
        while 'made' not in node.log and time.monotonic() < end_s:
            time.sleep(0.05)
        assert node.resident_bytes() > 100e6
        node.cpu_percent()
        time.sleep(0.3)
        assert node.cpu_percent() > 5.0
    finally:
        assert node.kill() == -9


def test_client_waits_for_a_node_or_quotes_it(tmp_path, monkeypatch):
    from mm_perception.lab.harness import client

    watcher = client.RosClient('watcher', free_domain())
    program = ['-c', "import time; print('still at it', flush=True); time.sleep(60)"]
    node = NodeProcess('replay_node', tmp_path / 'log', program=program)
    try:
        watcher.expect(lambda: 'at it' in node.log, node, 'nothing')
        monkeypatch.setattr(client, 'START_S', 0.2)
        with pytest.raises(NodeFailed, match='no latent came within 0 s; its log: still at it'):
            watcher.expect(lambda: False, node, 'no latent came')
        node.kill()
        with pytest.raises(NodeFailed, match='replay_node ended with exit code -9'):
            watcher.expect(lambda: True, node, 'no latent came')
    finally:
        node.kill()
        watcher.close()
