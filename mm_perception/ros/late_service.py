"""A service that answers when its work, done in a thread beside, is over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from rclpy.exceptions import InvalidHandle
from rclpy.node import Node
from rclpy.service import Service
from rclpy.task import Future

Result = TypeVar('Result')


class LateService(Generic[Result]):
    """
    Offers a service whose requests keep no other callback waiting, in any executor.

    (A coroutine as the callback would do the same, but rclpy's EventsExecutor takes none.)

    :param work: runs in a thread of its own.
    :param finish: runs in the executor's thread, with what ``work`` returned or the exception
        that it raised, and fills in the response.
    """

    def __init__(
        self,
        node: Node,
        service_type: type,
        name: str,
        work: Callable[[], Result],
        finish: Callable[[Result | Exception, Any], Any],
    ) -> None:
        self._node = node
        self._work = work
        self._finish = finish
        self.service: Service = node.create_service(service_type, name, self._begin)
        self._send = self.service.send_response
        self.service.send_response = self._send_when_done

    def _begin(self, request: Any, response: Any) -> Future:
        answer = Future()

        def run() -> None:
            outcome: Result | Exception
            try:
                outcome = self._work()
            except Exception as error:  # noqa: BLE001 - handed on to ``finish``
                outcome = error
            if self._node.context.ok():
                self._node.executor.create_task(self._end, outcome, response, answer)

        threading.Thread(target=run, name=self.service.srv_name, daemon=True).start()
        return answer

    def _end(self, outcome: Result | Exception, response: Any, answer: Future) -> None:
        answer.set_result(self._finish(outcome, response))

    def _send_when_done(self, answer: Future, header: Any) -> None:
        def send(done: Future) -> None:
            with suppress(InvalidHandle):  # the service is gone by now
                self._send(done.result(), header)

        answer.add_done_callback(send)
