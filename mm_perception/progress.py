"""A progress bar over a loop: tqdm's, or none on a machine that only measures and lacks tqdm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm
else:
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:

        class tqdm:
            """The loop alone."""

            def __init__(self, iterable: Iterable[Any], **_: object) -> None:
                self._iterable = iterable

            def __iter__(self) -> Iterator[Any]:
                return iter(self._iterable)

            def set_postfix(self, _: object) -> None:
                """Show nothing."""


__all__ = ['tqdm']
