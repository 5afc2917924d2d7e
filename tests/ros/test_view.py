"""The page in a browser's place: a websocket that sees the node, and takes a sensor away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip('aiohttp', reason='aiohttp is not installed')

import aiohttp
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import Image
from std_msgs.msg import Float32MultiArray

from mm_perception.bundle import Bundle
from mm_perception.errors import ConfigError
from mm_perception.lab.harness.processes import NodeProcess
from mm_perception.ros.view.server import MAX_WATCHERS, Server
from tests.helpers.chromium import Page
from tests.helpers.robot import SENSORS, Robot

SEEN_WITHIN_S = 1.0


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on a free port that takes no wishes."""
    server = Server('127.0.0.1', 0, '', lambda *wish: None)
    yield server
    server.stop()


async def answer(port: int, path: str = '/', **headers: str) -> tuple[int, str]:
    """Status and text of a request."""
    address = f'http://127.0.0.1:{port}{path}'
    async with aiohttp.request('GET', address, headers=headers) as response:
        return response.status, await response.text()


def asked(*arguments: Any, **headers: str) -> tuple[int, str]:
    """The same, from a test that is no coroutine."""
    return asyncio.run(answer(*arguments, **headers))


def test_page_comes_whole_and_loads_nothing_from_elsewhere(server: Server):
    begun_s = time.monotonic()
    status, page = asked(server.port)
    assert status == 200 and time.monotonic() - begun_s < SEEN_WITHIN_S
    assert '<title>mm_perception</title>' in page
    assert not re.findall(r'(?:src|href)\s*=\s*"', page)


def test_strangers_are_refused(server: Server):
    """Names that point here, pages of others, and everybody else without the token."""
    assert asked(server.port, Host='evil.example')[0] == 403
    assert asked(server.port, '/live', Origin='http://evil.example')[0] == 403
    assert asked(server.port, Host=f'localhost:{server.port}')[0] == 200
    with pytest.raises(ConfigError, match='set token as well'):
        Server('0.0.0.0', 0, '', lambda *wish: None)
    with pytest.raises(ConfigError, match='set another port'):
        Server('127.0.0.1', server.port, '', lambda *wish: None)
    secret = Server('0.0.0.0', 0, 'a-secret', lambda *wish: None)
    try:
        assert asked(secret.port)[0] == 403
        assert asked(secret.port, '/?token=a-guess')[0] == 403
        assert asked(secret.port, '/?token=a-secret', Host='robot.example')[0] == 200
    finally:
        secret.stop()


STRANGE = (
    b'Host: [',
    b'Host: localhost\r\nOrigin: http://[',
    b'Host: localhost\r\nOrigin: null',
    b'Host: localhost\r\nHost: evil.example',
    b'Host: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked',
    b'Host: localhost' + b'\r\na: b' * 100_000,
    b'Host: localhost\r\n' + b'a' * 100_000,
)


@pytest.mark.parametrize('head', STRANGE)
def test_strange_requests_are_refused_without_a_word(
    server: Server, head: bytes, capfd: pytest.CaptureFixture[str]
):
    with socket.create_connection(('127.0.0.1', server.port), 5.0) as stranger:
        with contextlib.suppress(ConnectionError):  # refused before all was sent
            stranger.sendall(b'GET / HTTP/1.1\r\n' + head + b'\r\n\r\n')
        with contextlib.suppress(ConnectionError):
            assert int(stranger.recv(100).split()[1]) in (400, 403)
    assert asked(server.port)[0] == 200
    assert capfd.readouterr().err == '', 'strangers fill no log'


def test_crowd_and_strange_wishes_do_no_harm(capfd: pytest.CaptureFixture[str]):
    wishes: list[tuple[str, bool]] = []
    server = Server('127.0.0.1', 0, '', lambda *wish: wishes.append(wish))

    async def crowd() -> None:
        address = f'http://127.0.0.1:{server.port}/live'
        async with aiohttp.ClientSession() as session:
            sockets = [await session.ws_connect(address) for _ in range(MAX_WATCHERS)]
            with pytest.raises(aiohttp.WSServerHandshakeError, match='503'):
                await session.ws_connect(address)
            for text in (
                '[' * 1000,
                '1e999',
                'null',
                '{"modality":1,"on":true}',
                '{"modality":"a"}',
            ):
                await sockets[0].send_str(text)
            await sockets[0].send_bytes(b'\xff' * 100)
            await sockets[0].send_str('{"modality":"a","on":true}')
            await sockets[1].send_str('x' * 5000)
            assert (await sockets[1].receive()).type is aiohttp.WSMsgType.CLOSE
            while not wishes:
                await asyncio.sleep(0.01)
            await asyncio.gather(*(each.close() for each in sockets))
            await (await session.ws_connect(address)).close()

    try:
        asyncio.run(asyncio.wait_for(crowd(), 20.0))
    finally:
        server.stop()
    assert wishes == [('a', True)] and capfd.readouterr().err == ''


