"""
``make gpu-check``: what a machine with a GPU, and hardly anything else, says of this package.

    python3 -m checks.gpu --json docs/gpu.json --markdown docs/gpu.md

Runs the tests that need a GPU, compares every engine with float32 on the CPU, and measures whole
ticks (CUDA graphs beside eager PyTorch on the same GPU) and training. It needs torch, onnx,
safetensors, OpenCV, numpy, pytest and scipy; no ROS, no network, no environment of ours. Every
step is a process with its own time limit, and both files are written anew after each: what was
measured is kept. What is not there is said in a row. The exit code is 0 only if no step failed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TOTAL_S = 345.0
"""Of all steps: with starting and writing, less than six minutes."""
BUNDLE = 'mhd'
LIBRARIES = (
    *('torch', 'numpy', 'onnx', 'onnxruntime', 'onnxruntime-gpu', 'tensorrt', 'safetensors'),
    *('opencv-python-headless', 'scipy', 'pytest', 'pytest-timeout', 'pyyaml', 'tqdm'),
)
WIDTHS = ('float32', 'bfloat16', 'float16')
BATCHES = tuple(2**k for k in range(11))
TRAINING_BATCHES = (128, 512, 2048)
CASE_S, EPOCH_S = 0.25, 1.0
"""How long one case of ticks and one epoch of training are measured."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What a step is asked for: where to run, and whether a glance is enough."""

    device: str
    quick: bool

    @property
    def batches(self) -> tuple[int, ...]:
        """Sizes of batches of ticks."""
        return BATCHES[:3:2] if self.quick else BATCHES

    @property
    def training_batches(self) -> tuple[int, ...]:
        """Sizes of batches of training."""
        return (64,) if self.quick else TRAINING_BATCHES


class StepFailed(Exception):
    """A step found something wrong; its rows say what."""


def describe_machine(job: Job) -> Iterator[Row]:
    """Processor, GPU and versions of what is installed."""
    import platform

    yield {'case': 'python', 'value': platform.python_version()}
    yield {'case': 'system', 'value': platform.platform()}
    yield {'case': 'cores', 'value': os.cpu_count()}
    for name in LIBRARIES:
        try:
            yield {'case': name, 'value': version(name)}
        except PackageNotFoundError:
            yield {'case': name, 'skipped': 'not installed'}
    import torch

    if not torch.cuda.is_available():
        yield {'case': 'gpu', 'skipped': 'torch finds no CUDA GPU'}
        if job.device == 'cuda':
            raise StepFailed('device cuda: torch finds no CUDA GPU')
        return
    gpu = torch.cuda.get_device_properties(0)
    yield {'case': 'gpu', 'value': gpu.name}
    yield {'case': 'gpu memory', 'value': round(gpu.total_memory / 2**30, 1), 'unit': 'GiB'}
    yield {'case': 'compute capability', 'value': f'{gpu.major}.{gpu.minor}'}
    yield {'case': 'cuda of torch', 'value': str(torch.version.cuda)}


def run_tests(job: Job) -> Iterator[Row]:
    """All tests that carry the marker ``gpu``; they skip where there is none."""
    import contextlib

    try:
        import pytest
    except ModuleNotFoundError:
        yield {'case': 'tests', 'skipped': 'no pytest'}
        return
    found = {'passed': 0, 'failed': 0, 'skipped': 0}
    wrong: list[Row] = []

    class Recorder:
        """Counts what pytest reports."""

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.when == 'call' or not report.passed:
                found[report.outcome] += 1
            if report.failed:
                wrong.append({'case': report.nodeid, 'failed': str(report.longrepr)[-400:]})

        def pytest_collectreport(self, report: Any) -> None:
            if report.failed:
                found['failed'] += 1
                wrong.append({'case': report.nodeid, 'failed': str(report.longrepr)[-400:]})

    files = [f for f in sorted((ROOT / 'tests').rglob('test_*.py')) if 'mark.gpu' in f.read_text()]
    assert files, 'no test carries the marker gpu'
    options = ['-m', 'gpu', '-q', '-p', 'no:cacheprovider', '--continue-on-collection-errors']
    with contextlib.redirect_stdout(sys.stderr):
        code = pytest.main([*options, *map(str, files)], plugins=[Recorder()])
    for outcome, count in found.items():
        yield {'case': outcome, 'value': count, 'unit': 'tests'}
    yield from wrong
    if code != 0:
        raise StepFailed(f'pytest ended with {int(code)}')


def engines_to_compare(device: str) -> list[tuple[str, str, str]]:
    """Engine, device and precision of all that may run; TensorRT, which builds long, last."""
    here = [('torch', device, width) for width in WIDTHS]
    here += [('onnx', 'cpu', 'float32'), ('onnx', 'cpu', 'int8')]
    if device == 'cuda':
        here += [('onnx', 'cuda', 'float32'), ('tensorrt', 'cuda', 'float16')]
    return here


