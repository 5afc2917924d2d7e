"""
Measure how well the camera of the reaching arm tells where ball and fingertip are.

    python checks/localisation.py models/reaching --states 15000

Prints mean distances (mm) between truth and what a network reads from the camera's own latent,
from what the camera alone gives of the joint latent, and without looking, on states that the
network has not seen.
"""

from __future__ import annotations

import argparse

import numpy as np

import mm_perception
from mm_perception.evaluation.state_probe import by_network
from mm_perception.fusion.perception import Perception
from mm_perception.lab.arm.reaching import CAMERA, Reaching, fingertip

FOLDS = 5
HELD_OUT = 1000
STEPS = 4000


def draw(perception: Perception, states: int) -> tuple[np.ndarray, ...]:
    """Own latents and joint latents by the camera alone, places of ball and fingertip (m)."""
    arm, rng = Reaching(), np.random.default_rng(1)
    modality, codes, places = perception.modalities[CAMERA], [], []
    for _ in range(states):
        seen = arm.draw(rng)
        codes.append(perception.engine.encode(CAMERA, modality.to_models([seen[CAMERA]]))[0])
        joints, ball = arm.state
        places.append(np.concatenate((ball, fingertip(joints))))
    code = np.stack(codes)
    dims = perception.engine.code_dims
    every = {
        n: code if n == CAMERA else np.zeros((states, k), np.float32) for n, k in dims.items()
    }
    mask = np.tile([name == CAMERA for name in perception.names], (states, 1))
    mean, _ = perception.engine.fuse(every, mask)
    return code[:, : modality.spec.latent_dim], mean, np.float32(places)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('bundle')
    parser.add_argument('--states', type=int, default=15_000, help='to learn from')
    args = parser.parse_args()
    own, joint, places = draw(mm_perception.load(args.bundle), args.states + HELD_OUT)
    fold = np.arange(args.states) % FOLDS
    centre, scale = places[: args.states].mean(0), places[: args.states].std(0)
    for title, latents in (('own', own), ('joint', joint), ('nothing', np.zeros_like(own))):
        scaled = (latents - latents.mean(0)) / np.maximum(latents.std(0), 1e-6)
        known, asked = scaled[: args.states], scaled[args.states :]
        wanted = {'all': (places[: args.states] - centre) / scale}
        read = by_network(known, wanted, asked, ['all'], fold, STEPS)['all'] * scale + centre
        away = 1000 * np.linalg.norm((read - places[args.states :]).reshape(-1, 2, 2), axis=2)
        print(f'{title}: ball {away[:, 0].mean():.1f} mm, fingertip {away[:, 1].mean():.1f} mm')


if __name__ == '__main__':
    main()
