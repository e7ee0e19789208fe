"""Choosing OpenBLAS's family of kernels, which has to happen before NumPy is imported.

OpenBLAS goes by the CPU's name. One that it does not know, or that a build has no kernels for, gets a lesser
family: AMD's CPUs with AVX-512 ran the kernels for AVX2 (`Haswell`), at half the speed of `SkylakeX`. This
module imports nothing of `kernels`, which would import NumPy.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

CORETYPE = "OPENBLAS_CORETYPE"
MARK = "CONVBENCH_CORETYPE"
"""Holds what was chosen here, so that child processes can tell it from a choice of the user."""
FAMILY = "SkylakeX"
NEEDED = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})


def choose_blas_family(cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Have OpenBLAS take its AVX-512 kernels where the CPU has what they need, unless the user chose.

    Does nothing where NumPy is loaded already, as OpenBLAS would not look again.
    """
    if CORETYPE in os.environ or "numpy" in sys.modules:
        return
    if sys.platform == "linux" and platform.machine() == "x86_64" and _flags(cpuinfo) >= NEEDED:
        os.environ[CORETYPE] = os.environ[MARK] = FAMILY


def _flags(cpuinfo: Path) -> set[str]:
    """The flags of the first core; none where the system does not tell."""
    try:
        with cpuinfo.open() as lines:
            return next(
                (set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set()
            )
    except OSError:
        return set()
