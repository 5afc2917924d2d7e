"""
Contestants in processes of their own, timed in turn with those of other processes.

ONNX Runtime and PyTorch take their number of threads once per process, and other libraries
have Python environments of their own. Such a process waits, asleep, until it is its turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from mm_perception.errors import MMPerceptionError
from mm_perception.lab.benchmark.rows import Case, TimedCase

STOP_S = 10.0
THREAD_VARIABLES = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')


class BenchmarkFailed(MMPerceptionError):
    """Something that was to be measured did not run."""


def serve(make: Callable[[], tuple[Mapping[Case, TimedCase], Mapping[str, Any]]]) -> None:
    """
    Be the other end of :class:`RemoteContestants`: measure what standard input asks for.

    :param make: gives the contestants, and what else the other end is to know of them.
    """
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(content: Any) -> None:
        answers.write(json.dumps(content) + '\n')
        answers.flush()

    try:
        contestants, facts = make()
    except MMPerceptionError as error:
        answer({'error': str(error)})
        return
    answer({'cases': list(contestants), 'facts': facts})
    for line in sys.stdin:
        request = json.loads(line)
        answer(contestants[Case(*request['case'])](request['calls']).tolist())


class RemoteContestants:
    """
    A process with contestants, for a ``with`` statement.

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
        self.cases = [Case(*case) for case in hello['cases']]
        self.facts: dict[str, Any] = hello['facts']

    def __enter__(self) -> RemoteContestants:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def contestants(self) -> dict[Case, TimedCase]:
        """All contestants of the process."""
        return {case: self._contestant(case) for case in self.cases}

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

    def _contestant(self, case: Case) -> TimedCase:
        def measure(calls: int) -> np.ndarray:
            request = json.dumps({'case': case, 'calls': calls})
            try:
                self._process.stdin.write(request + '\n')  # type: ignore[union-attr]
                self._process.stdin.flush()  # type: ignore[union-attr]
            except BrokenPipeError:
                pass  # its last words say why
            return np.array(self._receive())

        return measure

    def _receive(self) -> Any:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if line:
            return json.loads(line)
        self._log.seek(0)
        lines = self._log.read().split('\n')
        last = next((line for line in reversed(lines) if line.strip()), 'it wrote nothing')
        raise BenchmarkFailed(f'{self._name} ended: {last.strip()}')
