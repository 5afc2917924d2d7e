"""What a joint latent leaves open of a modality's latent."""

from __future__ import annotations

import torch

from mm_perception.model.uncertainty import ResidualCovariance


def test_spread_is_none_before_it_is_fitted() -> None:
    assert ResidualCovariance(3)(torch.randn(5, 3)).abs().max() == 0


def test_spread_draws_errors_with_the_moments_of_those_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.3, 0.0], [0.0, 0.0, 0.0]])
    errors = torch.randn(20_000, 3, generator=generator) @ mixing.T + torch.tensor([0.5, 0, 0])
    spread = ResidualCovariance(3)
    spread.fit(errors)
    drawn = spread(torch.randn(50_000, 3, generator=generator))
    expected = errors.T @ errors / len(errors)
    torch.testing.assert_close(drawn.T @ drawn / len(drawn), expected, atol=0.03, rtol=0.0)
