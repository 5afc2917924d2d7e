"""The node ``policy``: turns the joint latent into actions, and says when it cannot."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2

from mm_perception.errors import BundleError, ConfigError, InvalidInput
from mm_perception.resources import share_directory
from mm_perception.rl.policy import AGE, MASK, Policy, load_policy
from mm_perception.ros.cmi.diagnostics import Rates, StageTimes, make_status
from mm_perception.ros.cmi.inputs import Throttle
from mm_perception.ros.codecs import Latent, make_header, read_latent
from mm_perception.ros.codecs.action import ACTIONS, AXES, QUANTITIES, Action
from mm_perception.ros.codecs.parts import read_message
from mm_perception.ros.codecs.vector import NEVER_S
from mm_perception.ros.lifecycle import (
    EXECUTORS,
    ManagedNode,
    run_node,
    start_if_wanted,
    steady_clock,
)
from mm_perception.ros.parameters import Parameters, ParameterSpec, listed
from mm_perception.ros.qos import output_qos, overridable

ACTING, SAFE, WAITING = 'acting', 'safe', 'waiting'
MISS_PERIODS, AGE_PERIODS = 1.5, 2.0
HOLD = 'hold'
REPORT_S = 1.0
JUMP_NS = 1_000_000_000
"""Stamps further back than this are those of a clock that starts again."""
TWIST = 'geometry_msgs/msg/Twist'
ROWS = (
    ParameterSpec(
        'policy',
        'pendulum',
        'Trained policy: its folder, that of a bundle that has one in policy/, or the name of such'
        ' a bundle under models/.',
        structural=True,
    ),
    ParameterSpec(
        'message',
        next(iter(ACTIONS)),
        'Type of the messages on action.',
        structural=True,
        choices=tuple(ACTIONS),
    ),
    ParameterSpec(
        'names',
        '',
        "Names of the actuators, separated by commas: joints, or of a Twist the policy's numbers'"
        " places, such as linear.x,angular.z; empty: the policy's own.",
        structural=True,
    ),
    ParameterSpec(
        'quantity',
        QUANTITIES[0],
        'What the numbers are, in a JointTrajectory or a JointState.',
        structural=True,
        choices=QUANTITIES,
    ),
    ParameterSpec(
        'low',
        '',
        "Least value of each number, separated by commas, within the policy's limits; empty:"
        ' those.',
        structural=True,
    ),
    ParameterSpec('high', '', 'Greatest value of each number, likewise.', structural=True),
    ParameterSpec(
        'max_change_per_s',
        0.0,
        'How fast a number may change, in its unit per second; 0: at once.',
        span=(0.0, 1e9),
    ),
    ParameterSpec(
        'rate_hz',
        0.0,
        'How often a latent is expected; 0: as the policy was trained. Without one for 1.5 periods'
        ' the deadline is missed.',
        structural=True,
        span=(0.0, 1000.0),
    ),
    ParameterSpec(
        'max_latent_age_s',
        0.0,
        'Age by its stamp up to which the policy acts on a latent (s); 0: two periods.',
        span=(0.0, 3600.0),
    ),
    ParameterSpec(
        'max_std',
        1.0,
        "Mean std of a latent above which it is too unsure; the prior's is 1.",
        span=(0.0, 1e6),
    ),
    ParameterSpec(
        'min_modalities',
        1,
        'How many modalities a latent must come from, at least; fewer are too unsure.',
        span=(0, 64),
    ),
    ParameterSpec(
        'safe_action',
        '',
        'What is sent when the policy cannot act: one number each, separated by commas; hold: the'
        ' last action; empty: zeros, or the nearest that the limits allow.',
        structural=True,
    ),
    ParameterSpec(
        'executor',
        'auto',
        'What serves the node: events, single, or auto: events where rclpy has it.',
        True,
        choices=EXECUTORS,
    ),
    ParameterSpec('autostart', False, 'Configure and activate without a lifecycle manager.', True),
)


class PolicyNode(ManagedNode):
    """
    Acts on every new latent, with a trained policy.

    It sends nothing before the first latent. When a latent is too old, too unsure, of another
    bundle or cannot be read, and when none comes in time, it sends the safe action.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('policy', **kwargs)
        self.parameters = Parameters(self)
        self.parameters.declare(ROWS)
        self._active = False

    def setup(self, undo: ExitStack) -> None:
        """Load the policy, subscribe and advertise."""
        undo.callback(setattr, self.parameters, 'fixed', False)
        self.parameters.warn_unknown()
        self._policy = self._load()
        self._arrange(self._policy)
        self._clear()
        for name, kind, topic in (
            ('_publisher', self._codec.message_type, 'action'),
            ('_status', DiagnosticArray, '~/status'),
        ):
            publisher = self.create_lifecycle_publisher(
                kind, topic, output_qos(), qos_overriding_options=overridable()
            )
            undo.callback(self.destroy_lifecycle_publisher, publisher)
            setattr(self, name, publisher)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        undo.callback(self.destroy_publisher, self._diagnostics)
        latent = self.create_subscription(
            PointCloud2,
            'latent',
            self._take,
            output_qos(),
            qos_overriding_options=overridable(),
            raw=True,
        )
        undo.callback(self.destroy_subscription, latent)
        report = self.create_timer(REPORT_S, self._report, clock=steady_clock())
        undo.callback(self.destroy_timer, report)
        self.parameters.fixed = True

    def start(self, undo: ExitStack) -> None:
        """Begin to act."""
        self._clear()
        self._active = True
        undo.callback(setattr, self, '_active', False)
        timer = self.create_timer(self._period_s, self._watch)
        undo.callback(self.destroy_timer, timer)

    def _load(self) -> Policy:
        given = self.parameters['policy']
        shipped = share_directory() / 'models' / given
        named = '/' not in given and shipped.is_dir()
        policy = load_policy(shipped if named else given)
        spec = policy.spec
        self.get_logger().info(
            f'{policy.path}: {len(spec.actions.names)} actions at {spec.rate_hz:g} Hz from'
            f' {spec.bundle}@{spec.bundle_hash[:8]}'
        )
        return policy

    def _arrange(self, policy: Policy) -> None:
        """Read the parameters that go with a policy."""
        spec, own = policy.spec, policy.spec.actions
        self._codec = ACTIONS[self.parameters['message']]
        self._names = listed(self.parameters['names']) or own.names
        if len(self._names) != len(own.names):
            raise ConfigError(f'names: {len(self._names)} given; the policy has {len(own.names)}')
        if self.parameters['message'] == TWIST and not set(self._names) <= set(AXES):
            raise ConfigError(f'names: of a Twist they are some of {", ".join(AXES)}')
        self._low = np.maximum(self._numbers('low', own.low), own.low)
        self._high = np.minimum(self._numbers('high', own.high), own.high)
        if (self._low > self._high).any():
            raise ConfigError("low, high: nothing is left within the policy's limits")
        self._hold = self.parameters['safe_action'] == HOLD
        zeros = [0.0] * len(own.names)
        safe = np.array(zeros) if self._hold else self._numbers('safe_action', zeros)
        self._safe = np.clip(safe, self._low, self._high)
        self._period_s = 1.0 / (float(self.parameters['rate_hz']) or spec.rate_hz)

    def _numbers(self, name: str, otherwise: Any) -> NDArray[Any]:
        text = listed(self.parameters[name])
        try:
            values = np.array([float(each) for each in text] or otherwise, np.float64)
        except ValueError as error:
            raise ConfigError(f'{name}: {error}; give numbers, separated by commas') from error
        if len(values) != len(otherwise) or not np.isfinite(values).all():
            raise ConfigError(f'{name}: expected {len(otherwise)} finite numbers, one per action')
        return values

    def _clear(self) -> None:
        self._state, self._reason = WAITING, 'no latent has come yet'
        self._last: NDArray[Any] | None = None
        self._acted_ns = self._stamp_ns = 0
        self._actions = self._safe_actions = self._misses = self._refused = 0
        self._times = StageTimes()
        self._rates, self._throttle = Rates(), Throttle()

    def _take(self, data: bytes) -> None:
        """Act on a latent, serialized."""
        message = read_message(data, PointCloud2) if self._active else None
        if message is None:
            return
        begin_s = time.perf_counter()
        now_ns = self.get_clock().now().nanoseconds
        try:
            if isinstance(message, InvalidInput):
                raise message
            latent = read_latent(message)
        except InvalidInput as error:
            self._refused += 1
            self._send(self._rest, now_ns, 0, f'a latent cannot be read: {error}')
            return
        if 0 <= self._stamp_ns - latent.stamp_ns < JUMP_NS:
            return  # a tick that found nothing newer
        self._stamp_ns = latent.stamp_ns
        reason, wanted = self._why_not(latent, now_ns), self._rest
        if not reason:
            try:
                wanted = self._choose(latent)
            except InvalidInput as error:
                reason = str(error)
        self._times.add({'decision': (time.perf_counter() - begin_s) * 1e3})
        self._send(wanted, now_ns, latent.stamp_ns, reason, latent)

    def _why_not(self, latent: Latent, now_ns: int) -> str:
        """Why the policy must not act on a latent; empty if it may."""
        spec = self._policy.spec
        given_hash = latent.frame_id.rpartition('@')[2]
        if not given_hash or not spec.bundle_hash.startswith(given_hash):
            try:
                self._policy.check_bundle(given_hash or 'none')
            except BundleError as error:
                return str(error)
        if len(latent.mean) != spec.observation.latent_dim:
            return f'latent of {len(latent.mean)}; expected {spec.observation.latent_dim}'
        needed = {MASK, AGE} & set(spec.observation.parts)
        absent = set(spec.observation.modalities) - set(latent.used)
        if needed and absent:
            return f'latent does not say whether it used {", ".join(sorted(absent))}'
        age_s = (now_ns - latent.stamp_ns) * 1e-9
        limit_s = float(self.parameters['max_latent_age_s']) or AGE_PERIODS * self._period_s
        if age_s > limit_s:
            return f'latent is {age_s:.3g} s old, max_latent_age_s is {limit_s:.3g}'
        used, least = sum(latent.used.values()), self.parameters['min_modalities']
        if latent.used and used < least:
            return f'latent comes from {used} modalities, min_modalities is {least}'
        std, most = float(latent.std.mean()), float(self.parameters['max_std'])
        return f'mean std of the latent is {std:.3g}, max_std is {most:g}' if std > most else ''

    def _choose(self, latent: Latent) -> NDArray[Any]:
        layout = self._policy.spec.observation
        mask = np.array([latent.used.get(name, False) for name in layout.modalities])
        ages = np.array([latent.ages_s.get(name, NEVER_S) for name in layout.modalities])
        ages = np.where(ages == NEVER_S, np.inf, ages)
        return self._policy.act(layout.build(latent.mean, latent.std, mask, ages))

    @property
    def _rest(self) -> NDArray[Any]:
        """What is sent when the policy cannot act."""
        return self._last if self._hold and self._last is not None else self._safe

    def _send(
        self,
        wanted: NDArray[Any],
        now_ns: int,
        stamp_ns: int,
        reason: str,
        latent: Latent | None = None,
    ) -> None:
        """Publish an action within all limits, and why it is the safe one if it is."""
        values = np.clip(np.asarray(wanted, np.float64), self._low, self._high)
        change = float(self.parameters['max_change_per_s']) * self._period_s
        if change and self._last is not None:
            values = np.clip(values, self._last - change, self._last + change)
        self._last, self._acted_ns = values, now_ns
        self._state, self._reason = (SAFE if reason else ACTING), reason
        self._actions += 1
        self._safe_actions += bool(reason)
        action = Action(values, self._names, self.parameters['quantity'], stamp_ns, self._period_s)
        self._tell(self._publisher, self._codec.encode(action))
        if stamp_ns:
            self._times.add({'latent_age': (now_ns - stamp_ns) * 1e-6})
        if reason and self._throttle.ready(reason.split(' ')[0]):
            self.get_logger().warning(f'safe action: {reason}')
        facts: dict[str, Any] = {'state': self._state, 'reason': reason}
        if latent is not None:
            facts['latent_age_ms'] = f'{(now_ns - stamp_ns) * 1e-6:.2f}'
            facts['mean_std'] = f'{float(latent.std.mean()):.4f}'
            facts['used'] = ','.join(name for name, used in latent.used.items() if used)
        facts['action'] = ','.join(f'{value:.6g}' for value in values)
        entry = make_status(f'{self.get_name()}: action', self._level, reason or 'ok', facts)
        self._tell(self._status, DiagnosticArray(header=make_header(stamp_ns), status=[entry]))

    def _tell(self, publisher: Any, message: Any) -> None:
        """Publish; after the shutdown, which any thread may see first, nothing more."""
        try:
            publisher.publish(message)
        except RuntimeError:
            if self.context.ok():
                raise

    def _watch(self) -> None:
        """Send the safe action if no latent came in time."""
        if self._state == WAITING:
            return
        now_ns = self.get_clock().now().nanoseconds
        quiet_s = (now_ns - self._acted_ns) * 1e-9
        if quiet_s < 0.0:
            self._acted_ns = now_ns  # a clock that starts again
        elif quiet_s >= MISS_PERIODS * self._period_s - 1e-6:
            self._misses += 1
            self._send(self._rest, now_ns, 0, f'no latent for {quiet_s:.3g} s; look at cmi')

    @property
    def _level(self) -> bytes:
        if self._state == ACTING:
            return bytes(DiagnosticStatus.OK)
        return bytes(DiagnosticStatus.ERROR if self._state == SAFE else DiagnosticStatus.WARN)

    def _report(self) -> None:
        """Publish the diagnostics."""
        inactive = f'not active; "ros2 lifecycle set {self.get_fully_qualified_name()} activate"'
        reason = self._reason if self._active else inactive
        level = self._level if self._active else DiagnosticStatus.WARN
        spec = self._policy.spec
        values = {
            'state': self._state,
            'actions': self._actions,
            'action_rate_hz': f'{self._rates.rate_hz("actions", self._actions):.2f}',
            'safe_actions': self._safe_actions,
            'deadline_misses': self._misses,
            'latents_refused': self._refused,
            'policy': self._policy.path,
            'bundle': f'latent/{spec.bundle}@{spec.bundle_hash[:8]}',
            **self._times.percentiles(),
        }
        entry = make_status(f'{self.get_name()}: actions', level, reason or 'ok', values)
        header = make_header(self.get_clock().now().nanoseconds)
        self._tell(self._diagnostics, DiagnosticArray(header=header, status=[entry]))


def main(args: list[str] | None = None) -> int:
    """Run the node in a process of its own."""
    return run_node(PolicyNode, start_if_wanted, args, lambda node: node.parameters['executor'])


if __name__ == '__main__':
    sys.exit(main())
