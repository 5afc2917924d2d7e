"""Batch normalisation folded into the layer before it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mm_perception.engines.onnx_engine import Fold, fold

LAYERS = {
    'linear': (lambda: nn.Linear(3, 5), lambda: nn.BatchNorm1d(5), (4, 3), 0),
    'convolution': (
        lambda: nn.Conv2d(2, 5, 3, bias=False),
        lambda: nn.BatchNorm2d(5),
        (4, 2, 6, 6),
        0,
    ),
    'convolution over time': (lambda: nn.Conv1d(2, 5, 3), lambda: nn.BatchNorm1d(5), (4, 2, 6), 0),
    'transposed over time': (
        lambda: nn.ConvTranspose1d(2, 5, 3, bias=False),
        lambda: nn.BatchNorm1d(5),
        (4, 2, 6),
        1,
    ),
    'transposed': (
        lambda: nn.ConvTranspose2d(2, 5, 3),
        lambda: nn.BatchNorm2d(5),
        (4, 2, 6, 6),
        1,
    ),
}


@pytest.mark.parametrize('kind', LAYERS)
def test_folding_gives_what_layer_and_normalisation_give(kind: str) -> None:
    torch.manual_seed(0)
    make_layer, make_norm, shape, axis = LAYERS[kind]
    both = nn.Sequential(make_layer(), make_norm())
    for _ in range(5):
        both(3.0 * torch.randn(shape) + 1.0)
    nn.init.normal_(both[1].weight)
    nn.init.normal_(both[1].bias)
    both.eval()
    weights = {key: value.numpy() for key, value in both.state_dict().items()}
    folded = fold(weights, [Fold('0', '1', axis, both[1].eps)])
    layer = make_layer()
    layer.bias = nn.Parameter(torch.from_numpy(folded['0.bias']))
    layer.weight = nn.Parameter(torch.from_numpy(folded['0.weight']))
    data = torch.randn(shape)
    with torch.no_grad():
        np.testing.assert_allclose(layer(data), both(data), atol=1e-5)


def test_folding_leaves_other_weights_and_its_input_alone() -> None:
    weights = {
        'a.weight': np.ones((2, 2), np.float32),
        'n.weight': np.full(2, 3.0, np.float32),
        'n.bias': np.zeros(2, np.float32),
        'n.running_mean': np.zeros(2, np.float32),
        'n.running_var': np.ones(2, np.float32),
        'b.weight': np.ones(3, np.float32),
    }
    folded = fold(weights, [Fold('a', 'n', 0, 0.0)])
    np.testing.assert_array_equal(folded['a.weight'], np.full((2, 2), 3.0))
    np.testing.assert_array_equal(weights['a.weight'], np.ones((2, 2)))
    assert folded['b.weight'] is weights['b.weight']
