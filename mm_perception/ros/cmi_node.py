"""The node ``cmi``: fuses what sensors deliver, and fills in what they do not."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Generic, TypeVar

from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from mm_perception.bundle import load_bundle
from mm_perception.engines.build import build_engine
from mm_perception.errors import BundleError, ConfigError, MMPerceptionError
from mm_perception.fusion.health import NO_OUTPUT
from mm_perception.fusion.perception import Perception
from mm_perception.fusion.streams import Reading
from mm_perception.ros.cmi.diagnostics import Reporter
from mm_perception.ros.cmi.inputs import Inputs
from mm_perception.ros.cmi.outputs import Outputs
from mm_perception.ros.cmi.parameters import (
    NODE_SPECS,
    OLD_FALLBACK,
    TRIGGER_ANY,
    TRIGGER_TIMER,
    UNSET,
    modality_specs,
    read_settings,
)
from mm_perception.ros.lifecycle import (
    LateService,
    ManagedNode,
    autostart,
    run_node,
    trim_memory,
)
from mm_perception.ros.parameters import Parameters
from mm_perception.ros.qos import latched_qos

Readings = Mapping[str, Reading]
Job = TypeVar('Job')
_ENGINE_CHOICES = ('device', 'engine', 'threads', 'precision')


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


class CmiNode(ManagedNode):
    """
    Cross-modality inference over topics.

    The executor's thread only receives: messages go into streams, and the timer or a new value
    hands their newest readings to one worker thread, which fuses and publishes.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('cmi', **kwargs)
        self.parameters = Parameters(self)
        self.parameters.declare(NODE_SPECS)
        self._worker: Worker[Readings] | None = None
        self._timer: Any = None
        self._enabled = True
        self._names: tuple[str, ...] = ()
        self._settings = read_settings(self.parameters, self._names)
        self._last_tick_s = 0.0
        self.add_post_set_parameters_callback(self._take_parameters)

    def subscribe_input(
        self, message_type: type, topic: str, callback: Any, **options: Any
    ) -> Any:
        """
        Subscribe to a sensor; a subclass may put filters of ``message_filters`` in front.

        :param callback: takes every message that the sensor's stream is to see.
        :param options: of ``create_subscription``.
        :returns: the subscription.
        """
        return self.create_subscription(message_type, topic, callback, **options)

    def setup(self, undo: ExitStack) -> None:
        """Load and warm up the model, subscribe and advertise."""
        self._perception = perception = self._load()
        undo.callback(delattr, self, '_perception')
        for modality in perception.modalities.values():
            self.parameters.declare(modality_specs(modality.spec))
        self._triggers = self._find_triggers()
        self._names = perception.names
        self._settings = read_settings(self.parameters, self._names)
        if self.parameters[OLD_FALLBACK] != UNSET:
            self.get_logger().warning(f'{OLD_FALLBACK} is the old name of fallback: set that')
        self._outputs = Outputs(self, perception.modalities, undo)
        self._inputs = Inputs(self, perception, self.parameters, undo, self._receive)
        self._reporter = Reporter(self, self._inputs, self._outputs)
        undo.callback(self._reporter.destroy)
        self._info = self.create_publisher(String, '~/model_info', latched_qos())
        undo.callback(self.destroy_publisher, self._info)
        self._publish_info()
        self._offer_services(undo)
        watch = self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        undo.callback(self.destroy_timer, watch)

    def start(self, undo: ExitStack) -> None:
        """Begin to fuse."""
        self._worker = Worker(self._tick, self._tick_failed)
        undo.callback(setattr, self, '_worker', None)
        undo.callback(self._worker.stop)
        self._timer = self.create_timer(1.0 / self._settings.rate_hz, self._on_timer)
        undo.callback(setattr, self, '_timer', None)
        undo.callback(self.destroy_timer, self._timer)

    def _load(self) -> Perception:
        bundle = load_bundle(self.parameters['bundle'])
        engine = build_engine(bundle, **{name: self.parameters[name] for name in _ENGINE_CHOICES})
        perception = Perception(bundle, engine)
        perception.warm_up()
        trim_memory()  # no collection: it would hold up the ticks
        where = f'{engine.name} ({engine.device}): {engine.reason}'
        self.get_logger().info(f'{bundle.frame_id}: {", ".join(perception.names)} on {where}')
        if not engine.fuses:
            self.get_logger().warning(
                f'{bundle.spec.family} does not fuse: of several modalities it uses the most'
                ' certain one'
            )
        for name in perception.holds:
            self.get_logger().info(
                f'{name}: nothing tells more of it than its last value, which filled/{name} holds'
                ' while it is lost'
            )
        return perception

    def _find_triggers(self) -> frozenset[str]:
        """Names of the modalities whose news start a fusion; empty for the timer alone."""
        trigger = self.parameters['trigger']
        names = self._perception.names
        known = {TRIGGER_TIMER: frozenset[str](), TRIGGER_ANY: frozenset(names)}
        known.update({name: frozenset({name}) for name in names})
        if trigger not in known:
            raise ConfigError(f'trigger: "{trigger}" is not one of {", ".join(known)}')
        return known[trigger]

    def _offer_services(self, undo: ExitStack) -> None:
        reload = LateService(self, Trigger, '~/reload_model', self._load, self._on_loaded)
        for service in (
            self.create_service(SetBool, '~/enable', self._on_enable),
            self.create_service(Trigger, '~/reset', self._on_reset),
            reload.service,
        ):
            undo.callback(self.destroy_service, service)

    def _on_timer(self) -> None:
        news = self._inputs.advance()
        late = time.monotonic() - self._last_tick_s > 0.9 / self._settings.rate_hz
        if not self._triggers or late or news & self._triggers:
            self._request()

    def _receive(self, name: str, message: Any) -> None:
        news = self._inputs.take(name, message, self._settings.limits[name])
        if news and name in self._triggers:
            self._request()

    def _request(self) -> None:
        """Hand the newest readings to the worker."""
        if self._worker is not None:
            self._last_tick_s = time.monotonic()
            self._worker.submit(self._inputs.snapshot())

    def _tick(self, readings: Readings) -> None:
        """Fuse and publish, in the worker's thread."""
        begin = time.perf_counter()
        perception, settings = self._perception, self._settings
        demand = self._outputs.demand(settings)
        limits = settings.limits
        if not self._enabled:
            demand = replace(demand, fallback=NO_OUTPUT)
            limits = {name: replace(limit, enabled=False) for name, limit in limits.items()}
        now_ns = self.get_clock().now().nanoseconds
        (fused,) = perception.tick([readings], limits, demand, now_ns, settings.checks)
        self._outputs.publish(fused, perception.modalities, perception.frame_id, settings)
        self._reporter.add(fused, perception.frame_id, (time.perf_counter() - begin) * 1e3)

    def _tick_failed(self, error: Exception) -> None:
        self._reporter.errors += 1
        self.log_defect('tick', error)

    def _report(self) -> None:
        worker = self._worker
        dropped = worker.replaced if worker else 0
        self._reporter.report(self._perception, worker is not None, self._enabled, dropped)

    def _publish_info(self) -> None:
        self._info.publish(String(data=json.dumps(self._perception.describe())))

    def _take_parameters(self, parameters: list[Parameter]) -> None:
        self._settings = read_settings(self.parameters, self._names)
        if self._timer is not None:
            self._timer.timer_period_ns = int(1e9 / self._settings.rate_hz)

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        response.success = True
        response.message = 'fusion is on' if request.data else 'fusion is off: no latents'
        self.get_logger().info(response.message)
        return response

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Any:
        self._inputs.clear()
        self._perception.forget()
        response.success, response.message = True, 'everything received so far is forgotten'
        return response

    def _on_loaded(self, loaded: Perception | Exception, response: Trigger.Response) -> Any:
        """Swap to what was loaded beside the running model; on any failure the old one goes on."""
        try:
            if isinstance(loaded, Exception):
                raise loaded
            self._swap(loaded)
            response.success, response.message = True, self._perception.bundle.frame_id
        except MMPerceptionError as error:
            response.success, response.message = False, f'kept the old model: {error}'
        except Exception as error:  # noqa: BLE001 - the node goes on with the old model
            self.log_defect('reload', error)
            response.success, response.message = False, f'kept the old model: {error!r}'
        self.get_logger().info(f'reload_model: {response.message}')
        return response

    def _swap(self, loaded: Perception) -> None:
        old, new = (
            [(n, m.spec.kind, m.shape) for n, m in each.modalities.items()]
            for each in (self._perception, loaded)
        )
        if old != new:
            raise BundleError('its modalities differ; clean up and configure the node instead')
        loaded.adopt(self._perception)
        self._perception = loaded
        self._publish_info()


def main(args: list[str] | None = None) -> int:
    """Run the node in a process of its own."""
    return run_node(CmiNode, _start_if_wanted, args, lambda node: node.parameters['executor'])


def _start_if_wanted(node: CmiNode) -> bool:
    if node.parameters['autostart']:
        return autostart(node)
    name = node.get_fully_qualified_name()
    node.get_logger().info(
        f'not configured: no output until "ros2 lifecycle set {name} configure" and "activate";'
        ' or start with autostart:=true'
    )
    return True


if __name__ == '__main__':
    sys.exit(main())
