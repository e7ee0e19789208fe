"""Every backend on every convolution of the chosen suites: forward, dx, and dw with db."""

from typing import Any

from benchmarks.run import Case, Run
from benchmarks.timing import time_case

KINDS = ("conv2d", "conv1d")


def test_convolution(case: Case, run: Run, benchmark: Any) -> None:
    time_case(case, run, benchmark)