class Browser(threading.Thread):
    """Watches over a websocket; ``wish`` presses a button."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.sensors: dict[str, dict[str, str]] = {}
        self.pictures: list[tuple[float, bytes]] = []
        self.stds: list[float] = []
        self.rates: dict[str, str] = {}
        self._port = port
        self._wishes: list[str] = []
        self._open = True

    def wish(self, name: str, on: bool) -> None:
        """Press the button of a modality."""
        self._wishes.append(json.dumps({'modality': name, 'on': on}))

    def close(self) -> None:
        """Leave the page."""
        self._open = False
        self.join()

    def run(self) -> None:
        """Watch until closed."""
        asyncio.run(self._watch())

    async def _watch(self) -> None:
        address = f'http://127.0.0.1:{self._port}/live'
        async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
            await socket.send_str('not a wish')
            while self._open:
                for wish in self._wishes:
                    await socket.send_str(wish)
                self._wishes = []
                try:
                    message = await socket.receive(timeout=0.05)
                except asyncio.TimeoutError:
                    continue
                self._take(message.data)

    def _take(self, data: Any) -> None:
        if isinstance(data, bytes):
            self.pictures.append((time.monotonic(), data))
            return
        news = json.loads(data)
        self.sensors |= {each['name']: each for each in news.get('sensors', ())}
        self.rates |= news.get('rates', {})
        self.stds += [news['std']] if 'std' in news else []


STRANGE_NEWS: tuple[tuple[type, str, Any], ...] = (
    (Image, 'cmi/mosaic', Image(height=5, width=2**31)),
    (Image, 'cmi/mosaic', Image()),
    (DiagnosticArray, 'cmi/status', DiagnosticArray(status=[DiagnosticStatus()] * 30_000)),
    (Float32MultiArray, 'latent/vector', Float32MultiArray()),
)


def test_view_shows_the_node_and_takes_a_sensor_away(
    bundle: Bundle, start, robot: Robot, tmp_path: Path
):
    start(f'bundle:={bundle.path}', 'autostart:=true', 'rate_hz:=20')
    robot.live = set(SENSORS)
    robot.until_used(set(SENSORS), 30.0)
    view = NodeProcess('view_node', tmp_path / 'log', {'port': 0}, ['-r', '__ns:=/second'])
    try:
        robot.until(lambda: 'open http://127.0.0.1:' in view.log, 'the address', 20.0)
        browser = Browser(int(re.search(r'open http://127.0.0.1:(\d+)', view.log)[1]))
        browser.start()
        robot.until(lambda: len(browser.pictures) > 5, 'pictures', 20.0)
        assert {name: s['state'] for name, s in browser.sensors.items()} == dict.fromkeys(
            SENSORS, 'ok'
        )
        pixels = cv2.imdecode(np.frombuffer(browser.pictures[-1][1], np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape[0] > 300 and browser.stds[-1] > 0
        for on, state, source in ((False, 'disabled', 'inferred'), (True, 'ok', 'sensor')):
            pressed_s = time.monotonic()
            browser.wish('image', on)
            changed = lambda s=state: browser.sensors['image']['state'] == s  # noqa: E731
            robot.until(changed, state, 10.0)
            assert time.monotonic() - pressed_s < SEEN_WITHIN_S
            assert browser.sensors['image']['source'] == source
            told = lambda o=on: bool(browser.sensors['image']['error']) is not o  # noqa: E731
            robot.until(told, 'the error of what fills in, while the camera goes on', 10.0)
        robot.until(lambda: float(browser.rates.get('image', 0)) > 1, 'rates of sensors', 10.0)
        for name in ('absent', '\ud800', 'a\0b', 'x' * 500):
            browser.wish(name, False)
        for kind, topic, message in STRANGE_NEWS:
            robot.node.create_publisher(kind, f'/second/{topic}', 1).publish(message)
        browser.pictures.clear()
        robot.run(2.0)
        assert len(browser.pictures) >= 20, '10 Hz'
        browser.close()
        unread = lambda: robot.node.count_subscribers('/second/cmi/mosaic') == 0  # noqa: E731
        robot.until(unread, 'no subscription while nobody looks', 10.0)
    finally:
        assert view.stop() == 0
    assert 'Traceback' not in view.log


PAINTED = "performance.getEntriesByName('first-contentful-paint').map(p => p.startTime)[0]"
ROW = "(document.querySelector('[data-modality=image]')?.closest('tr').innerText ?? '')"


def test_page_works_in_a_real_browser(tmp_path: Path):
    """The page against the server alone: painted soon, pictures shown, a click becomes a wish."""
    program = shutil.which('chromium') or shutil.which('google-chrome')
    if program is None:
        pytest.skip('no Chromium: apt-get install chromium')
    wishes: queue.Queue[tuple[str, bool]] = queue.Queue()
    server = Server('127.0.0.1', 0, '', lambda *wish: wishes.put(wish))
    page = Page(program, tmp_path)
    picture = cv2.imencode('.jpg', np.zeros((40, 60, 3), np.uint8))[1].tobytes()

    async def until(script: str, wanted: Any) -> None:
        for _ in range(200):
            state = 'disabled' if wishes.qsize() else 'ok'
            entry = {'name': 'image', 'state': state, 'age_ms': '1', 'source': 'sensor'}
            server.send('status', json.dumps({'sensors': [entry]}))
            server.send('picture', picture)
            if await page.evaluate(script) == wanted:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(await page.evaluate(script))

    async def visit() -> None:
        async with aiohttp.ClientSession() as session:
            await page.open(session, f'http://127.0.0.1:{server.port}/')
            await until(f"{ROW}.includes('take away')", True)
            assert await page.evaluate(PAINTED) < SEEN_WITHIN_S * 1e3
            await until("document.getElementById('mosaic').naturalWidth", 60)
            await page.evaluate("document.querySelector('[data-modality=image]').click()")
            await until(f"{ROW}.includes('bring back')", True)

    try:
        asyncio.run(visit())
    finally:
        page.close()
        server.stop()
    assert wishes.get(timeout=1.0) == ('image', False)
