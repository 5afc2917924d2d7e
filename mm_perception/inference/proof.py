"""Whether an engine gives what float32 on the CPU gives: shown before it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from mm_perception.errors import EngineUnavailable, MMPerceptionError
from mm_perception.inference.engine import Engine
from mm_perception.inference.precision import BOUNDS
from mm_perception.modalities import build_modality
from mm_perception.modalities.raw import Array
from mm_perception.spec import ModelSpec


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Turn whatever a driver or a library raises into one line: another engine may work."""
    try:
        yield
    except MMPerceptionError:
        raise
    except Exception as error:
        reason = ' '.join(str(error).split()) or repr(error)
        raise EngineUnavailable(f'{what}: {reason[:200]}') from error


def prove(engine: Engine, reference: Engine, spec: ModelSpec) -> str:
    """
    Run an engine once, and compare what it gives.

    :param reference: the same bundle in float32 on the CPU.
    :returns: the difference, in words.
    :raises EngineUnavailable: if the engine fails, or differs by more than its bound.
    """
    where = f'{engine.name} on {engine.device}, {engine.precision}'
    bound = BOUNDS[engine.precision]
    with refused(f'{where}: fails at its first call'):
        found = difference(engine, reference, spec)
    if not found <= bound:  # nor if it is not a number
        raise EngineUnavailable(
            f'{where}: differs by {found:.2g} from float32 on the CPU; {bound:g} is allowed'
        )
    return f'{engine.precision}, differs by {found:.1g} from float32 on the CPU'


def difference(engine: Engine, reference: Engine, spec: ModelSpec) -> float:
    """
    How far two engines of one bundle are apart on random data.

    :returns: the largest root mean square, over the numbers of one output, of differences of
        the joint mean and std, in units of the std, and of generated data, in its own units
        (0..1), given each modality alone and all of them.
    """
    random = np.random.default_rng(0)
    data = {
        m.name: random.random((1, *build_modality(m).shape), np.float32) for m in spec.modalities
    }
    errors: list[Array] = []
    for ours, theirs in zip(_outputs(engine, data), _outputs(reference, data)):
        std = theirs[1]
        scales = [std, std, *(np.ones(1, np.float32) for _ in data)]
        errors += [(a - b) / scale for a, b, scale in zip(ours, theirs, scales)]
    return float(np.max([np.sqrt(np.mean(np.square(error))) for error in errors]))


def _outputs(engine: Engine, data: Mapping[str, Array]) -> Iterator[list[Array]]:
    """Given each modality alone, and all."""
    codes = {name: engine.encode(name, value) for name, value in data.items()}
    for present in (*np.eye(len(data), dtype=bool), np.ones(len(data), bool)):
        mean, std = engine.fuse(codes, present[None])
        yield [mean, std, *(engine.decode(name, mean) for name in data)]
