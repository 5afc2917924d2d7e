"""A lifecycle node that cleans up after itself, and how such nodes are run."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, Generic, TypeVar

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidHandle, NotInitializedException, ParameterException
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.service import Service
from rclpy.task import Future

from mm_perception.errors import UNUSABLE, ConfigError, MMPerceptionError
from mm_perception.ros import shared_memory


def collect_memory() -> None:
    """Find objects that only refer to each other, and give what they held back to the system."""
    gc.collect()
    trim_memory()


def trim_memory() -> None:
    """Give memory that is free back, which glibc, and torch of a GPU's, keep for later."""
    torch = sys.modules.get('torch')
    if torch is not None and torch.cuda.is_initialized():
        from mm_perception.engines.torch_engine import release_memory

        release_memory()
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


Result = TypeVar('Result')
EXECUTORS = ('auto', 'single', 'events')
SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE
ERROR = TransitionCallbackReturn.ERROR
WAKE_S = 0.5
FAILED = 1
END_S = 10.0
REQUESTS = 1000
"""Of a service, that may wait; the usual 10 are soon lost unanswered."""
EXIT_STALLED = 70
"""Exit code of a process that hangs and ends itself (EX_SOFTWARE of sysexits.h)."""


class ManagedNode(LifecycleNode):
    """
    A lifecycle node whose transitions cannot fail silently or half-way.

    Subclasses implement :meth:`setup` (configure) and :meth:`start` (activate). Each registers
    on the stack that it is given how to undo each of its steps; deactivate, cleanup, shutdown,
    errors, and a step that fails unwind those stacks.
    """

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self._configured = ExitStack()
        self._running = ExitStack()

    def setup(self, undo: ExitStack) -> None:
        """Acquire everything that is needed to run."""

    def start(self, undo: ExitStack) -> None:
        """Begin to work."""

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run :meth:`setup`."""
        return self._attempt('configure', self.setup, self._configured)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Enable the publishers and run :meth:`start`."""
        super().on_activate(state)
        outcome = self._attempt('activate', self.start, self._running)
        if outcome != SUCCESS:
            super().on_deactivate(state)
        return outcome

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Undo :meth:`start` and disable the publishers."""
        self._unwind('deactivate', self._running)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Undo :meth:`setup`."""
        self.release()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Undo everything."""
        self.release()
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Undo everything; the node can be configured again."""
        self.release()
        return SUCCESS

    def release(self) -> None:
        """Undo whatever was done, in whatever state the node is."""
        self._unwind('deactivate', self._running)
        self._unwind('clean up', self._configured)
        # Slots and callbacks refer to each other: without this they would wait, with the model
        # that they hold, for a collection that may be hundreds of cycles away.
        collect_memory()

    def log_defect(self, what: str, error: BaseException) -> None:
        """Log an unexpected exception with its traceback; after shutdown none is unexpected."""
        if not self.context.ok():
            return
        trace = ''.join(traceback.format_exception(error))
        self.get_logger().error(f'{what} failed: {error!r}\n{trace}')

    def _attempt(
        self, what: str, step: Callable[[ExitStack], None], undo: ExitStack
    ) -> TransitionCallbackReturn:
        try:
            step(undo)
            return SUCCESS
        except (MMPerceptionError, ParameterException) as error:
            self.get_logger().error(f'cannot {what}: {error}')
            outcome = FAILURE
        except Exception as error:  # noqa: BLE001 - rclpy would swallow it without a word
            self.log_defect(what, error)
            outcome = ERROR
        self._unwind(f'undo {what}', undo)
        return outcome

    def _unwind(self, what: str, undo: ExitStack) -> None:
        try:
            undo.close()
        except Exception as error:  # noqa: BLE001 - the rest of the stack was unwound all the same
            self.log_defect(what, error)


class LateService(Generic[Result]):
    """
    Offers a service whose requests keep no other callback waiting, in any executor.

    (A coroutine as the callback would do the same, but rclpy's EventsExecutor takes none.)

    :param work: runs in a thread of its own.
    :param finish: runs in the executor's thread, with what ``work`` returned or the exception
        that it raised, and fills in the response.
    :param busy: what ``finish`` gets for a request that comes while another is under way.
    """

    def __init__(
        self,
        node: Node,
        service_type: type,
        name: str,
        work: Callable[[], Result],
        finish: Callable[[Result | Exception, Any], Any],
        busy: Exception,
    ) -> None:
        self._node = node
        self._busy = busy
        self._pending: tuple[Any, Future] | None = None
        self._work = work
        self._finish = finish
        self.service: Service = node.create_service(
            service_type, name, self._begin, qos_profile=QoSProfile(depth=REQUESTS)
        )
        self._send = self.service.send_response
        self.service.send_response = self._send_when_done

    def close(self, reason: Exception) -> None:
        """Answer the request under way, if there is one, with a reason, and end the service."""
        if self._pending is not None:
            self._end(reason, *self._pending)
        self._node.destroy_service(self.service)

    def _begin(self, request: Any, response: Any) -> Future:
        answer = Future()
        if self._pending is not None:
            answer.set_result(self._finish(self._busy, response))
            return answer
        self._pending = response, answer

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
        if not answer.done():  # else the service was closed meanwhile
            self._pending = None
            answer.set_result(self._finish(outcome, response))

    def _send_when_done(self, answer: Future, header: Any) -> None:
        def send(done: Future) -> None:
            with suppress(InvalidHandle):  # the service is gone by now
                self._send(done.result(), header)

        answer.add_done_callback(send)


