"""Processes that are asked, a line of JSON each, and answer likewise: one for each library that is timed.

The threads of two libraries in one process would be in each other's way: some spin after work. Where only one
process at a time has something to do, all of them get the same cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from benchmarks import environment

Ask = Callable[..., Any]


@contextmanager
def worker(name: str, arguments: Sequence[str], threads: int) -> Iterator[Ask]:
    """A process that runs Python with `arguments`; calling it sends a request and returns the answer.

    It may use the first `threads` of this process's cores. Raises ValueError where the process ends unasked.
    """
    with (
        _on_cores(threads),
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **environment.waiting(), "JAX_PLATFORMS": "cpu"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def ask(**request: Any) -> Any:
            try:
                requests.write(json.dumps(request) + "\n")
                requests.flush()
                answer = answers.readline()
            except BrokenPipeError:
                answer = ""
            if not answer:
                raise ValueError(f"the process of {name} ended with exit code {process.wait()}")
            return json.loads(answer)

        try:
            yield ask
        except BaseException:
            process.terminate()  # it may be in the middle of something long
            raise
        finally:
            with suppress(BrokenPipeError):
                requests.close()


@contextmanager
def _on_cores(count: int) -> Iterator[None]:
    """This process, and those that it starts, on the first `count` of its cores, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
