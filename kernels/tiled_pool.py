"""The `tiled` backend's pooling: a vector of outputs of a row at a time, its taps unrolled, and no branches.

Loads are masked: what lies in the padding is minus infinity to a maximum, and zero to a sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from llvmlite import ir
from numba import prange

from kernels import numba_pool
from kernels.arrays import readonly
from kernels.axis import Axis
from kernels.jit import Kernel
from kernels.spec import PoolSpec
from kernels.tiled_vectors import I64, Vectors, call_emitted, compiled, lanes

ARGUMENTS = (
    "x", "row_step", "col_step", "lane_step", "rows", "masks",
    "position", "y", "indices", "count", "divisors", "spare",
)  # fmt: skip
"""Of the function for a vector of outputs, all intp. `x`: the address of the first output's first tap, which
may lie outside; steps from tap to tap and from output to output, in elements; `rows`: bit r is set where tap
row r lies inside; `masks`: the address of `_columns` for these outputs; `position`: that of the first tap in
its plane; `y`, `indices`, `divisors`: addresses for the outputs, where needed; `count`: how many they are."""
_MOST_TAPS = 63
"""Of windows that are computed here: taps are unrolled, and rows of them are bits of an int."""
_WORTH_A_LAUNCH = 4
"""Vectors do so many operations in the time of one of the loops that `jit` has in mind."""


@lru_cache(maxsize=256)
def vector_of_windows(mode: str, R: int, S: int, stride: int, indices: bool, dtype: np.dtype) -> int:
    """The address of the function for windows of R x S taps, of every `stride`-th column (3: any other)."""

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        emitter = _Windows(builder, dtype, R, S, stride, **dict(zip(ARGUMENTS, arguments, strict=True)))
        if mode == "max":
            emitter.maximum(indices)
        else:
            emitter.average()

    return compiled(f"{mode}_{R}_{S}_{stride}_{int(indices)}_{dtype.name}", emit)


class _Windows:
    """Emits a vector of windows."""

    def __init__(
        self, builder: ir.IRBuilder, dtype: np.dtype, R: int, S: int, stride: int, **given: ir.Value
    ):
        self.builder = builder
        self.row = Vectors(builder, dtype)
        self.R, self.S, self.stride = R, S, stride
        self.given = given
        self.stored = self.row.below(given["count"])

    def maximum(self, with_indices: bool) -> None:
        """The first maximum of each window, or its last NaN."""
        builder, row, given = self.builder, self.row, self.given
        best = ir.Constant(row.vector, [float("-inf")] * row.wide)
        where = ir.Constant(row.narrow, [-1] * row.wide)
        first = builder.add(
            row.spread_narrow(given["position"]),
            builder.mul(row.lane_numbers, row.spread_narrow(given["lane_step"])),
        )
        for offset, value, inside in self._taps(float("-inf")):
            wins = builder.or_(
                builder.fcmp_ordered(">", value, best), builder.fcmp_unordered("uno", value, value)
            )
            if with_indices:
                none = builder.icmp_signed("<", where, ir.Constant(where.type, [0] * row.wide))
                wins = builder.and_(inside, builder.or_(wins, none))
                here = builder.add(first, row.spread_narrow(offset))
                where = builder.select(wins, here, where)
            best = builder.select(wins, value, best)
        row.store(best, given["y"], self.stored)
        if with_indices:
            wide = builder.sext(where, row.indices)
            row.store(wide, given["indices"], self.stored)

    def average(self) -> None:
        """The sum of each window over its divisor."""
        builder, row, given = self.builder, self.row, self.given
        total = ir.Constant(row.vector, [0.0] * row.wide)
        for _, value, _ in self._taps(0.0):
            total = builder.fadd(total, value)
        divisors = row.load(given["divisors"], self.stored, 1.0)
        row.store(builder.fdiv(total, divisors), given["y"], self.stored)

    def _taps(self, others: float) -> Iterator[tuple[ir.Value, ir.Value, ir.Value]]:
        """Each tap: its offset in elements, its values, and the lanes where it lies inside."""
        builder, row, given = self.builder, self.row, self.given
        table = builder.inttoptr(given["masks"], I64.as_pointer())
        for r in range(self.R):
            bit = builder.and_(builder.lshr(given["rows"], ir.Constant(I64, r)), ir.Constant(I64, 1))
            there = builder.icmp_signed("!=", bit, ir.Constant(I64, 0))
            down = builder.mul(given["row_step"], ir.Constant(I64, r))
            for s in range(self.S):
                first, second, lane_bits = (
                    builder.select(
                        there,
                        builder.load(builder.gep(table, [ir.Constant(I64, 3 * s + i)])),
                        ir.Constant(I64, 0),
                    )
                    for i in range(3)
                )
                offset = builder.add(down, builder.mul(given["col_step"], ir.Constant(I64, s)))
                address = builder.add(given["x"], builder.mul(offset, ir.Constant(I64, row.size)))
                inside = row.mask(lane_bits)
                if self.stride == 1:
                    value = row.load(address, inside, others)
                elif self.stride == 2:
                    value = row.every_second(address, (row.mask(first), row.mask(second)), others)
                else:
                    value = row.gather(address, given["lane_step"], inside, others)
                yield offset, value, inside


@lru_cache(maxsize=1024)
def _rows(axis: Axis) -> np.ndarray:
    """For each output row, bits of the tap rows that lie inside: intp (out,)."""
    return readonly(axis.valid() @ (1 << np.arange(axis.kernel, dtype=np.intp)))


@lru_cache(maxsize=1024)
def _columns(axis: Axis, wide: int) -> np.ndarray:
    """For each vector of outputs and tap column: masks of two vectors of inputs (stride 2), and of outputs.

    intp (vectors, kernel, 3).
    """
    valid = axis.valid()
    bits = np.arange(wide)
    masks = []
    for first in range(0, axis.out, wide):
        inside = np.zeros((wide, axis.kernel), np.intp)
        inside[: len(valid[first : first + wide])] = valid[first : first + wide]
        every_second = np.zeros((2 * wide, axis.kernel), np.intp)
        every_second[::2] = inside
        weights = 1 << bits
        masks.append(
            np.stack([weights @ every_second[:wide], weights @ every_second[wide:], weights @ inside], axis=1)
        )
    return readonly(np.array(masks, np.intp))


@Kernel
def pool(
    x, H, W, OH, OW, sh, sw, top, left, row_step, col_step, rows, columns, address, wide, divisors, y, indices
):
    """y, and indices unless empty, of all planes of x; all flat."""
    size = x.itemsize
    for plane in prange(len(y) // (OH * OW)):
        for oh in range(OH):
            for n in range(len(columns)):
                ow = n * wide
                at = plane * OH * OW + oh * OW + ow
                position = (oh * sh - top) * W + ow * sw - left
                call_emitted(
                    address, x.ctypes.data + (plane * H * W + position) * size, row_step, col_step, sw,
                    rows[oh], columns.ctypes.data + n * columns.shape[1] * 24, position,
                    y.ctypes.data + at * size,
                    indices.ctypes.data + at * 8 if indices.size else 0, min(wide, OW - ow),
                    divisors.ctypes.data + (oh * OW + ow) * size if divisors.size else 0, 0,
                )  # fmt: skip


def _pool(spec: PoolSpec, x: np.ndarray, divisors: np.ndarray, y: np.ndarray, indices: np.ndarray) -> None:
    wide = lanes(x.dtype)
    stride = min(spec.stride[1], 3)
    address = vector_of_windows(spec.mode, spec.R, spec.S, stride, bool(indices.size), x.dtype)
    pool(
        spec.flops // _WORTH_A_LAUNCH, x.reshape(-1), spec.H, spec.W, spec.OH, spec.OW, *spec.stride,
        spec.rows.before, spec.cols.before, spec.dilation[0] * spec.W, spec.dilation[1], _rows(spec.rows),
        _columns(spec.cols, wide), address, wide, divisors, y.reshape(-1), indices,
    )  # fmt: skip


def max_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray, indices: np.ndarray | None) -> None:
    """The first maximum of each window, or its last NaN."""
    if spec.R * spec.S > _MOST_TAPS:
        numba_pool.max_pool_forward(spec, x, y, indices)
        return
    positions = np.empty(0, np.int64) if indices is None else indices.reshape(-1)
    _pool(spec, x, np.empty(0, x.dtype), y, positions)


def avg_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray) -> None:
    """The sum of each window, over its number of taps."""
    if spec.R * spec.S > _MOST_TAPS:
        numba_pool.avg_pool_forward(spec, x, y)
        return
    _pool(spec, x, _divisors(spec, x.dtype), y, np.empty(0, np.int64))


@lru_cache(maxsize=64)
def _divisors(spec: PoolSpec, dtype: np.dtype) -> np.ndarray:
    return readonly(spec.divisors.astype(dtype))


PAIRED = (
    "dy", "indices", "dx", "W", "rows", "position", "begin", "end", "count", "spare", "spare2", "spare3"
)  # fmt: skip
"""Of the function for a vector of windows two columns wide, side by side, all intp. `dy`, `indices`: the
addresses of their first; `dx`: that of the first tap of the first, at `position` in its plane, which may lie
outside; `rows`: bit r is set where tap row r lies inside; of the inputs side by side, those from `begin` to
`end` do; `count`: windows."""


@lru_cache(maxsize=16)
def pairs_of_inputs(R: int, dtype: np.dtype) -> int:
    """The address of the function for windows of R x 2 taps."""

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        given = dict(zip(PAIRED, arguments, strict=True))
        row = Vectors(builder, dtype)
        stored = row.below(given["count"])
        gradient = row.load(given["dy"], stored)
        where = builder.trunc(row.load_indices(given["indices"], stored), row.narrow)
        every_second = ir.Constant(row.narrow, [2 * i for i in range(row.wide)])
        first = builder.add(row.spread_narrow(given["position"]), every_second)
        nothing = ir.Constant(row.vector, None)
        for r in range(R):
            down = builder.mul(given["W"], ir.Constant(I64, r))
            here = builder.add(first, row.spread_narrow(down))
            left = builder.select(builder.icmp_signed("==", where, here), gradient, nothing)
            beside = builder.add(here, ir.Constant(row.narrow, [1] * row.wide))
            right = builder.select(builder.icmp_signed("==", where, beside), gradient, nothing)
            bit = builder.and_(builder.lshr(given["rows"], ir.Constant(I64, r)), ir.Constant(I64, 1))
            end = builder.mul(given["end"], bit)
            for half in range(2):
                order = [i // 2 + half * row.wide // 2 + i % 2 * row.wide for i in range(row.wide)]
                mixed = row.shuffled(left, right, order)
                shift = ir.Constant(I64, half * row.wide)
                inside = builder.and_(
                    builder.not_(row.below(builder.sub(given["begin"], shift))),
                    row.below(builder.sub(end, shift)),
                )
                offset = builder.mul(builder.add(down, shift), ir.Constant(I64, row.size))
                row.store(mixed, builder.add(given["dx"], offset), inside)

    return compiled(f"pairs_{R}_{dtype.name}", emit)


@lru_cache(maxsize=1024)
def _reads_all(axis: Axis) -> bool:
    """Whether each input is in some window."""
    return np.unique(axis.taps()[axis.valid()]).size == axis.size


@Kernel
def max_dx_in_pairs(dy, indices, H, W, OH, OW, R, sh, top, left, rows, whole, address, wide, dx):
    """dx of windows two columns wide that do not overlap; all flat; not `whole`: some inputs are in none."""
    size = dy.itemsize
    for plane in prange(len(dy) // (OH * OW)):
        if not whole:
            for i in range(plane * H * W, (plane + 1) * H * W):
                dx[i] = 0
        for oh in range(OH):
            for ow in range(0, OW, wide):
                at = plane * OH * OW + oh * OW + ow
                col = 2 * ow - left
                position = (oh * sh - top) * W + col
                count = min(wide, OW - ow)
                call_emitted(
                    address, dy.ctypes.data + at * size, indices.ctypes.data + at * 8,
                    dx.ctypes.data + (plane * H * W + position) * size, W, rows[oh], position, max(0, -col),
                    min(2 * count, W - col), count, 0, 0, 0,
                )  # fmt: skip


def max_pool_dx(spec: PoolSpec, dy: np.ndarray, indices: np.ndarray, dx: np.ndarray) -> None:
    """Each dy goes to the x that won its window; windows that are pairs of columns write all x in order."""
    in_pairs = (spec.S, spec.stride[1], spec.dilation) == (2, 2, (1, 1)) and spec.stride[0] >= spec.R
    if not in_pairs or spec.R * spec.S > _MOST_TAPS:
        numba_pool.max_pool_dx(spec, dy, indices, dx)
        return
    whole = _reads_all(spec.rows) and _reads_all(spec.cols)
    max_dx_in_pairs(
        dx.size, dy.reshape(-1), indices.reshape(-1), spec.H, spec.W, spec.OH, spec.OW, spec.R,
        spec.stride[0], spec.rows.before, spec.cols.before, _rows(spec.rows), whole,
        pairs_of_inputs(spec.R, dy.dtype), lanes(dy.dtype), dx.reshape(-1),
    )  # fmt: skip