def compare_engines(job: Job) -> Iterator[Row]:
    """How far every engine is from float32 on the CPU; each has its bound."""
    from mm_perception.bundle import load_bundle
    from mm_perception.engines.build import build_engine, difference, why_unavailable
    from mm_perception.engines.engine import BOUNDS
    from mm_perception.errors import EngineUnavailable

    bundle = load_bundle(BUNDLE)
    reference = build_engine(bundle, 'cpu', 'torch')
    refused = []
    for kind, device, precision in engines_to_compare(job.device):
        row = {'case': kind, 'device': device, 'precision': precision}
        missing = why_unavailable(bundle, kind, device, precision)
        if missing:
            yield {**row, 'skipped': missing}
            continue
        try:
            found = difference(
                build_engine(bundle, device, kind, precision=precision), reference, bundle.spec
            )
        except EngineUnavailable as error:
            ours = kind == 'torch' or device == 'cpu' or 'differs by' in str(error)
            refused += [str(error)] * ours
            yield {**row, 'failed' if ours else 'skipped': str(error)}
            continue
        yield {**row, 'value': found, 'unit': f'at most {BOUNDS[precision]:g}'}
    if refused:
        raise StepFailed('; '.join(refused))


def measure_engines(job: Job) -> Iterator[Row]:
    """Whole ticks of all batch sizes: everything encoded, fused and decoded."""
    import numpy as np

    from mm_perception.bundle import load_bundle
    from mm_perception.engines import torch_engine
    from mm_perception.modalities import build_modality

    assert torch_engine.CAPTURED_ROWS  # larger batches would run eagerly
    torch_engine.CAPTURED_ROWS = max(BATCHES)
    bundle, random = load_bundle(BUNDLE), np.random.default_rng(0)
    shapes = {m.name: build_modality(m).shape for m in bundle.spec.modalities}
    for precision in WIDTHS if job.device == 'cuda' else WIDTHS[:1]:
        engines, missing = _engines_to_time(bundle, job.device, precision)
        yield from missing
        for batch in job.batches:
            data = {n: random.random((batch, *s), np.float32) for n, s in shapes.items()}
            present = np.ones((batch, len(shapes)), bool)
            ticks = {label: _tick(engine, data, present) for label, engine in engines.items()}
            durations = _in_turns(ticks, 0.05 if job.quick else CASE_S)
            for label, times in durations.items():
                yield {
                    'case': label,
                    'precision': precision,
                    'batch': batch,
                    'value': float(np.median(times)),
                    'p99': float(np.percentile(times, 99)),
                    'unit': 'ms',
                    'samples_per_s': batch * 1e3 / float(np.median(times)),
                }


def _engines_to_time(bundle: Any, device: str, precision: str) -> tuple[dict[str, Any], list[Row]]:
    from mm_perception.engines.build import build_engine
    from mm_perception.engines.torch_engine import TorchEngine
    from mm_perception.errors import EngineUnavailable

    engines: dict[str, Any] = {'eager': TorchEngine(bundle, device, 1, precision, eager=True)}
    if device == 'cuda':
        engines['graph'] = TorchEngine(bundle, device, 1, precision)
    others = [('onnx', 'cpu', 'float32'), ('onnx', 'cuda', 'float32')]
    others = [o for o in others if o[1] in ('cpu', device) and o[2] == precision]
    others += [('tensorrt', 'cuda', 'float16')] * (device == 'cuda' and precision == 'float16')
    missing = []
    for kind, where, width in others:
        try:
            engines[f'{kind}-{where}'] = build_engine(bundle, where, kind, 1, width)
        except EngineUnavailable as error:
            missing.append(
                {'case': f'{kind}-{where}', 'precision': precision, 'skipped': str(error)}
            )
    return engines, missing


def _tick(engine: Any, data: dict[str, Any], present: Any) -> Callable[[], object]:
    def tick() -> object:
        codes = {name: engine.encode(name, values) for name, values in data.items()}
        joint, _ = engine.fuse(codes, present)
        return [engine.decode(name, joint) for name in data]

    return tick


