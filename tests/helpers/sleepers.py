"""Two long tasks side by side, which say who runs them; for test_side_by_side."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path

from mm_perception.training.loop import Fitted
from mm_perception.training.run import side_by_side


def sleep(folder: Path, number: int) -> Fitted:
    """Write this process's number to a file, and take a minute."""
    (folder / str(os.getpid())).touch()
    time.sleep(60.0)
    return Fitted({}, float(number))


if __name__ == '__main__':
    task = partial(sleep, Path(sys.argv[1]))
    side_by_side({'first': task, 'second': task}, 2)
