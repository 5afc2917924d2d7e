"""Folders that appear only when they are complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mm_perception.errors import DataError


@contextmanager
def complete_folder(path: Path, marker: str) -> Iterator[Path]:
    """
    Write into a temporary sibling that takes the place of ``path`` when all went well.

    :param marker: file that a folder of this sort has; another non-empty folder is never
        replaced.
    :returns: the folder to write into.
    :raises DataError: if ``path`` holds something else, or cannot be written.
    """
    if path.exists() and not (path / marker).is_file() and any(_entries(path)):
        raise DataError(f'{path}: holds something else; name another folder with --out')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f'.{path.name}.', dir=path.parent))
    except OSError as error:
        raise DataError(f'{path.parent}: cannot be written ({error.strerror})') from error
    try:
        scratch.chmod(0o755)
        yield scratch
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f'.{path.name}.old.', dir=path.parent))
            os.replace(path, old / 'data')
            os.replace(scratch, path)
            shutil.rmtree(old)
        else:
            os.replace(scratch, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _entries(path: Path) -> list[Path]:
    if not path.is_dir():
        raise DataError(f'{path}: is a file; name a folder with --out')
    return list(path.iterdir())
