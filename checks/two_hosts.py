"""
Sensors on one host, the node and a consumer of its latent on another: loss and latency.

    sudo python checks/two_hosts.py --seconds 30 --page docs/distributed.md

The hosts are two network namespaces with a cable (veth) between them, which needs root and
iproute2; where they are not allowed, the processes use UDP on the loopback, shared memory off.
Prints a table, and writes it between the marks of ``--page``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_perception.resources import transport_environment

ROOT = Path(__file__).resolve().parents[1]
SENSORS, ROBOT = 'mmp-sensors', 'mmp-robot'
ADDRESSES = {SENSORS: '10.77.0.1/24', ROBOT: '10.77.0.2/24'}
MARKS = '<!-- two_hosts.py -->', '<!-- end of two_hosts.py -->'
START_S, QUIET_S = 60.0, 3.0
JPEG_QUALITY = 90
RAW, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
SENSOR_NAMES = {'image': 'image', 'audio': 'sound', 'trajectory': 'trajectory', 'symbol': 'symbol'}


@dataclass(frozen=True)
class Link:
    """
    How the two hosts are made.

    :param prefixes: command that puts a process on a host, by its name.
    :param environment: of all processes.
    :param what: in words, for the table.
    """

    prefixes: dict[str, list[str]]
    environment: dict[str, str]
    what: str

    def start(self, host: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start Python on a host."""
        command = [*self.prefixes[host], sys.executable, *arguments]
        return subprocess.Popen(command, env=self.environment, text=True, **options)


def ip(*arguments: str) -> None:
    """Run ``ip``, part of iproute2."""
    subprocess.run(['ip', *arguments], check=True, capture_output=True, text=True)


