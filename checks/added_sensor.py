"""
What share of a full training it takes to add one sensor, by the times that a bundle's stages took.

``train --from`` leaves out the autoencoders and the classifiers of all other sensors.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from mm_perception.bundle import Bundle, find_bundle, load_bundle


def share_of_full(bundle: Bundle, added: str) -> float:
    """Time of a training that adds a modality to all others, in parts of that of all."""
    stages: Mapping[str, float] = bundle.training['seconds']
    classifiers: Mapping[str, float] = bundle.training['classifier_seconds']
    full = sum(stages.values()) + sum(classifiers.values())
    kept = [name for name in bundle.spec.names if name != added]
    return 1.0 - sum(stages[name] + classifiers.get(name, 0.0) for name in kept) / full


def main() -> int:
    """Print a row per bundle and sensor; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('bundles', nargs='*', default=['mhd', 'arm', 'pendulum'])
    for name in parser.parse_args().bundles:
        bundle = load_bundle(find_bundle(name))
        shares = {added: share_of_full(bundle, added) for added in bundle.spec.names}
        told = ', '.join(f'{added} {share:.0%}' for added, share in shares.items())
        print(f'{name}: {told}')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
