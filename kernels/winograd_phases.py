"""Phases of planes: each s-th row and t-th column from one on, as a plane of its own; and the way back.

Emitted, as vectors are dealt out or alternated in registers: plain loops with a step take four times as long.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from llvmlite import ir
from numba import prange
from numba.core import cgutils

from kernels.axis import Pair
from kernels.jit import Kernel
from kernels.tiled_vectors import Vectors, call_emitted, compiled, i64


def split(x: np.ndarray, seen: Pair, origin: Pair, phases: np.ndarray) -> None:
    """phases (planes, s, t, height, width) = what is `seen` of x (planes, H, W), with zeros around it.

    x begins at `origin`, in rows and columns of what the phases hold.
    """
    _each_plane(phases.size, _emitted("split", phases.shape[2], x.dtype), x, seen, origin, phases)


def join(phases: np.ndarray, seen: Pair, origin: Pair, x: np.ndarray, adds: bool = False) -> None:
    """What is `seen` of x = its phases; or, where `adds`, these are added to it."""
    address = _emitted("add" if adds else "join", phases.shape[2], x.dtype)
    _each_plane(phases.size, address, x, seen, origin, phases)


@Kernel
def _each_plane(address, x, seen, origin, phases):
    planes, s, t, height, width = phases.shape
    size, (H, W) = x.itemsize, x.shape[1:]
    for job in prange(planes * s):
        plane, i = job // s, job % s
        call_emitted(address, x.ctypes.data + plane * H * W * size, W, i - origin[0], s, seen[0], -origin[1],
                     seen[1], phases.ctypes.data + job * t * height * width * size, height, width,
                     height * width, 0)  # fmt: skip


@lru_cache(maxsize=64)
def _emitted(what: Literal["split", "join", "add"], t: int, dtype: np.dtype) -> int:
    """The address of what splits, or joins, each s-th row of a plane.

    Its arguments: the plane's address; its width; the first row, which may lie outside, and s; how many rows
    are inside; the first column, and how many are inside; the address of the first phase, its height and
    width, and how far it is to the next. One is not used.
    """

    def emit(
        builder: ir.IRBuilder, plane, W, first_row, s, rows, first_col, cols, phases, height, width, step, _
    ) -> None:
        here = Vectors(builder, dtype)
        wide = here.wide
        with cgutils.for_range(builder, height) as line:
            row = builder.add(first_row, builder.mul(line.index, s))
            there = builder.icmp_unsigned("<", row, rows)
            source = here.at(plane, builder.mul(row, W))
            target = here.at(phases, builder.mul(line.index, width))
            with cgutils.for_range_slice(builder, i64(0), width, i64(wide)) as (at, _):
                stored = here.below(builder.sub(width, at))
                ours = [here.at(target, builder.mul(step, i64(n)), at) for n in range(t)]
                theirs, masks = [], []
                for n in range(t):
                    col = builder.add(builder.add(first_col, builder.mul(at, i64(t))), i64(n * wide))
                    inside = builder.and_(
                        here.below(builder.sub(cols, col)), builder.not_(here.below(builder.neg(col)))
                    )
                    masks.append(builder.select(there, inside, ir.Constant(inside.type, None)))
                    theirs.append(here.at(source, col))
                if what == "split":
                    beside = [here.load(*each) for each in zip(theirs, masks, strict=True)]
                    for vector, place in zip(here.dealt(beside), ours, strict=True):
                        here.store(vector, place, stored)
                else:
                    vectors = here.alternating([here.load(place, stored) for place in ours])
                    for vector, place, mask in zip(vectors, theirs, masks, strict=True):
                        total = builder.fadd(here.load(place, mask), vector) if what == "add" else vector
                        here.store(total, place, mask)

    return compiled(f"{what}_{t}_{dtype.name}", emit)
