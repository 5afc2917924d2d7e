"""Forced perceptual dropout against the paper's algorithm, sample by sample."""

import itertools
import random

import pytest
import torch

from mm_perception.model.joint_encoder import forced_perceptual_dropout

ROWS = 60_000


def test_dropout_touches_rows_at_its_rate() -> None:
    generator = torch.Generator().manual_seed(0)
    seen = forced_perceptual_dropout(torch.ones(ROWS, 4, dtype=torch.bool), 0.2, generator)
    touched = (seen.sum(1) < 4).float().mean().item()
    assert touched == pytest.approx(0.2, abs=0.01)


def test_dropout_subsets_follow_the_plain_loop() -> None:
    seen = forced_perceptual_dropout(
        torch.ones(ROWS, 3, dtype=torch.bool), 1.0, torch.Generator().manual_seed(0)
    )
    plain = random.Random(0)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(ROWS):  # algorithm 1 of the paper
        subset = tuple(sorted(plain.sample(range(3), plain.randint(1, 2))))
        counts[subset] = counts.get(subset, 0) + 1
    for subset in itertools.chain(*(itertools.combinations(range(3), k) for k in (1, 2))):
        mask = torch.tensor([i in subset for i in range(3)])
        share = (seen == mask).all(1).float().mean().item()
        assert share == pytest.approx(counts[subset] / ROWS, abs=0.01)


@pytest.mark.parametrize('modalities', [1, 2, 5])
def test_dropout_never_adds_and_never_empties(modalities: int) -> None:
    torch.manual_seed(0)
    present = torch.rand(5_000, modalities) < 0.6
    present[:, 0] |= ~present.any(1)
    seen = forced_perceptual_dropout(present, 1.0)
    assert not (seen & ~present).any()
    assert seen.any(1).all()
    single = present.sum(1) == 1
    assert (seen[single] == present[single]).all()
    assert (seen[~single].sum(1) < present[~single].sum(1)).all()


def test_dropout_of_zero_changes_nothing() -> None:
    present = torch.rand(100, 4) < 0.5
    assert (forced_perceptual_dropout(present, 0.0) == present).all()
