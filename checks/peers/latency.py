"""
Time `encode` and `decode` of MultiVae's Nexus for `mm-perception benchmark --section peers`.

    checks/peers/.venv/bin/python checks/peers/latency.py BUNDLE THREADS

The networks are those of the bundle, with random weights; see README.md. It answers requests on
its standard input (mm_perception.lab.benchmark.remote).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import torch
from library import LibraryEngine, build_nexus

from mm_perception.bundle import load_bundle
from mm_perception.lab.benchmark.measurements import Case, TimedCase, clocked
from mm_perception.lab.benchmark.remote import serve
from mm_perception.modalities import build_modality
from mm_perception.spec import ModelSpec


def plain_gaussian(spec: ModelSpec) -> ModelSpec:
    """The same networks with likelihoods that MultiVae has; they do not change what runs."""
    return replace(
        spec,
        modalities=tuple(
            replace(m, likelihood='gaussian') if m.likelihood == 'optimal_sigma' else m
            for m in spec.modalities
        ),
    )


def make(bundle: str, threads: int) -> tuple[dict[Case, TimedCase], dict[str, Any]]:
    """One call of `encode` with all modalities, and one of `decode` for all of them."""
    torch.set_num_threads(threads)
    spec = plain_gaussian(load_bundle(bundle).spec)
    engine = LibraryEngine(build_nexus(spec, warm_up=1), spec)
    data = {m.name: torch.rand(1, *build_modality(m).shape).numpy() for m in spec.modalities}
    case = Case('full_tick', engine.name, threads, len(data))
    return {case: clocked(lambda: engine.infer(data))}, {}


if __name__ == '__main__':
    serve(lambda: make(sys.argv[1], int(sys.argv[2])))
