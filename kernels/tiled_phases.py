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

_What = Literal["split", "join", "add"]


def split(x: np.ndarray, stride: Pair, seen: Pair, origin: Pair, phases: np.ndarray) -> None:
    """phases (planes, down, across, height, width) = what is `seen` of x (..., H, W), zeros around it.

    x begins at `origin`, in rows and columns of what all phases hold; all that is seen lies in these. There
    may be as many phases as the strides are long, or the first ones of them.
    """
    _through("split", x, stride, seen, origin, phases)


def join(phases: np.ndarray, stride: Pair, seen: Pair, origin: Pair, x: np.ndarray) -> None:
    """What is `seen` of x = its phases; where there are fewer of these, x is 0 in the rest of their rows."""
    _through("join", x, stride, seen, origin, phases)


def add(phases: np.ndarray, stride: Pair, seen: Pair, origin: Pair, x: np.ndarray) -> None:
    """What is `seen` of x += its phases."""
    _through("add", x, stride, seen, origin, phases)


def _through(what: _What, x: np.ndarray, stride: Pair, seen: Pair, origin: Pair, phases: np.ndarray) -> None:
    address = _emitted(what, stride[1], phases.shape[2], x.dtype)
    _each_phase(phases.size, address, x.reshape(-1, *x.shape[-2:]), stride[0], seen, origin, phases)


@Kernel
def _each_phase(address, x, s, seen, origin, phases):
    planes, down, across, height, width = phases.shape
    size, (H, W) = x.itemsize, x.shape[1:]
    for job in prange(planes * down):
        plane, i = job // down, job % down
        call_emitted(address, x.ctypes.data + plane * H * W * size, W, i - origin[0], s, seen[0], -origin[1],
                     seen[1], phases.ctypes.data + job * across * height * width * size, height, width,
                     height * width, 0)  # fmt: skip


@lru_cache(maxsize=64)
def _emitted(what: _What, t: int, across: int, dtype: np.dtype) -> int:
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
        zero = ir.Constant(here.vector, None)
        with cgutils.for_range(builder, height) as line:
            row = builder.add(first_row, builder.mul(line.index, s))
            there = builder.icmp_unsigned("<", row, rows)
            source = here.at(plane, builder.mul(row, W))
            target = here.at(phases, builder.mul(line.index, width))
            with cgutils.for_range_slice(builder, i64(0), width, i64(wide)) as (at, _):
                stored = here.below(builder.sub(width, at))
                ours = [here.at(target, builder.mul(step, i64(n)), at) for n in range(across)]
                theirs, masks = [], []
                for n in range(t):
                    col = builder.add(builder.add(first_col, builder.mul(at, i64(t))), i64(n * wide))
                    inside = here.inside(col, cols)
                    masks.append(builder.select(there, inside, ir.Constant(inside.type, None)))
                    theirs.append(here.at(source, col))
                if what == "split":
                    beside = [here.load(*each) for each in zip(theirs, masks, strict=True)]
                    for vector, place in zip(here.dealt(beside), ours, strict=False):
                        here.store(vector, place, stored)
                else:
                    loaded = [here.load(place, stored) for place in ours]
                    vectors = here.alternating([*loaded, *[zero] * (t - across)])
                    for vector, place, mask in zip(vectors, theirs, masks, strict=True):
                        total = builder.fadd(here.load(place, mask), vector) if what == "add" else vector
                        here.store(total, place, mask)

    return compiled(f"{what}_{t}_{across}_{dtype.name}", emit)
