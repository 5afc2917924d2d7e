"""A policy keeps a pendulum up while its sensors die: three processes, and what they reached."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import gymnasium
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, QoSProfile
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String

from mm_perception.bundle import Bundle
from mm_perception.fusion.loading import load_perception
from mm_perception.lab.demo.log import Phase
from mm_perception.lab.gym.node import LOCKSTEP, PAUSE_S, REAL_TIME, STAMPED
from mm_perception.lab.harness.client import RosClient
from mm_perception.lab.harness.processes import (
    NodeFailed,
    NodeProcess,
    interruptions_deferred,
    isolate,
    running,
    viewing,
)
from mm_perception.rl.pendulum import ID, RATE_HZ, STEPS
from mm_perception.rl.policy import Policy, load_policy
from mm_perception.ros.codecs import stamp_of

LOST_S = 0.75
QUICK_STEPS = 100
UPRIGHT_RAD, LAST_S = 0.35, 1.0
SPARE_S = 60.0
REFRESH_S = 0.1
WAIT_S = 1.0
STEP_NS = round(1e9 / RATE_HZ)


@dataclass(frozen=True)
class ActingOptions:
    """
    What is demonstrated.

    :param lockstep: as fast as the machine goes, and repeatable, rather than in real time.
    :param scale: of the episodes' length.
    :param seed: episode k begins from seed + k.
    :param quick: short episodes, with one sensor out at a time.
    """

    lockstep: bool = False
    scale: float = 1.0
    device: str = 'auto'
    seed: int = 0
    quick: bool = False

    @property
    def steps(self) -> int:
        """Steps of an episode."""
        return max(round((QUICK_STEPS if self.quick else STEPS) * self.scale), 2)


@dataclass
class Acted:
    """
    What came over the topics.

    :param truths: what the environment told, in order.
    :param used: stamp of a latent to the modalities that it came from.
    :param ages_ms: of the latents that the policy acted on.
    :param stamps_ns: of all latents.
    """

    truths: list[dict[str, Any]] = field(default_factory=list)
    used: dict[int, tuple[str, ...]] = field(default_factory=dict)
    ages_ms: list[float] = field(default_factory=list)
    stamps_ns: list[int] = field(default_factory=list)

    @property
    def begun(self) -> list[dict[str, Any]]:
        """Truths of the episodes, in order."""
        return [truth for truth in self.truths if truth['begun']]

    def episode(self, number: int) -> list[dict[str, Any]]:
        """Truths of an episode."""
        return [truth for truth in self.begun if truth['episode'] == number and not truth['done']]


class ActingObserver(RosClient):
    """Receives what the three nodes tell, in a thread of its own."""

    def __init__(self, domain_id: int) -> None:
        super().__init__('observer', domain_id)
        self.log = Acted()
        latched = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.subscribe(String, 'gym/truth', self._take_truth, latched)
        self.subscribe(PointCloud2, 'latent', self._take_latent)
        self.subscribe(DiagnosticArray, 'policy/status', self._take_status)
        self.serve()

    def _take_truth(self, message: String) -> None:
        self.log.truths.append(json.loads(message.data))

    def _take_latent(self, message: PointCloud2) -> None:
        self.log.stamps_ns.append(stamp_of(message.header, 0))

    def _take_status(self, message: DiagnosticArray) -> None:
        values = {value.key: value.value for value in message.status[0].values}
        stamp_ns = stamp_of(message.header, 0)
        if stamp_ns and values['state'] == 'acting':
            self.log.used[stamp_ns] = tuple(filter(None, values['used'].split(',')))
            self.log.ages_ms.append(float(values['latent_age_ms']))


def plan_episodes(names: Sequence[str], options: ActingOptions) -> list[Phase]:
    """One episode with all sensors, and one each without one of them, and without two."""
    most = 1 if options.quick else min(2, len(names) - 1)
    missing = [each for k in range(most + 1) for each in itertools.combinations(names, k)]
    episode_s = options.steps / RATE_HZ
    return [Phase(each, k * episode_s, episode_s) for k, each in enumerate(missing)]


class Offline:
    """
    The same episodes without ROS, and without a policy, as what is reached is measured by them.

    :param bundle: that fuses.
    :param policy: that acts on its latent.
    :param steps: of an episode.
    """

    def __init__(self, bundle: Bundle, policy: Policy, steps: int) -> None:
        self._perception = load_perception(str(bundle.path))
        self._policy, self._steps = policy, steps
        self._now_ns = time.time_ns()

    def latent(self, seed: int, missing: Sequence[str] = ()) -> float:
        """Return of the policy while some sensors die as they do in the demonstration."""
        layout, step = self._policy.spec.observation, 0
        self._now_ns += round(PAUSE_S * 1e9)

        def choose(observation: Mapping[str, Any]) -> Any:
            nonlocal step
            for name in self._perception.names:
                if name not in missing or step < LOST_S * RATE_HZ:
                    self._perception.update(name, observation[name], self._now_ns)
            result = self._perception.infer((), self._now_ns)
            self._now_ns, step = self._now_ns + STEP_NS, step + 1
            return self._policy.act(layout.build(result.latent, result.std, result.mask))

        return self._play(seed, choose)

    def random(self, seed: int) -> float:
        """Return of random actions."""
        rng = np.random.default_rng(seed)
        actions = self._policy.spec.actions
        return self._play(seed, lambda observation: rng.uniform(actions.low, actions.high))

    def zero(self, seed: int) -> float:
        """Return of no action at all."""
        zeros = np.zeros(len(self._policy.spec.actions.names))
        return self._play(seed, lambda observation: zeros)

    def _play(self, seed: int, choose: Callable[[Mapping[str, Any]], Any]) -> float:
        env = gymnasium.make(ID, max_episode_steps=self._steps)
        observation, _ = env.reset(seed=seed)
        total, cut = 0.0, False
        while not cut:
            action = np.asarray(choose(observation), np.float32)
            observation, reward, _, cut, _ = env.step(action)
            total += float(reward)
        env.close()
        return total


class ActingDemo:
    """
    Runs the three nodes, observes them, and compares.

    :param bundle: of the pendulum, with a policy in ``policy/``.
    """

    def __init__(self, bundle: Bundle, options: ActingOptions, console: Console) -> None:
        self._bundle, self._options, self._console = bundle, options, console
        self._policy = load_policy(bundle.path)
        self._policy.check_bundle(bundle.hash)
        self.phases = plan_episodes(bundle.spec.names, options)

    def run(self) -> tuple[dict[str, Any], Acted]:
        """
        Run all episodes.

        :returns: what goes into summary.json, and what came over the topics.
        :raises NodeFailed: if a node ends or says nothing.
        """
        begin_s = time.monotonic()
        started = datetime.now(timezone.utc).isoformat(timespec='seconds')
        offline = Offline(self._bundle, self._policy, self._options.steps)
        domain = isolate()
        with ExitStack() as stack:
            page = stack.enter_context(viewing())
            nodes = [
                stack.enter_context(running(name, self._parameters(name)))
                for name in ('cmi_node', 'policy_node', 'gym_node')
            ]
            with interruptions_deferred():
                observer = ActingObserver(domain)
                stack.callback(observer.close)
            self._console.print(f'ROS_DOMAIN_ID={domain}; starting the nodes', style='dim')
            observer.expect(lambda: observer.log.begun, nodes[2], 'no action came')
            self._console.print(page())
            rows = self._watch(observer.log, offline, nodes)
        summary = self._summary(observer.log, rows)
        summary |= {'seconds': round(time.monotonic() - begin_s, 1), 'started': started}
        return summary, observer.log

    def _parameters(self, name: str) -> dict[str, Any]:
        path, lockstep = str(self._bundle.path.resolve()), self._options.lockstep
        # Numbers come with stamps, whatever the bundle says: only so they belong together.
        vectors = [m.name for m in self._bundle.spec.modalities if m.kind == 'vector']
        if name == 'gym_node':
            return {
                'bundle': path,
                'environment': f'mm_perception.rl.pendulum:{ID}',
                'options': json.dumps({'max_episode_steps': self._options.steps}),
                'mode': LOCKSTEP if lockstep else REAL_TIME,
                'rate_hz': RATE_HZ,
                'seed': self._options.seed,
                'episodes': len(self.phases),
                'schedule': json.dumps(self._schedule()),
                **{f'sensors.{vector}.message': STAMPED for vector in vectors},
            }
        shared = {'autostart': True, 'use_sim_time': lockstep}
        if name == 'policy_node':
            return {**shared, 'policy': path, 'message': STAMPED}
        waits = {'stamp.wait_s': WAIT_S} if lockstep else {}
        messages = {f'modalities.{vector}.message': STAMPED for vector in vectors}
        chosen = {'bundle': path, 'device': self._options.device, 'trigger': 'stamp'}
        return {**shared, **chosen, **waits, **messages}

    def _schedule(self) -> list[dict[str, Any]]:
        return [
            {
                'sensors': list(phase.missing),
                'start_s': phase.start_s + LOST_S,
                'duration_s': max(phase.duration_s - LOST_S, 0.0),
                'phase': phase.name,
            }
            for phase in self.phases
        ]

    def _watch(
        self, log: Acted, offline: Offline, nodes: Sequence[NodeProcess]
    ) -> list[dict[str, Any]]:
        """Show what happens until all episodes are over; a row of figures for each."""
        rows: list[dict[str, Any]] = []
        end_s = time.monotonic() + SPARE_S + 2.0 * sum(p.duration_s for p in self.phases)
        with ExitStack() as stack:
            live = None
            if self._console.is_terminal:
                live = Live(console=self._console, auto_refresh=False, transient=True)
                stack.enter_context(live)
            while len(rows) < len(self.phases):
                for node in nodes:
                    node.check()
                newest = log.begun[-1]
                if len(newest['returns']) > len(rows):
                    rows.append(self._row(len(rows), log, newest['returns'], offline))
                    self._console.print(_line(rows[-1]), highlight=False, soft_wrap=True)
                elif live is not None:
                    live.update(self._screen(newest, log), refresh=True)
                if time.monotonic() > end_s:
                    raise NodeFailed(f'gym_node does not come to an end: {nodes[2].log_tail()}')
                time.sleep(REFRESH_S)
        return rows

    def _row(
        self, k: int, log: Acted, returns: Sequence[float], offline: Offline
    ) -> dict[str, Any]:
        phase, seed = self.phases[k], self._options.seed + k
        everything, random = offline.latent(seed), offline.random(seed)
        same = offline.latent(seed, phase.missing)
        span = everything - random
        return {
            'missing': list(phase.missing),
            'return': round(returns[k], 3),
            'offline': round(same, 3),
            'all_sensors': round(everything, 3),
            'zero_action': round(offline.zero(seed), 3),
            'random': round(random, 3),
            'normalised': round((returns[k] - random) / span, 4),
            'live_difference': round(abs(returns[k] - same) / span, 4),
            'upright': _upright(log.episode(k)),
        }

    def _screen(self, truth: Mapping[str, Any], log: Acted) -> Group:
        names = self._bundle.spec.names
        phase = self.phases[min(truth['episode'], len(self.phases) - 1)]
        table = Table(box=None, padding=(0, 2))
        for heading in ('sensor', 'works', 'fused'):
            table.add_column(heading, min_width=len(heading))
        used = next(reversed(log.used.values()), ()) if log.used else ()
        for name in names:
            works = Text('OUT', 'bold red') if name in truth['faults'] else Text('yes', 'green')
            table.add_row(name, works, Text('yes', 'green') if name in used else Text('no', 'dim'))
        title = f'{phase.name}   step {truth["step"]}   return {truth["return"]:.1f}'
        age = f'latent {log.ages_ms[-1]:.1f} ms old' if log.ages_ms else ''
        pole = Text('\n'.join(draw_pole(truth['state'][0])), 'bold')
        return Group('', Text(title, 'bold'), pole, table, Text(age, 'dim'))

    def _summary(self, log: Acted, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        acted = {truth['stamp_ns'] for truth in log.begun if not truth['done']}
        fused = [stamp_ns for stamp_ns in log.stamps_ns if stamp_ns in acted]
        per_step = len(fused) / max(len(set(fused)), 1)
        ages_ms = log.ages_ms or [math.nan]
        age_ms = {f'p{q}': round(float(np.percentile(ages_ms, q)), 2) for q in (50, 99)}
        by_count = {
            k: min((r['normalised'] for r in rows if len(r['missing']) == k), default=None)
            for k in (1, 2)
        }
        targets = [
            _target('return without one, normalised', by_count[1], 0.97),
            _target('return without two, normalised', by_count[2], 0.9),
            _target('live beside offline', max(r['live_difference'] for r in rows), 0.0, 0.03),
            _target('fusions per step', round(per_step, 4), 1.0, 1.02),
        ]
        if not self._options.lockstep:
            targets.append(_target('age of the latent p99 (ms)', age_ms['p99'], 0.0, 10.0))
        targets = [target for target in targets if target['value'] is not None]
        return {
            'ok': all(target['met'] for target in targets),
            'bundle': self._bundle.frame_id,
            'policy': dict(self._policy.spec.algorithm),
            'mode': LOCKSTEP if self._options.lockstep else REAL_TIME,
            'rate_hz': RATE_HZ,
            'steps': self._options.steps,
            'lost_at_step': round(LOST_S * RATE_HZ),
            'latency_ms': None if self._options.lockstep else age_ms,
            'late_steps': log.begun[-1]['late'],
            'targets': targets,
            'episodes': list(rows),
        }


def _target(
    name: str, value: float | None, at_least: float, at_most: float | None = None
) -> dict[str, Any]:
    met = value is not None and at_least <= value <= (math.inf if at_most is None else at_most)
    limits = {'at_least': at_least} | ({} if at_most is None else {'at_most': at_most})
    return {'name': name, 'value': value, **limits, 'met': met}


def _upright(truths: Sequence[Mapping[str, Any]]) -> float | None:
    """Share of the last second in which the pole was up; None if nothing came of it."""
    last = truths[-round(LAST_S * RATE_HZ) :]
    angles = [math.remainder(truth['state'][0], 2.0 * math.pi) for truth in last]
    up = [abs(angle) < UPRIGHT_RAD for angle in angles]
    return round(sum(up) / len(up), 3) if up else None


def _line(row: Mapping[str, Any]) -> str:
    name = f'without {" and ".join(row["missing"])}' if row['missing'] else 'all sensors'
    up = '-' if row['upright'] is None else f'{row["upright"]:.0%}'
    return (
        f'{name:34} return {row["return"]:8.1f}   offline {row["offline"]:8.1f}   zero action'
        f' {row["zero_action"]:8.1f}   random {row["random"]:8.1f}   normalised'
        f' {row["normalised"]:6.1%}   up {up}'
    )


def draw_pole(angle: float, rows: int = 9) -> list[str]:
    """Draw the pendulum in lines of text; at 0 rad it is upright, and it turns to the left."""
    middle, reach = rows // 2, rows // 2
    canvas = [[' '] * (4 * reach + 3) for _ in range(rows)]
    for share in np.linspace(0.0, 1.0, 4 * rows):
        down = round(middle - share * reach * math.cos(angle))
        across = round(2 * reach + 1 - 2 * share * reach * math.sin(angle))
        canvas[down][across] = 'o' if share < 1.0 else '@'
    canvas[middle][2 * reach + 1] = '+'
    return [''.join(line).rstrip() for line in canvas]
