"""Every backend on every pooling layer of the chosen suites: forward and dx."""

from typing import Any

from benchmarks.run import Case, Run
from benchmarks.timing import time_case

KINDS = ("max_pool2d", "avg_pool2d")


def test_pooling(case: Case, run: Run, benchmark: Any) -> None:
    time_case(case, run, benchmark)
