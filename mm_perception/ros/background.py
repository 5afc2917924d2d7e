"""Work beside the executor's thread: the fusion worker, and services that answer late."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from rclpy.exceptions import InvalidHandle
from rclpy.node import Node
from rclpy.service import Service
from rclpy.task import Future

Job = TypeVar('Job')


class Worker(Generic[Job]):
    """
    Runs jobs in a thread of its own, never more than one waiting: a newer one replaces it.

    :param work: does a job.
    :param report: called with an exception that ``work`` raised; the thread goes on.
    """

    def __init__(self, work: Callable[[Job], None], report: Callable[[Exception], None]) -> None:
        self.replaced = 0
        self._work = work
        self._report = report
        self._condition = threading.Condition()
        self._job: Job | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name='fusion', daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Hand over a job; one that still waits is dropped and counted in ``replaced``."""
        with self._condition:
            self.replaced += self._job is not None
            self._job = job
            self._condition.notify()

    def stop(self) -> None:
        """Finish the job under way, drop the one that waits, end the thread."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopping or self._job is not None)
                if self._stopping:
                    return
                job, self._job = self._job, None
            try:
                self._work(job)  # type: ignore[arg-type]
            except Exception as error:  # noqa: BLE001 - a failed tick must not end all ticks
                self._report(error)


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