def autostart(node: LifecycleNode) -> int:
    """
    Configure and activate a node from within, without a lifecycle manager.

    :returns: 0, or the exit code that says whether another start may help.
    """
    for transition in (node.trigger_configure, node.trigger_activate):
        outcome = transition()
        if outcome != SUCCESS:
            return UNUSABLE if outcome == FAILURE else FAILED
    return 0


def start_if_wanted(node: Any) -> int:
    """Start a node whose parameter ``autostart`` says so; else say who has to. As autostart."""
    if node.parameters['autostart']:
        return autostart(node)
    name = node.get_fully_qualified_name()
    node.get_logger().info(
        f'not configured: no output until "ros2 lifecycle set {name} configure" and "activate";'
        ' or start with autostart:=true'
    )
    return 0


def steady_clock() -> Clock:
    """Make a clock for timers that nobody can set; simulated time does not stop it."""
    return Clock(clock_type=ClockType.STEADY_TIME)


def leave(why: str) -> None:
    """End the process at once where it cannot end in order; its threads' places are shown."""
    print(f'error: {why}: this process exits with code {EXIT_STALLED}', file=sys.stderr)
    faulthandler.dump_traceback(all_threads=True)
    sys.stderr.flush()
    os._exit(EXIT_STALLED)


def build_executor(name: str) -> Executor:
    """
    Build an executor.

    :param name: one of ``EXECUTORS``.
    :raises ConfigError: if this rclpy does not have it.
    """
    if name == 'single':
        return SingleThreadedExecutor()
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError as error:
        if name == 'auto':
            return SingleThreadedExecutor()
        raise ConfigError(
            'executor: this rclpy has no EventsExecutor; set executor to single'
        ) from error
    return EventsExecutor()


def _spin(executor: Executor) -> None:
    """
    Serve a node until its context is shut down.

    Unlike ``rclpy.spin`` it looks for the shutdown now and then: a signal that comes just
    before the executor begins to wait would otherwise be slept through by a node without timers.
    """
    while rclpy.ok():
        executor.spin_once(timeout_sec=WAKE_S)


def run_node(
    make: Callable[[], Any],
    ready: Callable[[Any], int] = lambda node: 0,
    args: Any = None,
    executor_of: Callable[[Any], str] = lambda node: 'single',
) -> int:
    """
    Run a node in a process of its own until SIGINT, SIGTERM or shutdown.

    :param make: makes the node; it has a method ``release`` that undoes everything.
    :param ready: called before spinning; an exit code but 0 ends the process.
    :param args: command line; None for ``sys.argv``.
    :param executor_of: which of ``EXECUTORS`` serves the node.
    :returns: exit code: 0, ``UNUSABLE``, or ``FAILED``.
    """
    node, failure = None, UNUSABLE
    if not _begin(args):
        return FAILED
    try:
        node = make()
        executor = build_executor(executor_of(node))
        executor.add_node(node)
        if (code := ready(node)) and rclpy.ok():
            return code
        failure = FAILED
        _spin(executor)
    except ExternalShutdownException:
        pass
    except (MMPerceptionError, ParameterException) as error:
        print(f'error: {error}', file=sys.stderr)
        return failure
    except (RuntimeError, NotInitializedException):
        if rclpy.ok():
            raise
        # A signal came while the node was busy: without its context rclpy can only fail.
    finally:
        _end(node)
    return 0


def _begin(args: Any) -> bool:
    """Start rclpy; False, with one line, if it cannot."""
    # Until rclpy is there a signal just ends the process; then its own handlers end the spinning.
    _on_signals(signal.SIG_DFL)
    shared_memory.clean_up()
    try:
        rclpy.init(args=args)
    except RuntimeError as error:
        reason = ' '.join(str(error).split())[:300]
        remedy = 'is ROS_LOG_DIR or HOME writable?'
        print(f'error: ROS cannot start: {reason}; {remedy}', file=sys.stderr)
        return False
    threading.Thread(target=_end_in_any_case, name='end', daemon=True).start()
    return True


def _end_in_any_case() -> None:
    """Wait for the shutdown; a process that goes on for long after it hangs, and is ended."""
    while rclpy.ok():
        time.sleep(WAKE_S)
    time.sleep(END_S)
    leave(f'still at work {END_S:.0f} s after its end was asked for')


def _end(node: Any) -> None:
    # A Ctrl-C often arrives twice, from the terminal and from launch.
    _on_signals(signal.SIG_IGN)
    if node is not None:
        node.release()
        node.destroy_node()
    rclpy.try_shutdown()


def _on_signals(handler: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
