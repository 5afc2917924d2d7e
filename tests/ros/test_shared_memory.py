"""What killed processes leave in Fast DDS's shared memory does not stop those that come after."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mm_perception.bundle import Bundle
from mm_perception.resources import OFF, REPAIR
from mm_perception.ros.shared_memory import SEGMENTS, clean_up
from tests.helpers.robot import NodeProcess, Robot

# Where Fast DDS 2.14 and 3.2 have these in a port: SharedMemGlobal.hpp, struct PortNode.
PORT_ID, FLAGS, LISTENER = 276, 300, 20888
WAIT_S = 15.0
IN_USE = 1  # and neither waiting nor processing


def start_reader() -> subprocess.Popen[str]:
    """A process with a node that sleeps."""
    program = (
        'import rclpy, time; rclpy.init(); node = rclpy.create_node("reader");'
        'print(flush=True); time.sleep(60)'
    )
    reader = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    reader.stdout.readline()
    return reader


def owned_by(process: subprocess.Popen[str]) -> set[Path]:
    """Segments and ports that a process owns: it holds their locks, which lie beside them."""
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s:
        links = Path(f'/proc/{process.pid}/fd').iterdir()
        locks = {Path(os.readlink(link)) for link in links if link.is_symlink()}
        locks = {lock for lock in locks if lock.parent == SEGMENTS and lock.name.endswith('_el')}
        owned = {lock.with_name(lock.name.removesuffix('_el')) for lock in locks}
        if owned and all(path.exists() for path in owned):
            return owned
        time.sleep(0.1)  # on a busy machine Fast DDS now and then makes a port anew
    raise AssertionError(f'process {process.pid}: ports come and go')


def ports(owned: set[Path]) -> set[Path]:
    """Those that are ports of this version's layout."""
    found = {path for path in owned if re.match('(fastrtps|fastdds)_port', path.name)}
    for path in found:
        number = struct.unpack_from('<I', path.read_bytes(), PORT_ID)[0]
        assert path.name.endswith(f'_port{number}'), 'another layout than those tested'
    return found


def is_ok(port: Path) -> bool:
    """Whether writers take a port for sound."""
    return bool(port.read_bytes()[FLAGS] & 1)


def test_clean_up_concerns_what_killed_processes_left_and_nothing_else() -> None:
    killed, alive = start_reader(), start_reader()
    try:
        orphans, kept = owned_by(killed), owned_by(alive)
        assert ports(orphans) and ports(kept), 'ports of both'
        assert orphans > ports(orphans) and kept > ports(kept), 'segments of both'
        alive.send_signal(signal.SIGSTOP)  # it too would notice, in a second or two
        killed.kill()
        killed.wait()
        for path in orphans | kept:
            os.utime(path.with_name(f'{path.name}_el'), (0, 0))
        assert clean_up() >= len(orphans)
        assert not any(path.exists() for path in orphans - ports(orphans))
        assert not any(is_ok(port) for port in ports(orphans))
        assert all(path.exists() for path in kept)
        assert all(is_ok(port) for port in ports(kept))
    finally:
        for reader in (killed, alive):
            reader.kill()
            reader.wait()


def test_clean_up_leaves_a_layout_that_it_does_not_know(tmp_path: Path) -> None:
    for name, content in {
        'fastrtps_port7411': b'',
        'fastrtps_port7412': b'port_node_abi5' + bytes(4096),
        'fastdds_port7413': b'port_node_abi6'.ljust(40)
        + struct.pack('<7I', 7413, 1, 3, 1, 2, 0, 7),
        'fastdds_portx': b'port_node_abi5',
    }.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / f'{name}_el').touch()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert clean_up(tmp_path) == 0
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def known_port(number: int) -> bytes:
    """A port as Fast DDS writes it, that is sound."""
    return b'port_node_abi5'.ljust(40) + struct.pack('<7I', number, 1, 3, 1, 2, 0, 7) + bytes(64)


def test_clean_up_is_neither_held_up_nor_misled_by_what_others_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, victim = tmp_path / 'shm', tmp_path / 'victim'
    shared.mkdir()
    victim.write_bytes(known_port(1))
    os.mkfifo(shared / 'fastrtps_port7_el')
    (shared / 'fastrtps_port7').touch()
    for number in (1, 2, 3, 4):
        (shared / f'fastrtps_port{number}_el').touch()
    (shared / 'fastrtps_port1').symlink_to(victim)
    os.mkfifo(shared / 'fastrtps_port2')
    with (shared / 'fastrtps_port3').open('wb') as sparse:
        sparse.write(known_port(3))
        sparse.truncate(1 << 42)
    (shared / 'fastrtps_port4').write_bytes(known_port(4))
    (shared / 'fastrtps_5_el').symlink_to(victim)
    begin_s = time.monotonic()
    assert clean_up(shared) == 1, 'the one that is a port of ours'
    assert time.monotonic() - begin_s < 1.0
    assert victim.read_bytes() == known_port(1)
    (shared / 'fastrtps_port4').write_bytes(known_port(4))
    monkeypatch.setattr('mm_perception.ros.shared_memory.prefixes', lambda: [tmp_path])
    (tmp_path / 'lib').mkdir()
    for library in ('libfastdds.so.3.9.0', 'libfastdds.so', 'libfastcdr.so.2.14.0'):
        (tmp_path / 'lib' / library).touch()
        assert clean_up(shared) == 0, 'another version of Fast DDS'
    monkeypatch.undo()
    monkeypatch.setenv(REPAIR, OFF)
    assert clean_up(shared) == 0, 'switched off'
    monkeypatch.undo()
    monkeypatch.setattr('os.getuid', lambda: 12345)
    assert clean_up(shared) == 0, "another user's"


def test_a_node_killed_while_it_took_a_message_is_back_with_data(
    bundle: Bundle, start: Callable[..., NodeProcess], robot: Robot
) -> None:
    """The moment is brief: Fast DDS's marks of waiting and processing are both off."""
    node = start(f'bundle:={bundle.path}', 'autostart:=true')
    robot.live = {'symbol'}
    robot.fresh('latent', timeout_s=40.0)
    owned = ports(owned_by(node.process))
    assert owned
    node.kill()
    for port in owned:
        with port.open('r+b') as file:
            file.seek(LISTENER)
            assert file.read(1)[0] & IN_USE
            file.seek(LISTENER)
            file.write(bytes([IN_USE]))
    robot.run(3.0)  # Fast DDS looks every second whether readers are alive; this it does not see
    start(f'bundle:={bundle.path}', 'autostart:=true')
    robot.fresh('latent', timeout_s=20.0)
