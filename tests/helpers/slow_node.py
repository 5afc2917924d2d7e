"""The node with an engine that takes its time; a program for test_slow_engine.py."""

from __future__ import annotations

import sys
import time
from typing import Any

from mm_perception.engines.torch_engine import TorchEngine
from mm_perception.fusion import loading
from mm_perception.ros import cmi_node

FUSION_S = 0.25


class SlowEngine(TorchEngine):
    """The reference engine, with a pause in every fusion."""

    def fuse(self, *args: Any) -> Any:
        """Sleep, then fuse."""
        time.sleep(FUSION_S)
        return super().fuse(*args)


if __name__ == '__main__':
    loading.build_engine = lambda bundle, **choices: SlowEngine(bundle, 'cpu', 1)
    sys.exit(cmi_node.main())
