"""Running a check as on CPUs with narrower vectors: Numba compiles for the CPU that it is told of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRELUDE = """
import sys
sys.path[:0] = ["tests/kernels"]
from kernels.tiled_vectors import vector_bits
assert vector_bits() == int(sys.argv[1]), vector_bits()
"""

on_other_cpus = pytest.mark.parametrize(
    ("cpu", "features", "bits"), [("haswell", "+avx2,+fma", 256), ("x86-64", "", 128)], ids=["AVX2", "SSE2"]
)


def run_on(cpu: str, features: str, bits: int, cache: Path, script: str) -> None:
    """Run `script` in a process of its own whose vectors have so many `bits`; it may import the tests."""
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(cache),
    }
    whole = PRELUDE + script + 'print("right")'
    done = subprocess.run(
        [sys.executable, "-c", whole, str(bits)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "right\n"
