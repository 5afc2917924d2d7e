"""What the benchmark measures: engines, random bundles, subjects in other processes."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from mm_perception.bundle import Bundle, load_bundle
from mm_perception.data.dataset import Dataset
from mm_perception.engines.build import build_engine
from mm_perception.engines.engine import FLOAT32, INT8, Engine
from mm_perception.errors import EngineUnavailable
from mm_perception.fusion.session import InferenceSession
from mm_perception.lab.benchmark.remote import RemoteContestants, serve
from mm_perception.lab.benchmark.rows import Case, TimedCase, clocked
from mm_perception.modalities import build_modality
from mm_perception.modalities.base import Array
from mm_perception.spec import ModalitySpec, ModelSpec

ELEMENTS = 32
"""Numbers per synthetic modality: joint positions, velocities and efforts of a small arm."""


def vector_spec(count: int) -> ModelSpec:
    """A model of ``count`` vector modalities, networks of the default sizes."""
    ranges = {'low': (-1.0,) * ELEMENTS, 'high': (1.0,) * ELEMENTS}
    modalities = tuple(ModalitySpec(f'sensor_{k}', 'vector', 16, ranges) for k in range(count))
    return ModelSpec(modalities)


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
    rng = np.random.default_rng(0)
    shapes = {m.name: build_modality(m).shape for m in spec.modalities}
    return Dataset(
        names=spec.names,
        values={name: rng.random((rows, *shape), np.float32) for name, shape in shapes.items()},
        index={name: np.arange(rows) for name in shapes},
        present=np.ones((rows, len(shapes)), bool),
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
Contestants = dict[Case, TimedCase]
Made = tuple[Contestants, dict[str, Any]]


class Ticks:
    """
    Ticks over random data, through the session that the node uses.

    :param engine: of a bundle with this spec.
    """

    def __init__(self, engine: Engine, spec: ModelSpec) -> None:
        self._engine, self._spec = engine, spec
        self._data = random_data(spec, 1)

    def full(self, present: int) -> Callable[[], object]:
        """All of the first ``present`` modalities new, all modalities decoded."""
        names = self._spec.names
        session, observed = self._session(), names[:present]

        def tick() -> object:
            for name in observed:
                session.update(name, self._data[name][0])
            return session.infer(observed, names)

        return tick

    def typical(self, present: int) -> Callable[[], object]:
        """One new, one missing decoded; each time another new one and another missing one."""
        session, turns = self._session(), itertools.cycle(self._turns(present))

        def tick() -> object:
            observed, new, missing = next(turns)
            session.update(new, self._data[new][0])
            return session.infer(observed, (missing,))

        return tick

    def one_new(self) -> Callable[[], object]:
        """All present, one of them new, one decoded."""
        session, names = self._session(), self._spec.names
        turns = itertools.cycle(names)

        def tick() -> object:
            new = next(turns)
            session.update(new, self._data[new][0])
            return session.infer(names, (new,))

        return tick

    def _turns(self, present: int) -> Iterator[tuple[tuple[str, ...], str, str]]:
        names = self._spec.names
        for k, missing in enumerate(names):
            observed = (names[k + 1 :] + names[:k])[:present]
            for new in observed:
                yield observed, new, missing

    def _session(self) -> InferenceSession:
        """A session that has seen every modality."""
        session = InferenceSession(self._engine, self._spec)
        for name in self._spec.names:
            session.update(name, self._data[name][0])
        session.infer(self._spec.names, self._spec.names)
        return session


def tick_contestants(label: str, engine: Engine, spec: ModelSpec, threads: int) -> Contestants:
    """Whole and typical ticks of an engine, for every number of modalities present."""
    ticks, count = Ticks(engine, spec), len(spec.modalities)
    made = {}
    for present in range(1, count + 1):
        made[Case('full_tick', label, threads, present)] = clocked(ticks.full(present))
    for present in range(1, count):
        made[Case('typical_tick', label, threads, present)] = clocked(ticks.typical(present))
    return made


def stage_contestants(label: str, engine: Engine, spec: ModelSpec, threads: int) -> Contestants:
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


def throughput_contestants(
    label: str, engine: Engine, spec: ModelSpec, threads: int, batches: Sequence[int]
) -> Contestants:
    """All modalities encoded, fused and decoded at larger batches."""
    count = len(spec.modalities)

    def whole(batch: int) -> Callable[[], object]:
        data, present = random_data(spec, batch), np.ones((batch, count), bool)

        def run() -> object:
            codes = {name: engine.encode(name, data[name]) for name in spec.names}
            joint, _ = engine.fuse(codes, present)
            return [engine.decode(name, joint) for name in spec.names]

        return run

    return {
        Case(f'throughput_batch_{batch}', label, threads, count): clocked(whole(batch))
        for batch in batches
    }


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
    """Contestants of the section ``engine``."""
    loaded = load_bundle(bundle)
    engines, missing = available_engines(loaded, threads)
    made: Contestants = {}
    for label, engine in engines.items():
        subject = label, engine, loaded.spec, threads
        made |= tick_contestants(*subject)
        made |= stage_contestants(*subject)
        made |= throughput_contestants(*subject, batches)
    return made, {'missing': missing}


def make_whole_ticks(bundle: str, threads: int) -> Made:
    """Whole ticks alone, to set beside those of other libraries."""
    loaded = load_bundle(bundle)
    engines, missing = available_engines(loaded, threads)
    count = len(loaded.spec.modalities)
    made = {
        Case('full_tick', label, threads, count): clocked(Ticks(e, loaded.spec).full(count))
        for label, e in engines.items()
    }
    return made, {'missing': missing}


def make_scaling_subjects(counts: Sequence[int], threads: int) -> Made:
    """Contestants of the section ``scaling``."""
    made: Contestants = {}
    missing: list[str] = []
    for count in counts:
        bundle = random_bundle(count)
        engines, missing = available_engines(bundle, threads)
        for label, engine in engines.items():
            ticks = Ticks(engine, bundle.spec)
            made[Case('full_tick', label, threads, count)] = clocked(ticks.full(count))
            made[Case('one_new_tick', label, threads, count)] = clocked(ticks.one_new())
    return made, {'missing': missing}


MAKERS: Mapping[str, Callable[..., Made]] = {
    'engine': make_engine_subjects,
    'whole_ticks': make_whole_ticks,
    'scaling': make_scaling_subjects,
}


def start_subjects(maker: str, threads: int, **options: Any) -> RemoteContestants:
    """
    Start a process with contestants.

    :param maker: key of :data:`MAKERS`.
    :param options: of the maker.
    :raises BenchmarkFailed: if it does not start.
    """
    request = json.dumps({'maker': maker, 'options': {'threads': threads, **options}})
    return RemoteContestants([sys.executable, '-m', __name__, request], threads)


def main() -> None:
    """Serve what the command line asks for."""
    request = json.loads(sys.argv[1])
    serve(lambda: MAKERS[request['maker']](**request['options']))


if __name__ == '__main__':
    main()
