"""Register tiles, and dots, as LLVM compiles them for several CPUs: their sums stay in registers.

Else they take up to four times as long. What is compiled for another CPU is looked at, and not run.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from other_cpus import run_on

AVX512 = "+avx512f,+avx512dq,+avx512bw,+avx512vl,+avx2,+fma"
SCRIPT = """
import re
from itertools import product
import numpy as np
from kernels import tiled_dots, tiled_dots_emit, tiled_tile, tiled_vectors

WIDE = [(8, 1, 3, 1), (8, 1, 1, 3), (6, 1, 2, 2), (6, 1, 1, 4), (5, 1, 5, 1), (1, 16, 1, 1), (3, 3, 1, 3)]
WIDE_TURNED = [(1, 14, 1, 2), (2, 7, 1, 2), (1, 9, 1, 3), (2, 8, 1, 1)]
NARROW = [(4, 1, 3, 1), (4, 1, 1, 3), (6, 1, 1, 2), (3, 2, 1, 2), (1, 8, 1, 1)]
NARROW_TURNED = [(1, 6, 1, 2), (2, 4, 1, 1)]
upright, turned = (WIDE, WIDE_TURNED) if tiled_tile.registers() > 12 else (NARROW, NARROW_TURNED)
shapes = [tiled_tile.Shape(*each) for each in upright]
shapes += [tiled_tile.Shape(*each, apart=2, turned=True) for each in turned]

def check(shape, sums):
    assembler = tiled_vectors._kept[-1]._library.get_asm_str()
    loop = max(re.split(r"^\\.LBB\\S+:", assembler, flags=re.M), key=lambda block: block.count("vfmadd"))
    assert loop.count("vfmadd") == sums, (shape, "unrolled", loop)
    spilled = re.findall(r"mm\\d+, -?\\d*\\(%r[sb]p\\)|-?\\d*\\(%r[sb]p\\), %[yz]mm", loop)
    assert not spilled, (shape, spilled)

for shape in shapes:
    tiled_tile.tile(shape, np.dtype(np.float32))
    check(shape, shape.sums)
shapes = set()
for (filters, products), with_db, pieces in product([(8, 9), (32, 9), (6, 25)], [False, True], range(3)):
    of_products, of_filters = tiled_dots._spans(filters, products, with_db, pieces)
    shapes.add(tiled_dots_emit.Shape(of_filters[0][1], of_products[0][1], with_db, pieces))
for shape in shapes:
    tiled_dots_emit.dots(shape, np.dtype(np.float32))
    check(shape, shape.filters * shape.taps)
"""


@pytest.mark.parametrize(
    ("cpu", "features", "bits"),
    [
        ("skylake-avx512", AVX512, 512),
        ("cascadelake", AVX512, 512),
        ("sapphirerapids", AVX512, 512),
        ("znver4", AVX512, 512),
        ("znver5", AVX512, 512),
        ("haswell", "+avx2,+fma", 256),
    ],
)
def test_sums_stay_in_registers(tmp_path: Path, cpu: str, features: str, bits: int) -> None:
    run_on(cpu, features, bits, tmp_path, SCRIPT)
