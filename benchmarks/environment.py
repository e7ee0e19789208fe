"""What libraries read of the environment as they are loaded: set before NumPy is, unless the user chose.

Idle threads wait for work by spinning, on the cores that others need. This module imports nothing of
`kernels`, which would import NumPy.
"""

from __future__ import annotations

import os
import sys

from benchmarks.blas_family import choose_blas_family

BLAS_TIMEOUT = "OPENBLAS_THREAD_TIMEOUT"
"""The binary logarithm of the clock ticks that OpenBLAS's threads spin after a product: else some 30 ms."""
SPIN_COUNT = "GOMP_SPINCOUNT"
"""How often a thread of GNU OpenMP looks for work before it sleeps, some 140 clock ticks each.

By default it is 300,000 times, longer than a slice of the scheduler. Where two threads are on one core, a
call of 0.2 ms then waits for the end of a slice, 8 ms; one that sleeps wakes up on an idle core.
"""
_WAITING = {BLAS_TIMEOUT: "4", SPIN_COUNT: "5000"}


def waiting() -> dict[str, str]:
    """What lets idle threads of BLAS and of compiled loops sleep soon, but for what the user chose."""
    chosen = {*os.environ, *([SPIN_COUNT] if "OMP_WAIT_POLICY" in os.environ else [])}
    return {name: value for name, value in _WAITING.items() if name not in chosen}


def prepare() -> None:
    """Let idle threads sleep soon, and have OpenBLAS take the right kernels: libraries loaded from now on."""
    settings = waiting()
    if "numpy" in sys.modules:  # OpenBLAS would not look again, but those who ask would believe it
        settings.pop(BLAS_TIMEOUT, None)
    os.environ.update(settings)
    choose_blas_family()