def _in_turns(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Durations in ms; every call gets its share of each of five rounds, after a warm-up."""
    times: dict[str, list[float]] = {label: [] for label in calls}
    for call in calls.values():
        call()
    for _ in range(5):
        for label, call in calls.items():
            end = time.perf_counter() + seconds / 5
            while True:
                begin = time.perf_counter()
                call()
                times[label].append((time.perf_counter() - begin) * 1e3)
                if time.perf_counter() > end:
                    break
    return times


def measure_training(job: Job) -> Iterator[Row]:
    """Samples per second of every autoencoder and of the top level, an epoch each."""
    from mm_perception.bundle import load_bundle

    spec = load_bundle(BUNDLE).spec
    names = spec.names[-1:] if job.quick else spec.names
    for precision in ('float32',) if job.device == 'cpu' else ('float32', 'bfloat16'):
        for name in (*names, 'top'):
            for batch in job.training_batches:
                yield {
                    'case': name,
                    'precision': precision,
                    'batch': batch,
                    'value': _samples_per_s(_stage(spec, name, batch, precision, job), job),
                    'unit': 'samples/s',
                }


def _stage(spec: Any, name: str, batch: int, precision: str, job: Job) -> Any:
    """A stage of random data of the right shapes, a batch of it."""
    import numpy as np
    import torch

    from mm_perception.data.dataset import Dataset
    from mm_perception.modalities import build_modality
    from mm_perception.model.distributions import DiagonalGaussian
    from mm_perception.model.unimodal import SharedEncoding
    from mm_perception.spec import StageSpec, TrainingSpec
    from mm_perception.training.stages import TensorSource, top_stage, unimodal_stage

    random, short = np.random.default_rng(0), StageSpec(1, batch)
    run = TrainingSpec(
        *('gpu', '', spec, short),
        unimodal=dict.fromkeys(spec.names, short),
        validation_fraction=0.0,
        precision=precision,
    )
    kept = spec.modalities if name == 'top' else [spec.modality(name)]
    names = tuple(m.name for m in kept)
    dataset = Dataset(
        names=names,
        values={m.name: random.random((batch, *build_modality(m).shape), 'f4') for m in kept},
        index={n: np.arange(batch) for n in names},
        present=np.ones((batch, len(names)), bool),
    )
    source = TensorSource(dataset, torch.device(job.device))
    if name != 'top':
        return unimodal_stage(run, name, source)
    sizes = {m.name: [m.latent_dim] * 2 + [m.shared_dim] * bool(m.shared_dim) for m in kept}
    drawn = {
        name: [torch.randn(batch, size, device=job.device) for size in each]
        for name, each in sizes.items()
    }
    posteriors = {
        name: (SharedEncoding if len(each) > 2 else DiagonalGaussian)(*each)
        for name, each in drawn.items()
    }
    return top_stage(run, posteriors, source)


def _samples_per_s(stage: Any, job: Job) -> float:
    """Rate of an epoch that takes about as long as asked for, checkpoint included."""
    from dataclasses import replace

    from mm_perception.training.loop import Logging, fit

    steps, rate = 5, 0.0
    for _ in range(2 if job.quick else 3):  # the first warms up, the second says how many to take
        epoch = replace(stage, training=stage.training.repeat(steps))
        with tempfile.TemporaryDirectory() as folder:
            seconds = fit(
                epoch, Path(folder) / 'x.safetensors', False, Logging(quiet=True)
            ).seconds
        rate = len(epoch.training) / seconds
        if not job.quick:
            wanted = EPOCH_S * rate / len(stage.training)
            steps = int(min(max(wanted, 5), 2000))
    return rate


@dataclass(frozen=True)
class Step:
    """
    A part of the check.

    :param limit_s: after which it is ended; its rows so far are kept.
    """

    title: str
    limit_s: float
    work: Callable[[Job], Iterable[Row]]


STEPS = {
    'machine': Step('The machine', 30.0, describe_machine),
    'parity': Step('Difference to float32 on the CPU', 70.0, compare_engines),
    'engine': Step('Whole ticks', 100.0, measure_engines),
    'training': Step('Training', 110.0, measure_training),
    'tests': Step('Tests that need a GPU', 120.0, run_tests),
}


def run_step(name: str, job: Job) -> int:
    """Run one step in this process: a row a line on standard output."""
    try:
        for row in STEPS[name].work(job):
            print(json.dumps(row), flush=True)
    except StepFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


@dataclass
class Report:
    """What is known so far; written anew after every step."""

    json: Path
    markdown: Path
    device: str
    steps: list[Row] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def add(self, step: Row, rows: list[Row]) -> None:
        """Take in a step, and write both files."""
        self.steps.append(step)
        self.rows += [{'step': step['step'], **row} for row in rows]
        content = {'device': self.device, 'steps': self.steps, 'rows': self.rows}
        self.json.write_text(json.dumps(content, indent=1) + '\n')
        self.markdown.write_text(markdown(self.device, self.steps, self.rows))


def run_apart(name: str, job: Job, limit_s: float) -> tuple[Row, list[Row]]:
    """Run a step in a process of its own: how it ended, and its rows."""
    command = [sys.executable, '-m', 'checks.gpu', '--step', name, '--device', job.device]
    command += ['--quick'] * job.quick
    begin, status = time.monotonic(), 'ok'
    with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as errors:
        process = subprocess.Popen(
            command, stdout=out, stderr=errors, cwd=ROOT, start_new_session=True
        )
        try:
            if process.wait(max(limit_s, 0.1)):
                status = 'failed'
        except subprocess.TimeoutExpired:
            status = 'timed out'
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        errors.seek(0)
        lines = [line for line in out if line.startswith('{') and line.endswith('}\n')]
        said = errors.read().strip().splitlines()
    step: Row = {'step': name, 'status': status, 'seconds': round(time.monotonic() - begin, 1)}
    if status != 'ok':
        step['message'] = f'over {limit_s:.0f} s' if status == 'timed out' else ''.join(said[-1:])
        print('\n'.join(said[-30:]), file=sys.stderr)
    return step, [json.loads(line) for line in lines]


def markdown(device: str, steps: list[Row], rows: list[Row]) -> str:
    """All rows as tables, one a step."""
    parts = [f'# GPU check, device {device}\n', 'Made by `make gpu-check`.\n']
    heads = ('step', 'status', 'seconds', 'message')
    parts += [table(heads, [[step.get(head, '') for head in heads] for step in steps])]
    for name, step in STEPS.items():
        own = [row for row in rows if row['step'] == name]
        if name in ('engine', 'training'):
            tables = [_pivot([r for r in own if 'value' in r])]
            own = [row for row in own if 'value' not in row]
        else:
            tables = []
        if own:
            columns = ('case', 'device', 'precision', 'batch', 'value', 'unit')
            columns = tuple(c for c in columns if any(c in row for row in own))
            tables.append(table((*columns, ''), [[*_cells(r, columns), _note(r)] for r in own]))
        parts += [f'## {step.title}\n', *filter(None, tables)] if any(tables) else []
    return '\n'.join(parts)


def _pivot(rows: list[Row]) -> str:
    """Values by batch size, a column per case and precision; graphs with their gain."""
    columns = list(dict.fromkeys((row['case'], row['precision'], row['unit']) for row in rows))
    by_batch: dict[int, dict[Any, Any]] = {}
    for row in rows:
        key = row['case'], row['precision'], row['unit']
        by_batch.setdefault(row['batch'], {})[key] = row['value']
    heads, lines = ['batch', *(f'{c} {p}, {u}' for c, p, u in columns)], []
    graphs = [column for column in columns if column[0] == 'graph']
    heads += [f'eager / graph {precision}' for _, precision, _ in graphs]
    for batch, found in sorted(by_batch.items()):
        gains = [_gain(found, graph) for graph in graphs]
        lines.append([batch, *(_short(found.get(c, '')) for c in columns), *gains])
    return table(heads, lines) if lines else ''


def _gain(found: dict[Any, Any], graph: tuple[str, str, str]) -> str:
    eager = found.get(('eager', *graph[1:]))
    return f'{eager / found[graph]:.2f}' if eager and graph in found else ''


def _cells(row: Row, columns: Iterable[str]) -> list[str]:
    return [_short(row.get(column, '')) for column in columns]


def _note(row: Row) -> str:
    notes = (f'{word}: {row[word]}' for word in ('skipped', 'failed') if word in row)
    return ' '.join('; '.join(notes).replace('|', '/').split())


def _short(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def table(heads: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown."""
    heads = list(heads)
    lines = [heads, ['---'] * len(heads), *rows]
    return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in lines) + '\n'


def main() -> int:
    """Run all steps, or one in this process; gives the exit code."""
    out = Path(os.environ.get('OUT') or ROOT / 'docs')
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', default='cuda', choices=('cuda', 'cpu'))
    parser.add_argument('--quick', action='store_true', help='few sizes, short: to try the check')
    parser.add_argument('--json', type=Path, default=out / 'gpu.json')
    parser.add_argument('--markdown', type=Path, default=out / 'gpu.md')
    parser.add_argument('--step', choices=tuple(STEPS), help='only this one, rows to the terminal')
    args = parser.parse_args()
    job = Job(args.device, args.quick)
    if args.step:
        return run_step(args.step, job)
    report, end_s = Report(args.json, args.markdown, args.device), time.monotonic() + TOTAL_S
    for name, step in STEPS.items():
        limit_s = min(step.limit_s, end_s - time.monotonic())
        ended, rows = run_apart(name, job, limit_s)
        report.add(ended, rows)
        print(f'{name}: {ended["status"]}, {ended["seconds"]} s, {len(rows)} rows', flush=True)
    print(f'wrote {args.json} and {args.markdown}')
    return int(any(step['status'] != 'ok' for step in report.steps))


if __name__ == '__main__':
    sys.exit(main())
