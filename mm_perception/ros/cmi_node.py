"""The node ``cmi``: fuses what sensors deliver, and fills in what they do not."""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from rclpy.parameter import Parameter
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from mm_perception.errors import BundleError, ConfigError, MMPerceptionError
from mm_perception.fusion.health import NO_OUTPUT
from mm_perception.fusion.loading import load_perception
from mm_perception.fusion.perception import Perception
from mm_perception.fusion.sets import withheld
from mm_perception.ros.cmi.diagnostics import Reporter
from mm_perception.ros.cmi.inputs import Inputs, Throttle
from mm_perception.ros.cmi.outputs import Outputs
from mm_perception.ros.cmi.parameters import (
    NODE_SPECS,
    OLD_FALLBACK,
    TRIGGER_ANY,
    TRIGGER_STAMP,
    TRIGGER_TIMER,
    UNSET,
    modality_specs,
    read_settings,
)
from mm_perception.ros.cmi.reception import (
    REST_S,
    TRIGGERED_REST_S,
    Receiver,
    Reception,
)
from mm_perception.ros.cmi.watchdog import Alarm, Pulse, Watchdog
from mm_perception.ros.cmi.worker import COMPLETE, WAIT, Stamps, Worker
from mm_perception.ros.codecs import InputCodec, codec_for
from mm_perception.ros.codecs.image import DECODED_APART
from mm_perception.ros.lifecycle import (
    LateService,
    ManagedNode,
    run_node,
    start_if_wanted,
    trim_memory,
)
from mm_perception.ros.parameters import Parameters
from mm_perception.ros.qos import latched_qos

_ENGINE_CHOICES = ('device', 'engine', 'threads', 'precision')
STOP_S = 2.0
REPORT_S, HEARTBEAT_S = 1.0, 0.25
AHEAD_NS = 500_000_000


