"""What tests of engines share."""

from __future__ import annotations

import pytest


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a GPU and what ONNX Runtime needs for it were there; what then runs finds out."""
    for name in ('has_driver', 'has_provider'):
        monkeypatch.setattr(f'mm_perception.engines.build.{name}', lambda *_: True)
