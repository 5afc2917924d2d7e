"""A headless Chromium, steered by its own protocol for developers."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import aiohttp

START_S = 30.0


class Page:
    """A page that is open in a Chromium of its own."""

    def __init__(self, program: str, folder: Path) -> None:
        self._log = folder / 'chromium.log'
        with self._log.open('w') as log:
            self._process = subprocess.Popen(
                [program, '--headless=new', '--no-sandbox', '--disable-gpu', 'about:blank',
                 f'--user-data-dir={folder / "profile"}', '--remote-debugging-port=0'],
                stderr=log, stdout=log,
            )  # fmt: skip
        self._count = 0

    async def open(self, session: aiohttp.ClientSession, address: str) -> None:
        """Go to an address."""
        port = self._port()
        async with session.get(f'http://127.0.0.1:{port}/json') as response:
            targets = await response.json(content_type=None)
        page = next(target for target in targets if target['type'] == 'page')
        self._socket = await session.ws_connect(page['webSocketDebuggerUrl'])
        await self._call('Page.navigate', url=address)

    async def evaluate(self, script: str) -> Any:
        """Value of a JavaScript expression in the page."""
        answer = await self._call('Runtime.evaluate', expression=script, returnByValue=True)
        return answer['result'].get('value')

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(10)

    def _port(self) -> int:
        end_s = time.monotonic() + START_S
        while time.monotonic() < end_s:
            found = re.search(r'DevTools listening on ws://[^:]+:(\d+)/', self._log.read_text())
            if found:
                return int(found[1])
            time.sleep(0.1)
        raise AssertionError(self._log.read_text())

    async def _call(self, method: str, **parameters: Any) -> Any:
        self._count += 1
        await self._socket.send_json({'id': self._count, 'method': method, 'params': parameters})
        while True:
            answer = json.loads((await self._socket.receive()).data)
            if answer.get('id') == self._count:
                return answer['result']