class CmiNode(ManagedNode):
    """
    Cross-modality inference over topics.

    Four threads: one receives, so that messages go into streams; one fuses and publishes their
    newest readings at its own beat or for a new value; a watchdog looks after that one and
    reports; the executor serves the rest.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('cmi', **kwargs)
        self.parameters = Parameters(self)
        self.parameters.declare(NODE_SPECS)
        self._worker: Worker | None = None
        self._reception: Reception | None = None
        self._sim_timer: Any = None
        self._guard = threading.RLock()  # of what executor and watchdog exchange
        self._last_error = ''
        self._enabled = True
        self._names: tuple[str, ...] = ()
        self._stamps: Stamps | None = None
        self._settings = read_settings(self.parameters, self._names)
        self.add_post_set_parameters_callback(self._take_parameters)

    @property
    def subscriptions(self) -> Any:
        """Subscriptions that the executor serves."""
        ours = self._reception
        return (s for s in super().subscriptions if ours is None or s not in ours)

    def subscribe_input(
        self, message_type: type, topic: str, callback: Any, **options: Any
    ) -> Any:
        """
        Subscribe to a sensor; a subclass may put something in front of the callback.

        :param callback: takes every message that the sensor's stream is to see, in any thread, and
            as a second argument what the middleware says about it, if that is known.
        :param options: of ``create_subscription``.
        :returns: the subscription.
        """
        subscription = self.create_subscription(message_type, topic, callback, **options)
        if self._reception is not None:
            self._reception.serve(subscription, callback, message_type in DECODED_APART)
        return subscription

    def setup(self, undo: ExitStack) -> None:
        """Load and warm up the model, subscribe and advertise."""
        undo.callback(setattr, self.parameters, 'fixed', False)
        undo.callback(setattr, self, '_names', ())
        self._perception = perception = self._load()
        undo.callback(delattr, self, '_perception')
        modalities = perception.modalities.values()
        self.parameters.redeclare(
            'modalities.', [row for each in modalities for row in modality_specs(each.spec)]
        )
        self.parameters.warn_unknown()
        self._triggers = self._find_triggers()
        by_stamp = self.parameters['trigger'] == TRIGGER_STAMP
        self._stamps = Stamps(perception.names) if by_stamp else None
        self._names = perception.names
        self._settings = read_settings(self.parameters, self._names)
        if self.parameters[OLD_FALLBACK] != UNSET:
            self.get_logger().warning(f'{OLD_FALLBACK} is the old name of fallback: set that')
        codecs = self._codecs_of(perception)
        self._outputs = Outputs(self, perception.modalities, codecs, self.parameters, undo)
        rest_s = TRIGGERED_REST_S if self._triggers else REST_S
        failed = partial(self.log_defect, 'reception')
        self._reception = Reception(lambda: Receiver(self.context, rest_s, failed))
        undo.callback(setattr, self, '_reception', None)
        keep = self._outputs.filled.take
        self._inputs = Inputs(self, perception, self.parameters, codecs, undo, keep, self._receive)
        self._reporter = Reporter(self, self._inputs, self._outputs)
        undo.callback(self._reporter.destroy)
        self._info = self.create_publisher(String, '~/model_info', latched_qos())
        undo.callback(self.destroy_publisher, self._info)
        self._publish_info()
        self._offer_services(undo)
        self.parameters.fixed = True
        self._reception.start()
        undo.callback(self._reception.stop)
        self._throttle_report, self._throttle_beat = Throttle(REPORT_S), Throttle(HEARTBEAT_S)
        watchdog = Watchdog(self._pulse, self._say, self._restart, self._reaction)
        undo.callback(watchdog.stop)

    def start(self, undo: ExitStack) -> None:
        """Begin to fuse."""
        self._begin_ticks()
        undo.callback(self._end_ticks)

    def _codecs_of(self, perception: Perception) -> dict[str, InputCodec]:
        """Codecs of the sensors, by the types of their messages."""
        return {
            name: codec_for(modality, self.parameters[f'modalities.{name}.message'])
            for name, modality in perception.modalities.items()
        }

    def _load(self) -> Perception:
        choices = {name: self.parameters[name] for name in _ENGINE_CHOICES}
        perception = load_perception(self.parameters['bundle'], **choices)
        bundle, engine = perception.bundle, perception.engine
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
        known = {TRIGGER_TIMER: frozenset[str]()}
        known |= dict.fromkeys((TRIGGER_ANY, TRIGGER_STAMP), frozenset(names))
        known.update({name: frozenset({name}) for name in names})
        if trigger not in known:
            raise ConfigError(f'trigger: "{trigger}" is not one of {", ".join(known)}')
        return known[trigger]

    def _offer_services(self, undo: ExitStack) -> None:
        busy = MMPerceptionError('already loading; call again when that is answered')
        reload = LateService(self, Trigger, '~/reload_model', self._load, self._on_loaded, busy)
        undo.callback(reload.close, MMPerceptionError('the node was cleaned up meanwhile'))
        for service in (
            self.create_service(SetBool, '~/enable', self._on_enable),
            self.create_service(Trigger, '~/reset', self._on_reset),
        ):
            undo.callback(self.destroy_service, service)

    @property
    def _simulated(self) -> bool:
        return bool(self.get_parameter('use_sim_time').value)

    def _begin_ticks(self) -> None:
        """Make the thread that fuses, at its own beat or at that of simulated time."""
        period_s = 1.0 / self._settings.rate_hz
        with self._guard:
            if self._simulated:
                self._sim_timer = self.create_timer(period_s, self._on_sim_timer)
            beat_s = None if self._simulated else period_s
            self._last_error = ''
            self._worker = Worker(self._work, self._tick_failed, beat_s, bool(self._triggers))

    def _end_ticks(self) -> None:
        with self._guard:
            worker, self._worker = self._worker, None
            if self._sim_timer is not None:
                self.destroy_timer(self._sim_timer)
                self._sim_timer = None
        if worker is not None and not worker.stop(STOP_S):
            self.get_logger().error(f'a tick hangs for more than {STOP_S} s: it is left alone')

    def _restart(self) -> None:
        """Put another thread, with a session of its own, in the place of one that hangs."""
        with self._guard:
            if self._worker is None:
                return
            self.get_logger().error('the ticks begin anew in another thread')
            self._worker.stop(0.0)
            fresh = Perception(self._perception.bundle, self._perception.engine)
            fresh.adopt(self._perception)
            self._perception = fresh
            if self._sim_timer is not None:
                self.destroy_timer(self._sim_timer)
            self._begin_ticks()

    def _reaction(self) -> tuple[str, float]:
        return self._settings.stalled_reaction, self._settings.stalled_after_s

    def _pulse(self) -> Pulse | None:
        with self._guard:
            worker = self._worker
            if worker is None:
                return None
            simulated = self._simulated
            return Pulse(
                worker.finished,
                worker.finished_s,
                1.0 / self._settings.rate_hz,
                self.get_clock().now().nanoseconds if simulated else None,
                self.count_publishers('/clock') if simulated else 0,
                self._last_error,
            )

    def _on_sim_timer(self) -> None:
        worker = self._worker
        if worker is None or (self._stamps is not None and self._stamps.waiting):
            return
        late = time.monotonic() - worker.began_s > 0.9 / self._settings.rate_hz
        if not self._triggers or late:
            worker.ask()

    def _receive(self, name: str, message: Any, info: Any = None) -> None:
        news = self._inputs.take(name, message, self._settings.limits[name], info)
        worker = self._worker
        if not news or name not in self._triggers or worker is None:
            return
        if self._stamps is None:
            worker.ask()
            return
        stamp_ns = self._inputs.stamp_ns(name)
        answer = self._stamps.take(name, stamp_ns) if stamp_ns is not None else ''
        if answer == COMPLETE:
            worker.ask()
        elif answer == WAIT:
            worker.expect(self._settings.stamp_wait_s)

    def _work(self, worker: Worker) -> None:
        """Tick once, in the worker's thread."""
        self._inputs.advance()
        self._tick(worker)
        self._last_error = ''

    def _tick(self, worker: Worker) -> None:
        """Fuse and publish."""
        begin = time.perf_counter()
        perception, settings = self._perception, self._settings
        demand = self._outputs.demand(settings)
        limits = settings.limits
        if not self._enabled:
            demand = replace(demand, fallback=NO_OUTPUT)
            limits = {name: replace(limit, enabled=False) for name, limit in limits.items()}
        newest_ns = self._stamps.close() if self._stamps is not None else 0
        required = {name for name, limit in limits.items() if limit.enabled}
        readings, incomplete = self._inputs.snapshot(required)
        now_ns = self.get_clock().now().nanoseconds
        if 0 < newest_ns - now_ns <= AHEAD_NS:  # /clock may come after the stamps that it made
            now_ns = newest_ns
        (fused,) = perception.tick([readings], limits, demand, now_ns, settings.checks)
        if self._inputs.sets is not None and required:
            lacking = ', '.join(sorted(required - fused.observed.keys()))
            if incomplete or lacking:
                reason = incomplete or f'no complete set: {lacking} cannot be used'
                fused = withheld(fused, reason)
        if worker.abandoned:  # another thread ticks by now
            return
        self._outputs.publish(fused, perception.modalities, perception.frame_id, settings)
        self._reporter.add(fused, perception.frame_id, (time.perf_counter() - begin) * 1e3)

    def _tick_failed(self, error: Exception) -> None:
        self._reporter.errors += 1
        self._last_error = repr(error)[:200]
        if self._reporter.may_log_defect():
            self.log_defect('tick', error)

    def _say(self, alarm: Alarm | None) -> None:
        """Report, in the watchdog's thread."""
        worker = self._worker
        if not self.context.ok():
            return
        try:
            if worker is not None and alarm is None and self._throttle_beat.ready(None):
                self._reporter.beat(worker.finished)
            if self._throttle_report.ready(alarm is None):
                dropped = worker.dropped if worker else 0
                active = worker is not None
                self._reporter.report(self._perception, active, self._enabled, dropped, alarm)
        except Exception as error:  # noqa: BLE001 - who watches must go on
            self.log_defect('report', error)

    def _publish_info(self) -> None:
        self._info.publish(String(data=json.dumps(self._perception.describe())))

    def _take_parameters(self, parameters: list[Parameter]) -> None:
        self._settings = read_settings(self.parameters, self._names)
        worker = self._worker
        if worker is None:
            return
        if any(parameter.name == 'use_sim_time' for parameter in parameters):
            self._end_ticks()
            self._begin_ticks()
        elif self._sim_timer is not None:
            self._sim_timer.timer_period_ns = int(1e9 / self._settings.rate_hz)
        else:
            worker.pace(1.0 / self._settings.rate_hz)

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        response.success = True
        response.message = 'fusion is on' if request.data else 'fusion is off: no latents'
        self.get_logger().info(response.message)
        return response

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Any:
        self._inputs.clear()
        self._perception.forget()
        if self._stamps is not None:
            self._stamps.clear()
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
            [
                (n, m.spec.kind, m.shape, *map(m.plain_options().get, ('fields', 'values')))
                for n, m in each.modalities.items()
            ]
            for each in (self._perception, loaded)
        )
        if old != new:
            raise BundleError('its modalities differ; clean up and configure the node instead')
        with self._guard, self._inputs.lock:
            loaded.adopt(self._perception)
            self._perception = loaded
        self._publish_info()


def main(args: list[str] | None = None) -> int:
    """Run the node in a process of its own."""
    return run_node(CmiNode, start_if_wanted, args, lambda node: node.parameters['executor'])


if __name__ == '__main__':
    sys.exit(main())