@contextmanager
def hosts(domain: int) -> Iterator[Link]:
    """Two namespaces that reach each other alone, or this host with UDP."""
    environment = {**os.environ, 'ROS_DOMAIN_ID': str(domain), 'PYTHONPATH': str(ROOT)}
    environment |= {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET', 'OMP_NUM_THREADS': '1'}
    with ExitStack() as undo:
        try:
            connect(undo)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = str(getattr(error, 'stderr', '') or error).strip()
            print(f'no network namespaces here ({reason}); UDP on the loopback', file=sys.stderr)
            udp = {'FASTDDS_BUILTIN_TRANSPORTS': 'UDPv4'}
            yield Link({SENSORS: [], ROBOT: []}, environment | udp, 'UDP on the loopback')
            return
        prefixes = {host: ['ip', 'netns', 'exec', host] for host in ADDRESSES}
        yield Link(prefixes, environment | transport_environment(), 'two network namespaces')


def connect(undo: ExitStack) -> None:
    """Make both namespaces and the cable between them."""
    for host in ADDRESSES:
        subprocess.run(['ip', 'netns', 'del', host], capture_output=True, check=False)
        ip('netns', 'add', host)
        undo.callback(ip, 'netns', 'del', host)
    ip('link', 'add', 'eth0', 'netns', SENSORS, 'type', 'veth', 'peer', 'eth0', 'netns', ROBOT)
    for host, address in ADDRESSES.items():
        ip('-n', host, 'address', 'add', address, 'dev', 'eth0')
        for device in ('lo', 'eth0'):
            ip('-n', host, 'link', 'set', device, 'up')
        ip('-n', host, 'route', 'add', '224.0.0.0/4', 'dev', 'eth0')


def measure(link: Link, bundle: str, compressed: bool, seconds: float) -> dict[str, Any]:
    """Run sensors, node and consumer; what was sent, received and how late."""
    topic, message = ('image/compressed', COMPRESSED) if compressed else ('image', RAW)
    parameters = [f'bundle:={bundle}', 'autostart:=true', 'trigger:=any']
    parameters += [f'modalities.image.topic:={topic}', f'modalities.image.message:={message}']
    flags = [word for parameter in parameters for word in ('-p', parameter)]
    node = link.start(ROBOT, '-m', 'mm_perception.ros.cmi_node', '--ros-args', *flags)
    me = str(Path(__file__).resolve())
    options = ['--seconds', str(seconds), '--bundle', bundle, *['--compressed'] * compressed]
    consumer = link.start(ROBOT, me, '--role', 'consumer', *options, stdout=subprocess.PIPE)
    sensors = link.start(SENSORS, me, '--role', 'sensors', *options, stdout=subprocess.PIPE)
    try:
        limit_s = START_S + seconds + 30.0
        sent = json.loads(sensors.communicate(timeout=limit_s)[0])
        time.sleep(QUIET_S)
        consumer.send_signal(signal.SIGINT)
        received = json.loads(consumer.communicate(timeout=30.0)[0])
    finally:
        for process in (sensors, consumer, node):
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
    return summary(sent, received, seconds)


def summary(sent: dict[str, Any], received: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Loss per sensor, and how long after an image its latent came."""
    import numpy as np

    latents = dict(reversed(received['latents']))  # the first of each stamp
    late_ms = [(latents[s] - at) * 1e-6 for s, at in sent['images'] if s in latents]
    counts = sent['counts']
    return {
        'megabytes_per_s': sent['bytes'] / seconds * 1e-6,
        'sent': counts,
        'lost': {t: counts[t] - received['counts'].get(t, 0) for t in counts},
        'latents': len(latents),
        'images_with_latent': len(late_ms),
        'latency_ms': {f'p{p}': float(np.percentile(late_ms or [np.nan], p)) for p in (50, 99)},
    }


def play(bundle: str, compressed: bool, seconds: float) -> dict[str, Any]:
    """The host of the sensors: play recordings, count what was published."""
    from sensor_msgs.msg import Image

    from mm_perception.bundle import find_bundle
    from mm_perception.lab.digits.recordings import load_recordings
    from mm_perception.lab.replay.playlist import Playlist

    recordings = load_recordings(find_bundle(bundle) / 'recordings')
    client, sensors, publishers = make_publishers(recordings, compressed)
    found: dict[str, Any] = {'counts': dict.fromkeys(publishers, 0), 'images': [], 'bytes': 0}
    playlist = Playlist(recordings, 1.0, 0, time.time_ns())

    def send() -> None:
        """Publish what is due."""
        now_ns = time.time_ns()
        for shown in playlist.until(now_ns):
            for sensor in sensors:
                for message in sensor.due(shown, now_ns, None):
                    if isinstance(message, Image):
                        stamp = message.header.stamp
                        sent_ns = time.time_ns()
                        found['images'].append([stamp.sec * 10**9 + stamp.nanosec, sent_ns])
                        message = as_jpeg(message) if compressed else message
                        found['bytes'] += len(message.data)
                    publishers[sensor.topic].publish(message)
                    found['counts'][sensor.topic] += 1

    client.wait(send, seconds)
    time.sleep(QUIET_S)  # what was sent last is still on its way
    client.close()
    return found


def make_publishers(recordings: Any, compressed: bool) -> tuple[Any, Any, dict[str, Any]]:
    """A client, sensors, and a publisher for each topic; waits until the node listens to all."""
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import CompressedImage

    from mm_perception.lab.harness.client import RosClient
    from mm_perception.lab.replay.sensors import make_sensors

    client, sensors = RosClient('sensors'), make_sensors(recordings)
    client.step_s = 0.002
    qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    create = client.node.create_publisher
    publishers = {s.topic: create(s.message_type, s.topic, qos) for s in sensors}
    if compressed:
        publishers['image'] = create(CompressedImage, 'image/compressed', qos)
    listened = lambda: all(p.get_subscription_count() for p in publishers.values())  # noqa: E731
    if not client.wait(listened, START_S):
        sys.exit(f'the node was not found within {START_S:.0f} s')
    client.run(2.0)  # the others
    return client, sensors, publishers


def as_jpeg(message: Any) -> Any:
    """The same picture as a compressed message."""
    import cv2
    import numpy as np
    from sensor_msgs.msg import CompressedImage

    pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    data = cv2.imencode('.jpg', pixels[:, :, ::-1], options)[1].tobytes()
    return CompressedImage(header=message.header, format='jpeg', data=data)


def consume() -> dict[str, Any]:
    """A consumer beside the node: when each latent came, and what the node says it received."""
    from diagnostic_msgs.msg import DiagnosticArray
    from sensor_msgs.msg import PointCloud2

    from mm_perception.lab.harness.client import RosClient

    found: dict[str, Any] = {'latents': [], 'counts': {}}

    def take_latent(message: PointCloud2) -> None:
        stamp = message.header.stamp
        found['latents'].append([stamp.sec * 10**9 + stamp.nanosec, time.time_ns()])

    def take_diagnostics(message: DiagnosticArray) -> None:
        said = {s.name: {v.key: v.value for v in s.values} for s in message.status}
        for topic, modality in SENSOR_NAMES.items():
            if f'cmi: {modality}' in said:
                found['counts'][topic] = int(said[f'cmi: {modality}']['received'])

    ended: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: ended.append(number))
    client = RosClient('consumer')
    client.subscribe(PointCloud2, 'latent', take_latent, 50)
    client.subscribe(DiagnosticArray, '/diagnostics', take_diagnostics, 10)
    client.wait(lambda: ended, float('inf'))
    client.close()
    return found


def table(found: dict[str, dict[str, Any]], what: str, seconds: float) -> str:
    """The figures as Markdown."""
    lines = [
        f'Over {what}, {seconds:.0f} s each, BEST_EFFORT:',
        '',
        '| images | MB/s | image lost | audio lost | strokes lost | labels lost'
        ' | latency p50 (ms) | p99 (ms) |',
        '|---|---|---|---|---|---|---|---|',
    ]
    for name, row in found.items():
        lost = [f'{row["lost"][t]} of {row["sent"][t]}' for t in SENSOR_NAMES]
        late = [f'{row["latency_ms"][p]:.1f}' for p in ('p50', 'p99')]
        cells = [name, f'{row["megabytes_per_s"]:.1f}', *lost, *late]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def main() -> int:
    """Measure raw and compressed images, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=30.0)
    parser.add_argument('--bundle', default='mhd')
    parser.add_argument('--json', type=Path, help='write the figures to this file')
    parser.add_argument('--page', type=Path, help='write the table between the marks of a page')
    parser.add_argument('--compressed', action='store_true', help='compressed images alone')
    parser.add_argument('--role', choices=('sensors', 'consumer'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        sensors = args.role == 'sensors'
        found = play(args.bundle, args.compressed, args.seconds) if sensors else consume()
        print(json.dumps(found))
        return 0
    kinds = {'JPEG': True} if args.compressed else {'raw rgb8': False, 'JPEG': True}
    with hosts(domain=50 + os.getpid() % 50) as link:
        rows = {k: measure(link, args.bundle, c, args.seconds) for k, c in kinds.items()}
    text = table(rows, link.what, args.seconds)
    print(text)
    if args.json:
        args.json.write_text(json.dumps({'link': link.what, 'rows': rows}, indent=1) + '\n')
    if args.page:
        begin, end = MARKS
        pattern = f'{begin}.*?{end}'
        page = args.page.read_text()
        args.page.write_text(
            re.sub(pattern, lambda _: f'{begin}\n{text}\n{end}', page, flags=re.DOTALL)
        )
    return 0


if __name__ == '__main__':
    sys.exit(main())
