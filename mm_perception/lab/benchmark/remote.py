"""
Cases in processes of their own, timed alternately with those of other processes.

ONNX Runtime and PyTorch take their number of threads once per process, and other libraries
have Python environments of their own. Such a process sleeps until it is asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from mm_perception.errors import MMPerceptionError
from mm_perception.lab.benchmark.measurements import Case, Cases

STOP_S = 10.0
THREAD_VARIABLES = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')


class BenchmarkFailed(MMPerceptionError):
    """Something that was to be measured did not run."""


def serve(make: Callable[[], tuple[Cases, Mapping[str, Any]]]) -> None:
    """
    Be the other end of :class:`RemoteCases`: measure what standard input asks for.

    :param make: gives the cases, and what else the other end is to know of them.
    """
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(content: Any) -> None:
        answers.write(json.dumps(content) + '\n')
        answers.flush()

    try:
        cases, facts = make()
    except MMPerceptionError as error:
        answer({'error': str(error)})
        return
    answer({'cases': list(cases), 'facts': facts})
    for line in sys.stdin:
        request = json.loads(line)
        answer(cases[Case(*request['case'])](request['calls']).tolist())


class RemoteCases:
    """
    A process with cases, for a ``with`` statement.

    :param command: starts the process, which calls :func:`serve`.
    :param threads: that it computes with.
    :raises BenchmarkFailed: if it does not start.
    """

    def __init__(self, command: Sequence[str], threads: int) -> None:
        self._name = ' '.join(word for word in command[1:] if not word.startswith('{'))
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
        self._log = tempfile.TemporaryFile('w+')  # noqa: SIM115 - closed in close
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        try:
            hello = self._receive()
            if 'error' in hello:
                raise BenchmarkFailed(hello['error'])
        except BaseException:
            self.close()
            raise
        keys = [Case(*case) for case in hello['cases']]
        self.cases: Cases = {case: partial(self._measure, case) for case in keys}
        self.facts: dict[str, Any] = hello['facts']

    def __enter__(self) -> RemoteCases:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):  # it ended with a request unread
            self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]
        self._log.close()

    def _measure(self, case: Case, calls: int) -> np.ndarray:
        request = json.dumps({'case': case, 'calls': calls})
        with suppress(BrokenPipeError):  # its last words say why
            self._process.stdin.write(request + '\n')  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]
        return np.array(self._receive())

    def _receive(self) -> Any:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if line:
            return json.loads(line)
        self._log.seek(0)
        lines = self._log.read().split('\n')
        last = next((line for line in reversed(lines) if line.strip()), 'it wrote nothing')
        raise BenchmarkFailed(f'{self._name} ended: {last.strip()}')
