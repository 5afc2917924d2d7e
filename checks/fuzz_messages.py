"""
Send malformed messages through the node's input path: streams, windows, transforms, fusion.

    python -m checks.fuzz_messages --messages 1000000 --json fuzz.json

Real messages of every type that a modality can come in are broken field by field and byte by
byte. Exit code 0 only if no exception escaped, no codec failed in a way that it did not expect,
every latent was finite, and the memory stayed flat. `--seed` repeats a run.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from checks.malformed_messages import BREAKS, real_messages
from mm_perception.bundle import Bundle
from mm_perception.engines.build import build_engine
from mm_perception.fusion.health import UNREADABLE, Limits
from mm_perception.fusion.perception import Perception
from mm_perception.fusion.results import Demand, Fused
from mm_perception.model.build import build_model
from mm_perception.ros.cmi.diagnostics import status_message
from mm_perception.ros.codecs import input_codec
from mm_perception.spec import ModalitySpec, ModelSpec

START_NS = 1_700_000_000_000_000_000
STEP_NS = 2_000_000
PER_TICK = 4
MEMORY_BYTES = 8 << 30
GROWTH = 0.01
GROWTH_MIB = 4.0
LABELS = tuple('0123456789')
NETWORK = {'type': 'dense', 'hidden': (8,)}
INPUTS = (
    ('image', 'image', 'sensor_msgs/msg/Image', {}),
    ('depth', 'image', 'sensor_msgs/msg/Image', {'channels': 3, 'square': False}),
    ('photo', 'image', 'sensor_msgs/msg/CompressedImage', {'invert': True}),
    ('speech', 'sound', 'sensor_msgs/msg/PointCloud2', {}),
    ('hum', 'sound', 'sensor_msgs/msg/PointCloud2', {'window': 'sliding'}),
    ('bytes', 'sound', 'std_msgs/msg/UInt8MultiArray', {'raw_rate_hz': 8000}),
    ('samples', 'sound', 'std_msgs/msg/Int16MultiArray', {'raw_rate_hz': 8000}),
    ('levels', 'sound', 'std_msgs/msg/Float32MultiArray', {'raw_rate_hz': 8000}),
    ('stroke', 'trajectory', 'trajectory_msgs/msg/JointTrajectory', {}),
    ('motion', 'trajectory', 'trajectory_msgs/msg/JointTrajectory', {'spacing': 'time'}),
    ('pen', 'trajectory', 'geometry_msgs/msg/PointStamped', {}),
    ('arm', 'trajectory', 'sensor_msgs/msg/JointState', {'window': 'sliding'}),
    ('symbol', 'symbol', 'std_msgs/msg/String', {'labels': LABELS}),
    ('joints', 'vector', 'sensor_msgs/msg/JointState',
     {'low': (0, 0), 'high': (500, 500), 'names': ('elbow', 'wrist')}),
    ('pair', 'vector', 'std_msgs/msg/Float32MultiArray', {'low': (0, 0), 'high': (500, 500)}),
    ('table', 'vector', 'sensor_msgs/msg/PointCloud2', {'low': (0, 0), 'high': (500, 500)}),
    ('cloud', 'image', 'sensor_msgs/msg/PointCloud2', {'full_scale': 9.0}),
    ('place', 'vector', 'sensor_msgs/msg/NavSatFix', {'low': (0,) * 3, 'high': (90,) * 3}),
    ('pose', 'vector', 'geometry_msgs/msg/PoseStamped', {'low': (-9,) * 9, 'high': (9,) * 9}),
    ('force', 'vector', 'geometry_msgs/msg/WrenchStamped', {'low': (-9,) * 6, 'high': (9,) * 6}),
    ('imu', 'vector', 'sensor_msgs/msg/Imu', {'low': (-9,) * 6, 'high': (9,) * 6}),
)  # fmt: skip


def fuzzed_spec() -> ModelSpec:
    """A model with every kind of modality and every type of message, and tiny networks."""
    modalities = tuple(
        ModalitySpec(
            name,
            kind,
            2,
            preprocessing=options,
            network=NETWORK,
            message=message,
            likelihood='categorical' if kind == 'symbol' else 'gaussian',
        )
        for name, kind, message, options in INPUTS
    )
    return ModelSpec(
        modalities, joint_latent_dim=4, message_dim=8, joint_hidden=(8,), decoder_hidden=(8,)
    )


class InputPath:
    """
    What the node does with messages, without the middleware: streams, then fusion.

    :param spec: of the model; its weights are random.
    """

    def __init__(self, spec: ModelSpec) -> None:
        torch.manual_seed(0)
        weights = {name: value.numpy() for name, value in build_model(spec).state_dict().items()}
        bundle = Bundle('fuzzed', spec, weights)
        self.perception = Perception(bundle, build_engine(bundle, 'cpu'))
        self.streams = self.perception.streams[0]
        self.now_ns = START_NS
        self.fused: Fused | None = None
        self._since_tick = 0
        self.refused: Counter[str] = Counter()
        self.defects: list[str] = []
        self._limits = {
            name: Limits(enabled=True, max_age_s=1.0, hold=k % 3 == 0, future_s=0.5)
            for k, name in enumerate(self.perception.names)
        }
        self._codecs = {
            m.name: input_codec(m.kind, m.message) for m in self.perception.bundle.spec.modalities
        }

    def take(self, name: str, message: Any) -> None:
        """Let a message of a modality arrive; after some, fuse."""
        stream = self.streams[name]
        try:
            raw, stamp_ns = self._codecs[name].decode(message, self.now_ns, stream.modality)
        except Exception as error:  # noqa: BLE001 - as the node does
            taken = stream.refuse(error, self.now_ns)
        else:
            taken = stream.take(raw, stamp_ns, self.now_ns, self._limits[name])
        self.refused[name] += bool(taken.refused)
        if taken.defect is not None or '\n' in taken.refused:
            self.defects.append(f'{name}: {taken.refused}')
        self.now_ns += STEP_NS
        self._since_tick += 1
        if self._since_tick == PER_TICK:
            self._since_tick = 0
            self._tick(name)

    def _tick(self, name: str) -> None:
        for stream in self.streams.values():
            stream.advance(self.now_ns)
        readings = {name: stream.snapshot() for name, stream in self.streams.items()}
        (fused,) = self.perception.tick([readings], self._limits, Demand(), self.now_ns)
        self.fused = fused
        status_message(fused, self.perception.bundle.frame_id)
        for verdict in fused.verdicts.values():
            if verdict.reason.startswith(UNREADABLE) or '\n' in verdict.reason:
                self.defects.append(f'{name}: {verdict.reason}')
        result = fused.result
        if result is not None and not np.isfinite([result.mean, result.std]).all():
            self.defects.append(f'{name}: the latent is not finite')


def fuzz(messages: int, seed: int = 0, progress: bool = False) -> dict[str, Any]:
    """
    Let malformed messages arrive, with one healthy message in ten between them.

    :param messages: number of malformed messages.
    :returns: counts and figures, as for JSON.
    """
    rng = random.Random(seed)
    path = InputPath(fuzzed_spec())
    messages_of = real_messages()
    counts: Counter[str] = Counter()
    memory_mib, slowest_ms, begin_s = [], 0.0, time.monotonic()
    while counts['malformed'] < messages:
        name, _, message_type, _ = rng.choice(INPUTS)
        real = rng.choice(messages_of[message_type])
        way = rng.choices(BREAKS, (1, 5, 5))[0]
        message = way(real.at(path.now_ns), rng)
        if message is None:
            counts['refused by the middleware'] += 1
            continue
        start_s = time.thread_time()
        try:
            path.take(name, message)
        except Exception as error:  # noqa: BLE001 - what is looked for
            path.defects.append(f'{name}: escaped: {error!r}')
        slowest_ms = max(slowest_ms, (time.thread_time() - start_s) * 1e3)
        counts['healthy' if way is BREAKS[0] else 'malformed'] += 1
        if counts['malformed'] > len(memory_mib) * messages / 50:
            memory_mib.append(resident_mib())
            if progress:
                print(f'{counts["malformed"]} messages, {memory_mib[-1]:.1f} MiB', flush=True)
    figures = {'slowest_cpu_ms': round(slowest_ms, 1), 'seed': seed}
    return summary(path, counts, memory_mib, time.monotonic() - begin_s) | figures


def summary(
    path: InputPath, counts: Counter[str], memory_mib: list[float], seconds: float
) -> dict[str, Any]:
    """Counts and figures of a run."""
    warm, last = memory_mib[len(memory_mib) // 5], memory_mib[-1]
    return {
        **counts,
        'refused by the node': path.refused.total(),
        'defects': len(path.defects),
        'first_defects': path.defects[:10],
        'memory_mib': {'after_warm_up': round(warm, 1), 'end': round(last, 1)},
        'seconds': round(seconds, 1),
        'messages_per_s': round(counts['malformed'] / seconds),
        'ok': not path.defects and last - warm < max(GROWTH * warm, GROWTH_MIB),
    }


def resident_mib() -> float:
    """Memory of this process, without what the allocator keeps for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return float(psutil.Process().memory_info().rss / 2**20)


def main(args: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--messages', type=int, default=1_000_000, help='malformed messages')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', type=Path, help='file for the result')
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    # An allocation that a message could ask for without bound becomes an error.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    result = fuzz(options.messages, options.seed, progress=True)
    text = json.dumps(result, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + '\n')
    return 0 if result['ok'] else 1


if __name__ == '__main__':
    sys.exit(main())
