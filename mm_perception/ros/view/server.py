"""A small web server: one page, and what is new over a websocket to everybody who watches."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web
from aiohttp.http_exceptions import HttpProcessingError

from mm_perception.errors import ConfigError

PAGE = Path(__file__).with_name('page.html')
START_S = 10.0
WISH_BYTES = 1024
MAX_WATCHERS = 16
Wish = Callable[[str, bool], None]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Result = TypeVar('Result')
_TOKEN = web.AppKey('token', str)


class Server:
    """
    Serves the page in a thread of its own.

    :param address: where; any but this machine's own needs a token.
    :param port: of the page; 0 takes a free one.
    :param token: what a browser has to name; empty for none.
    :param wish: called in the server's thread when somebody takes a modality away or back.
    :raises ConfigError: if the address is open without a token, or cannot be served.
    """

    def __init__(self, address: str, port: int, token: str, wish: Wish) -> None:
        if not (token or is_own(address)):
            raise ConfigError(
                f'address: {address} lets other hosts in: set token as well, or use 127.0.0.1'
            )
        self._wish = wish
        self._watchers: set[_Watcher] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name='view', daemon=True)
        self._thread.start()
        app = web.Application(middlewares=[_admit])
        app[_TOKEN] = token
        app.router.add_get('/', _page)
        app.router.add_get('/live', self._live)
        quiet = logging.getLogger(__name__)
        quiet.addFilter(_is_ours)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, logger=quiet)
        try:
            self.port = self._wait(self._open(address, port))
        except OSError as error:
            self.stop()
            raise ConfigError(
                f'port: cannot serve {address}:{port} ({error.strerror}); set another port'
            ) from error

    @property
    def watched(self) -> bool:
        """Whether anybody looks."""
        return bool(self._watchers)

    def send(self, kind: str, data: str | bytes) -> None:
        """Hand what is new to everybody; what a slow one has not taken of that kind is dropped."""
        self._loop.call_soon_threadsafe(self._spread, kind, data)

    def stop(self) -> None:
        """End the connections and the thread."""
        self._wait(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, job: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(START_S)

    async def _open(self, address: str, port: int) -> int:
        await self._runner.setup()
        await web.TCPSite(self._runner, address, port).start()
        return int(self._runner.addresses[0][1])

    def _spread(self, kind: str, data: str | bytes) -> None:
        for watcher in self._watchers:
            watcher.newest[kind] = data
            watcher.news.set()

    async def _live(self, request: web.Request) -> web.WebSocketResponse:
        if len(self._watchers) >= MAX_WATCHERS:
            raise web.HTTPServiceUnavailable(text=f'{MAX_WATCHERS} watch already\n')
        socket, watcher = (
            web.WebSocketResponse(max_msg_size=WISH_BYTES, heartbeat=20.0),
            _Watcher(),
        )
        self._watchers.add(watcher)
        try:
            await socket.prepare(request)
            watcher.sender = asyncio.create_task(watcher.pass_on(socket))
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self._take(message.data)
        finally:
            self._watchers.discard(watcher)
            if watcher.sender is not None:
                watcher.sender.cancel()
        return socket

    def _take(self, text: str) -> None:
        """Take a wish; what is none is ignored."""
        try:
            wish = json.loads(text)
            name, on = wish['modality'], wish['on']
        except (ValueError, TypeError, KeyError, RecursionError):
            return
        if isinstance(name, str) and isinstance(on, bool):
            self._wish(name, on)


class _Watcher:
    """Somebody who looks: the newest of each kind that was not sent yet."""

    def __init__(self) -> None:
        self.newest: dict[str, str | bytes] = {}
        self.news = asyncio.Event()
        self.sender: asyncio.Task[None] | None = None

    async def pass_on(self, socket: web.WebSocketResponse) -> None:
        """Send what is new, as fast as it is taken."""
        while not socket.closed:
            await self.news.wait()
            self.news.clear()
            waiting, self.newest = self.newest, {}
            for data in waiting.values():
                if isinstance(data, bytes):
                    await socket.send_bytes(data)
                else:
                    await socket.send_str(data)


def is_own(address: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(address.strip('[]')).is_loopback
    except ValueError:
        return address == 'localhost'


@web.middleware
async def _admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse strangers."""
    if not _is_welcome(request):
        raise web.HTTPForbidden(text='open the address that view_node logs\n')
    return await handler(request)


def _is_welcome(request: web.Request) -> bool:
    """
    Whether it is neither who does not know the token, nor a page of others in a browser here.

    Without a token the name of the host must be this machine's own, or a page elsewhere could let
    its name point here; and a websocket must come from the page that was served.
    """
    token, host = request.app[_TOKEN], request.host
    origin = request.headers.get('Origin')
    try:
        known = hmac.compare_digest(request.query.get('token', '').encode(), token.encode())
        own = bool(token) or is_own(urlsplit(f'//{host}').hostname or '')
        return known and own and (not origin or urlsplit(origin).netloc == host)
    except ValueError:  # of a name of a host, or a token, that is none
        return False


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether an error is one of this program: strangers write no tracebacks into the log."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


async def _page(request: web.Request) -> web.Response:
    policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    return web.Response(
        text=PAGE.read_text(encoding='utf-8'),
        content_type='text/html',
        headers={'Content-Security-Policy': policy + "img-src blob:; connect-src 'self'"},
    )
