"""The node ``gym``: an environment of gymnasium as live sensors and an actuator."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String
from std_srvs.srv import Trigger

from mm_perception.bundle import load_bundle
from mm_perception.errors import ConfigError, InvalidInput, MissingDependency
from mm_perception.lab.replay.playlist import active_faults, parse_schedule, phase_name
from mm_perception.ros.cmi.inputs import Throttle
from mm_perception.ros.codecs import time_message
from mm_perception.ros.codecs.action import ACTIONS, read_action
from mm_perception.ros.lifecycle import run_node, steady_clock
from mm_perception.ros.parameters import Parameters, ParameterSpec, listed
from mm_perception.ros.qos import overridable

if TYPE_CHECKING:
    from mm_perception.lab.gym.environment import GymSensor

REAL_TIME, LOCKSTEP = 'real_time', 'lockstep'
STAMPED = 'sensor_msgs/msg/JointState'
START_NS = 100_000_000_000
PAUSE_S = 0.4
"""Between two episodes, so that what was seen before the reset is stale by then."""
CHECK_S, SETTLE_S, AGAIN_S = 0.05, 0.1, 0.5
ROWS = (
    ParameterSpec(
        'environment',
        'mm_perception.rl.pendulum:mm_perception/Pendulum-v0',
        'Environment of gymnasium, by its name; MODULE:NAME imports the module that registers it.',
        True,
    ),
    ParameterSpec('options', '', 'Keyword arguments of gymnasium.make, as JSON.', True),
    ParameterSpec(
        'bundle',
        '',
        'Bundle that is to take the sensors: a name or a folder; tells topics and types; empty:'
        ' a topic per sensor, of the type that its values suggest.',
        True,
    ),
    ParameterSpec(
        'mode',
        REAL_TIME,
        'real_time: a step per period; lockstep: a step per action that carries the stamp of the'
        ' newest observation, with /clock from this node.',
        True,
        choices=(REAL_TIME, LOCKSTEP),
    ),
    ParameterSpec('rate_hz', 20.0, 'Steps per second.', True, span=(2.5, 1000.0)),
    ParameterSpec('seed', 0, 'Episode k begins from seed + k.', True, span=(0, 2**31 - 1)),
    ParameterSpec('episodes', 0, 'How many there are; 0: no end.', True, span=(0, 1_000_000)),
    ParameterSpec(
        'message', STAMPED, 'Type of the actions on action.', True, choices=tuple(ACTIONS)
    ),
    ParameterSpec(
        'names',
        '',
        'Names of the actuators, separated by commas; of a Twist such as linear.x; empty: those'
        ' of a message count in its order.',
        True,
    ),
    ParameterSpec(
        'action_timeout_s',
        2.0,
        'Time without an action (s) after which the environment gets zeros, or the nearest that'
        ' it takes; until then the last action holds (real_time), or it waits (lockstep).',
        True,
        span=(0.01, 3600.0),
    ),
    ParameterSpec(
        'wait_for_policy',
        True,
        'Begin when every sensor has a subscriber and an action has come, rather than at once.',
        True,
    ),
    ParameterSpec(
        'schedule',
        '',
        'Failures, a JSON list of {sensors, start_s, duration_s, fault, phase}, in time that is'
        ' simulated; fault is silent, frozen, black, nan or noise.',
        True,
    ),
    ParameterSpec(
        'schedule_period_s',
        0.0,
        'After how long the schedule begins again; 0: never.',
        True,
        span=(0.0, 1e9),
    ),
)


def sensor_rows(name: str, topic: str, message: str) -> tuple[ParameterSpec, ...]:
    """Parameters of one sensor."""
    return (
        ParameterSpec(f'sensors.{name}.topic', topic, 'Topic of the sensor.', True),
        ParameterSpec(f'sensors.{name}.message', message, 'Type of its messages.', True),
    )


def load_gymnasium() -> ModuleType:
    """
    Import what handles environments.

    :raises MissingDependency: without gymnasium.
    """
    try:
        from mm_perception.lab.gym import environment
    except ModuleNotFoundError as error:
        raise MissingDependency(
            'environments need gymnasium: pip install gymnasium (the extra [rl])'
        ) from error
    return environment


class GymNode(Node):
    """
    Steps an environment, publishes what it observes, and takes its actions.

    The truth goes to ``~/truth`` with every observation: a JSON object with ``episode``,
    ``step``, ``stamp_ns``, ``elapsed_s`` (simulated, of the schedule), ``reward`` and ``action``
    of the last step, ``return`` so far, ``returns`` of the episodes that ended, ``late`` (steps
    without an action for the newest observation), ``phase``, ``faults``, ``state`` where the
    environment has one, and ``done`` when there is nothing more to come.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('gym', **kwargs)
        self.parameters = get = Parameters(self)
        get.declare(ROWS)
        self._step_s = 1.0 / float(get['rate_hz'])
        self._lockstep = get['mode'] == LOCKSTEP
        parts = load_gymnasium()
        self._environment = parts.make_environment(get['environment'], get['options'])
        self._sensors = self._make_sensors(parts)
        get.warn_unknown()
        names = [sensor.name for sensor in self._sensors]
        self._schedule = parse_schedule(get['schedule'], names)
        self._actuator = parts.Actuator(self._environment.action_space, listed(get['names']))
        self._advertise()
        self._throttle = Throttle()
        self._stamp_ns = START_NS
        self._begun = not get['wait_for_policy']
        self._sent: list[tuple[Any, Any]] = []
        self._done = False
        self._restart()
        period_s = CHECK_S if self._lockstep else self._step_s
        self.create_timer(period_s, self._tick, clock=steady_clock())
        self.get_logger().info(
            f'{get["environment"]}: {", ".join(names)}; {len(self._schedule)} scheduled failures'
        )

    def release(self) -> None:
        """Close the environment."""
        self._environment.close()

    def _make_sensors(self, parts: ModuleType) -> list[GymSensor]:
        get = self.parameters
        bundle = load_bundle(get['bundle']) if get['bundle'] else None
        known = {each.name: each for each in bundle.spec.modalities} if bundle else {}
        sensors: list[GymSensor] = []
        space = self._environment.observation_space
        for k, spec in enumerate(parts.sensor_specs(space, known)):
            get.declare(sensor_rows(spec.name, spec.topic or spec.name, spec.message))
            prefix = f'sensors.{spec.name}'
            spec = replace(spec, topic=get[f'{prefix}.topic'], message=get[f'{prefix}.message'])
            sensors.append(parts.GymSensor(spec, self._step_s, get['seed'] + k))
            if self._lockstep and parts.unstamped(sensors[-1].message_type):
                self.get_logger().warning(
                    f'{spec.name}: {sensors[-1].message} has no stamp, so that runs are not'
                    f' repeatable; set {prefix}.message, and modalities.{spec.name}.message of cmi'
                )
        return sensors

    def _advertise(self) -> None:
        reliable = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._publishers_of = {
            s.name: self.create_publisher(
                s.message_type, s.topic, reliable, qos_overriding_options=overridable()
            )
            for s in self._sensors
        }
        self._clock_publisher = (
            self.create_publisher(Clock, '/clock', reliable) if self._lockstep else None
        )
        latched = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._truth = self.create_publisher(String, '~/truth', latched)
        self._codec = ACTIONS[self.parameters['message']]
        if self._lockstep and self.parameters['message'] != STAMPED:
            raise ConfigError(f'message: lockstep goes by stamp; use {STAMPED}')
        self.create_subscription(
            self._codec.message_type,
            'action',
            self._take,
            reliable,
            qos_overriding_options=overridable(),
        )
        self.create_service(Trigger, '~/reset', self._on_reset)

    def _restart(self) -> None:
        """Begin with the first episode and the schedule anew."""
        self._episode, self._steps, self._late = 0, 0, 0
        self._returns: list[float] = []
        self._failing: Mapping[str, str] = {}
        self._reset()

    def _reset(self) -> None:
        """Begin an episode, after a pause."""
        seed = self.parameters['seed'] + self._episode
        self._observation, _ = self._environment.reset(seed=seed)
        self._step, self._reward, self._return = 0, 0.0, 0.0
        self._action: Any = None
        self._answered = False
        self._received_s = self._resume_s = time.monotonic()
        self._resume_s += SETTLE_S if self._lockstep else PAUSE_S
        if self._lockstep:
            self._stamp_ns += round(PAUSE_S * 1e9)
            self._publish_clock()  # others have it before the stamps, else they are of the future
        self._sent_s = -math.inf  # nothing of this episode yet

    def _tick(self) -> None:
        """Do what is due by the clock."""
        now_s = time.monotonic()
        if self._done or now_s < self._resume_s:
            return
        if not self._begun:
            self._publish_clock()
            if self._has_subscribers():
                self._observe_again(now_s)
        elif math.isinf(self._sent_s):
            self._received_s = now_s
            self._publish()
        elif self._may_go_on(now_s):
            self._go_on()
        elif now_s - self._sent_s > AGAIN_S:
            self._send_again(now_s)

    def _send_again(self, now_s: float) -> None:
        """Send the newest observation again, in case it was lost on the way."""
        self._sent_s = now_s
        self._publish_clock()
        for publisher, message in self._sent:
            publisher.publish(message)

    def _may_go_on(self, now_s: float) -> bool:
        """Whether a step is due; in lockstep by the clock only where no action can be expected."""
        if not (self._lockstep and self._sent):
            return True
        return now_s - self._received_s > float(self.parameters['action_timeout_s'])

    def _observe_again(self, now_s: float) -> None:
        """Show the first observation until somebody acts on it."""
        if not self._lockstep or now_s - self._sent_s > AGAIN_S:
            self._stamp_ns += round(self._step_s * 1e9)
            self._publish()

    def _has_subscribers(self) -> bool:
        return all(p.get_subscription_count() > 0 for p in self._publishers_of.values())

    def _take(self, message: Any) -> None:
        """Take an action."""
        try:
            values, stamp_ns = read_action(self._codec, message, self._actuator.names)
        except InvalidInput as error:
            if self._throttle.ready('action'):
                self.get_logger().warning(f'action refused: {error}')
            return
        if math.isinf(self._sent_s) or self._done:
            return
        for_newest = stamp_ns == self._stamp_ns
        if not self._begun:
            if stamp_ns or self.parameters['message'] != STAMPED:
                self._begun = True
                self._restart()
            return
        if self._lockstep and stamp_ns and not for_newest:
            return
        self._action, self._received_s = values, time.monotonic()
        self._answered |= for_newest or self.parameters['message'] != STAMPED
        if self._lockstep and for_newest:
            self._go_on()

    def _go_on(self) -> None:
        """Step with the newest action, and publish what comes of it."""
        if not self._answered:
            self._late += 1
            quiet_s = time.monotonic() - self._received_s
            if quiet_s > self.parameters['action_timeout_s']:
                self._action = None
                if self._throttle.ready('late'):
                    self.get_logger().warning(f'no action for {quiet_s:.3g} s: zeros are applied')
        action = self._actuator.apply(self._action)
        self._observation, reward, ended, cut, _ = self._environment.step(action)
        self._step, self._steps = self._step + 1, self._steps + 1
        self._reward, self._answered = float(reward), False
        self._return += self._reward
        self._stamp_ns += round(self._step_s * 1e9)
        if ended or cut:
            self._finish()
        else:
            self._publish()

    def _finish(self) -> None:
        """End an episode; begin the next, if there is one."""
        self._returns.append(self._return)
        self._done = self._episode + 1 == self.parameters['episodes']
        self._tell(self._faults(), self._stamp_ns)
        self.get_logger().info(f'episode {self._episode}: return {self._return:.1f}')
        self._episode += 1
        if not self._done:
            self._reset()

    def _faults(self) -> Mapping[str, str]:
        return active_faults(self._schedule, self._scheduled_s) if self._begun else {}

    @property
    def _scheduled_s(self) -> float:
        # Half a step later, so that rounding decides nothing.
        elapsed_s = (self._steps + 0.5) * self._step_s
        return elapsed_s % (self.parameters['schedule_period_s'] or math.inf)

    def _publish(self) -> None:
        """Publish the newest observation, with one stamp."""
        if not self._lockstep:
            self._stamp_ns = int(self.get_clock().now().nanoseconds)
        self._publish_clock()
        self._sent_s = time.monotonic()
        faults = self._faults()
        self._tell(faults, self._stamp_ns)
        parts = self._observation
        self._sent = []
        # What comes back goes first: nobody waits for it yet.
        for sensor in sorted(self._sensors, key=lambda s: s.name not in self._failing):
            value = parts[sensor.name] if isinstance(parts, Mapping) else parts
            message = sensor.send(value, self._stamp_ns, faults.get(sensor.name))
            if message is not None:
                self._sent.append((self._publishers_of[sensor.name], message))
                self._sent[-1][0].publish(message)
        if faults != self._failing:
            self._failing = faults
            named = ', '.join(f'{name} ({fault})' for name, fault in faults.items())
            self.get_logger().info(f'failing: {named or "none"}')

    def _publish_clock(self) -> None:
        if self._clock_publisher is not None:
            self._clock_publisher.publish(Clock(clock=time_message(self._stamp_ns)))

    def _tell(self, faults: Mapping[str, str], stamp_ns: int) -> None:
        state = getattr(self._environment.unwrapped, 'state', None)
        action = self._action
        truth = {
            'episode': self._episode,
            'step': self._step,
            'stamp_ns': stamp_ns,
            'begun': self._begun,
            'elapsed_s': round(self._steps * self._step_s, 6),
            'reward': self._reward,
            'return': self._return,
            'returns': self._returns,
            'action': None if action is None else np.asarray(action).tolist(),
            'late': self._late,
            'phase': phase_name(self._schedule, self._scheduled_s) if self._begun else '',
            'faults': faults,
            'state': None if state is None else np.asarray(state).tolist(),
            'done': self._done,
        }
        self._truth.publish(String(data=json.dumps(truth)))

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Any:
        self._done = False
        self._restart()
        response.success, response.message = True, 'begins with the first episode'
        return response


def main(args: list[str] | None = None) -> int:
    """Run the node in a process of its own."""
    return run_node(GymNode, args=args)


if __name__ == '__main__':
    sys.exit(main())
