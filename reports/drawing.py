"""Many sheets at once: a large report is drawn by several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from joblib import Parallel, cpu_count, delayed

from reports.saving import Sheet

Job = tuple[Any, ...]
"""A function of `sheets` and its arguments."""
_WORTH_PROCESSES = 1000
"""Cases from which on it pays to start processes, which takes a second or two."""


def draw_all(jobs: Sequence[Job], cases: int) -> Iterator[Sheet]:
    """The sheet of each job; `cases` is how many the report has.

    Where processes draw them, they do so while the caller goes on with something else.
    """
    processes = min(cpu_count(), len(jobs)) if cases >= _WORTH_PROCESSES else 1
    drawn: Iterator[Sheet] = Parallel(n_jobs=processes, return_as="generator")(
        delayed(_draw)(*job) for job in jobs
    )
    return drawn


def _draw(draw: Callable[..., Sheet], *arguments: Any) -> Sheet:
    return draw(*arguments)
