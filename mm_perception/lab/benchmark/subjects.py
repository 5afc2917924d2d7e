"""What the benchmark measures: engines, random bundles, subjects in other processes."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from mm_perception.bundle import Bundle, load_bundle
from mm_perception.data.dataset import Dataset
from mm_perception.engines.build import build_engine
from mm_perception.engines.engine import FLOAT32, INT8, Engine
from mm_perception.errors import EngineUnavailable
from mm_perception.fusion.session import InferenceSession
from mm_perception.lab.benchmark.measurements import Case, Cases, clocked
from mm_perception.lab.benchmark.remote import RemoteCases, serve
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import Array
from mm_perception.spec import ModalitySpec, ModelSpec

ELEMENTS = 32
"""Numbers per synthetic modality: joint positions, velocities and efforts of a small arm."""


def vector_spec(count: int) -> ModelSpec:
    """A model of ``count`` vector modalities, networks of the sizes of the Nexus paper."""
    ranges = {'low': (-1.0,) * ELEMENTS, 'high': (1.0,) * ELEMENTS}
    modalities = tuple(ModalitySpec(f'sensor_{k}', 'vector', 16, ranges) for k in range(count))
    return ModelSpec(
        modalities,
        joint_latent_dim=32,
        message_dim=512,
        joint_hidden=(512, 512),
        decoder_hidden=(512, 512, 512),
    )


def random_bundle(count: int) -> Bundle:
    """A model of :func:`vector_spec` with random weights, ready for every engine."""
    import torch

    from mm_perception.engines.export import with_graphs
    from mm_perception.model.build import build_model

    torch.manual_seed(0)
    spec = vector_spec(count)
    weights = {k: v.numpy() for k, v in build_model(spec).state_dict().items()}
    return with_graphs(Bundle(f'synthetic_{count}', spec, weights))


def random_dataset(spec: ModelSpec, rows: int) -> Dataset:
    """Random values of the right shapes, every row with values of its own."""
    return Dataset(
        names=spec.names,
        values=random_data(spec, rows),
        index={name: np.arange(rows) for name in spec.names},
        present=np.ones((rows, len(spec.names)), bool),
    )


ENGINES = (
    ('onnx', 'cpu', FLOAT32),
    ('onnx', 'cpu', INT8),
    ('torch', 'cpu', FLOAT32),
    ('onnx', 'cuda', FLOAT32),
    ('torch', 'cuda', FLOAT32),
    ('torch', 'cuda', 'bfloat16'),
    ('tensorrt', 'cuda', 'float16'),
    ('tensorrt', 'cuda', FLOAT32),  # last: it turns TF32 off for good
)
GPU_GRAPH = 'torch-cuda-graph'
STREAMS = 64
"""Of one session, beside as many sessions."""
Made = tuple[Cases, dict[str, Any]]


Step = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
"""Modalities of a tick: present, new, decoded."""


def all_new(names: tuple[str, ...], present: int) -> list[Step]:
    """All of the first ``present`` modalities new, all modalities decoded."""
    return [(names[:present], names[:present], names)]


def typical(names: tuple[str, ...], present: int) -> list[Step]:
    """One new, one missing decoded; each time another new one and another missing one."""
    steps: list[Step] = []
    for k, missing in enumerate(names):
        observed = (names[k + 1 :] + names[:k])[:present]
        steps += [(observed, (new,), (missing,)) for new in observed]
    return steps


def one_new(names: tuple[str, ...]) -> list[Step]:
    """All present, one of them new, one decoded."""
    return [(names, (new,), (new,)) for new in names]


def ticking(engine: Engine, spec: ModelSpec, steps: Sequence[Step]) -> Callable[[], object]:
    """
    Give a call that makes the next tick over random data, through the session of the node.

    :param engine: of a bundle with this spec.
    :param steps: what the ticks do, again and again.
    """
    session, data = InferenceSession(engine, spec), random_data(spec, 1)
    for name in spec.names:
        session.update(name, data[name][0])
    session.infer(spec.names, spec.names)
    following = itertools.cycle(steps)

    def tick() -> object:
        observed, new, decoded = next(following)
        for name in new:
            session.update(name, data[name][0])
        return session.infer(observed, decoded)

    return tick


def tick_cases(label: str, engine: Engine, spec: ModelSpec, threads: int) -> Cases:
    """Whole and typical ticks of an engine, for every number of modalities present."""
    made, count = {}, len(spec.names)
    for name, pattern, most in (
        ('full_tick', all_new, count),
        ('typical_tick', typical, count - 1),
    ):
        for present in range(1, most + 1):
            steps = pattern(spec.names, present)
            made[Case(name, label, threads, present)] = clocked(ticking(engine, spec, steps))
    return made


def stage_cases(label: str, engine: Engine, spec: ModelSpec, threads: int) -> Cases:
    """Every encoder, the fusion, every decoder, by themselves."""
    data, present = random_data(spec, 1), np.ones((1, len(spec.modalities)), bool)
    codes = {name: engine.encode(name, data[name]) for name in spec.names}
    joint, _ = engine.fuse(codes, present)
    calls: dict[str, Callable[[], object]] = {}
    for name in spec.names:
        calls[f'encode_{name}'] = partial(engine.encode, name, data[name])
    calls['fuse'] = partial(engine.fuse, codes, present)
    for name in spec.names:
        calls[f'decode_{name}'] = partial(engine.decode, name, joint)
    count = {'fuse': len(spec.modalities)}
    return {
        Case(f'stage:{stage}', label, threads, count.get(stage, 1)): clocked(call)
        for stage, call in calls.items()
    }


def throughput_cases(
    label: str, engine: Engine, spec: ModelSpec, threads: int, batches: Sequence[int]
) -> Cases:
    """All modalities encoded, fused and decoded at larger batches."""
    count = len(spec.modalities)

    def whole(batch: int) -> Callable[[], object]:
        data, present = random_data(spec, batch), np.ones((batch, count), bool)

        def run() -> object:
            codes = {name: engine.encode(name, data[name]) for name in spec.names}
            joint, _ = engine.fuse(codes, present)
            return [engine.decode(name, joint) for name in spec.names]

        return run

    calls = {f'batch_{batch}': whole(batch) for batch in batches}
    calls[f'streams_in_one_session_{STREAMS}'] = streaming(engine, spec, 1, STREAMS)
    calls[f'streams_in_own_sessions_{STREAMS}'] = streaming(engine, spec, STREAMS, 1)
    return {
        Case(f'throughput_{name}', label, threads, count): clocked(call)
        for name, call in calls.items()
    }


def streaming(engine: Engine, spec: ModelSpec, count: int, streams: int) -> Callable[[], object]:
    """Whole ticks of so many sessions, each of so many streams."""
    sessions = [InferenceSession(engine, spec, streams=streams) for _ in range(count)]
    data = random_data(spec, 1)

    def run() -> object:
        for session in sessions:
            for name, stream in itertools.product(spec.names, range(streams)):
                session.update(name, data[name][0], stream)
        return [session.infer(spec.names, spec.names) for session in sessions]

    return run


def random_data(spec: ModelSpec, batch: int) -> dict[str, Array]:
    """Values in 0..1 of every modality, ``float32[batch, *shape]``."""
    rng = np.random.default_rng(0)
    shapes = {m.name: build_modality(m).shape for m in spec.modalities}
    return {name: rng.random((batch, *shape), np.float32) for name, shape in shapes.items()}


def available_engines(bundle: Bundle, threads: int) -> tuple[dict[str, Engine], list[str]]:
    """Engines that can be built here, by the names of their rows, and why the others cannot."""
    engines: dict[str, Engine] = {}
    missing = []
    for kind, device, precision in ENGINES:
        try:
            engine = build_engine(bundle, device, kind, threads, precision)
        except EngineUnavailable as error:
            missing.append(str(error))
            continue
        plain = device == 'cpu' or device in engine.name
        label = engine.name if plain else f'{engine.name}-{device}'
        engines[label if precision == FLOAT32 else f'{label}-{precision}'] = engine
    if GPU_GRAPH in engines:
        from mm_perception.engines.torch_engine import TorchEngine

        engines['torch-cuda'] = TorchEngine(bundle, 'cuda', threads, eager=True)
    return engines, missing


def make_engine_subjects(bundle: str, threads: int, batches: Sequence[int]) -> Made:
    """Make the cases of the section ``engine``."""
    loaded = load_bundle(bundle)
    engines, missing = available_engines(loaded, threads)
    made: Cases = {}
    for label, engine in engines.items():
        subject = label, engine, loaded.spec, threads
        made |= tick_cases(*subject)
        made |= stage_cases(*subject)
        made |= throughput_cases(*subject, batches)
    return made, {'missing': missing}


def make_whole_ticks(bundle: str, threads: int) -> Made:
    """Whole ticks alone, to set beside those of other libraries."""
    loaded = load_bundle(bundle)
    engines, missing = available_engines(loaded, threads)
    count = len(loaded.spec.modalities)
    made = {
        Case('full_tick', label, threads, count): clocked(
            ticking(engine, loaded.spec, all_new(loaded.spec.names, count))
        )
        for label, engine in engines.items()
    }
    return made, {'missing': missing}


def make_scaling_subjects(counts: Sequence[int], threads: int) -> Made:
    """Make the cases of the section ``scaling``."""
    made: Cases = {}
    missing: list[str] = []
    for count in counts:
        bundle = random_bundle(count)
        engines, missing = available_engines(bundle, threads)
        for label, engine in engines.items():
            names = bundle.spec.names
            for name, steps in (
                ('full_tick', all_new(names, count)),
                ('one_new_tick', one_new(names)),
            ):
                call = ticking(engine, bundle.spec, steps)
                made[Case(name, label, threads, count)] = clocked(call)
    return made, {'missing': missing}


MAKERS: Mapping[str, Callable[..., Made]] = {
    'engine': make_engine_subjects,
    'whole_ticks': make_whole_ticks,
    'scaling': make_scaling_subjects,
}


def start_subjects(maker: str, threads: int, **options: Any) -> RemoteCases:
    """
    Start a process with cases.

    :param maker: key of :data:`MAKERS`.
    :param options: of the maker.
    :raises BenchmarkFailed: if it does not start.
    """
    request = json.dumps({'maker': maker, 'options': {'threads': threads, **options}})
    return RemoteCases([sys.executable, '-m', __name__, request], threads)


def main() -> None:
    """Serve what the command line asks for."""
    request = json.loads(sys.argv[1])
    serve(lambda: MAKERS[request['maker']](**request['options']))


if __name__ == '__main__':
    main()
