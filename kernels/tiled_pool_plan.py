"""What the `tiled` backend's pooling knows before it sees data: taps, masks and divisors, as tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from kernels.axis import Axis
from kernels.spec import PoolSpec
from kernels.tiled_pool_emit import Mean, Taps, maxima, means, means_dx
from kernels.tiled_record import Recorded
from kernels.tiled_vectors import lanes


@dataclass(frozen=True, eq=False)
class Plan(Recorded):
    """A pass over planes: the address of what to call for each, and with what: see `tiled_pool_emit`."""

    address: int
    begin: int
    """The element of a plane where group 0 of the first results begins; it may lie outside."""
    x_size: int
    y_size: int
    """Elements of a plane."""
    width: int
    row_step: int
    outputs: int
    left: int
    work: int
    """For `Kernel`."""
    rows: np.ndarray
    columns: np.ndarray
    numbers: np.ndarray


@lru_cache(maxsize=1024)
def forward(spec: PoolSpec, dtype: np.dtype, indices: bool) -> Plan:
    """The pass that makes y, and indices if wanted."""
    if spec.mode == "avg":
        return _means(spec, spec.rows, spec.cols, dtype)
    taps, _ = _taps(spec.cols)
    first_inside = spec.cols.taps()[np.arange(spec.OW), spec.cols.valid().argmax(axis=1)]
    none = np.ones(spec.OH, np.int64)
    return _windows(
        spec, spec.rows, spec.cols, maxima(taps, indices, dtype), none, first_inside.astype(np.int32), dtype
    )


@lru_cache(maxsize=1024)
def shares(spec: PoolSpec, dtype: np.dtype) -> Plan:
    """The pass that makes shares of dy, each over its divisor: means of 1 x 1 windows."""
    rows, cols = (Axis(axis.out, 1, 1, 0, 0, 1) for axis in (spec.rows, spec.cols))
    return _means(spec, rows, cols, dtype)


@lru_cache(maxsize=1024)
def means_backward(spec: PoolSpec, dtype: np.dtype) -> Plan:
    """The pass that makes dx of means: from dy where they have one divisor, else from shares."""
    taps, first = _taps(spec.cols)
    kind, factor = _factor(spec) if one_divisor(spec) else ("scaled", 1.0)
    columns = _gradient_columns(spec.cols, lanes(dtype))
    tables = _gradient_rows(spec.rows), columns, np.array([factor], dtype)
    sizes = spec.OH * spec.OW, spec.H * spec.W
    return Plan(
        means_dx(taps, kind, dtype), -first, *sizes, spec.W, spec.OW, spec.OW, 0, _work(spec), *tables
    )


@lru_cache(maxsize=1024)
def one_divisor(spec: PoolSpec) -> bool:
    """Whether average pooling divides all its sums by the same number."""
    return bool((spec.divisors == spec.divisors[0, 0]).all())


def _factor(spec: PoolSpec) -> tuple[Mean, float]:
    """How sums become means by one number: times the inverse is as exact where that is a power of two."""
    divisor = int(spec.divisors[0, 0])
    return ("divided", divisor) if divisor & (divisor - 1) else ("scaled", 1 / divisor)


def _means(spec: PoolSpec, rows: Axis, cols: Axis, dtype: np.dtype) -> Plan:
    """Means of windows along these axes, by the divisors of `spec`, each the product of two."""
    kind, factor = _factor(spec) if one_divisor(spec) else ("divided", 1.0)
    of_rows, of_columns = (
        axis.spans() if spec.count_include_pad else axis.valid().sum(axis=1)
        for axis in (spec.rows, spec.cols)
    )
    numbers = np.full(cols.out, factor) if kind == "scaled" else of_columns
    taps, _ = _taps(cols)
    return _windows(spec, rows, cols, means(taps, kind, dtype), of_rows, numbers.astype(dtype), dtype)


def _windows(
    spec: PoolSpec,
    rows: Axis,
    cols: Axis,
    address: int,
    divisors: np.ndarray,
    numbers: np.ndarray,
    dtype: np.dtype,
) -> Plan:
    """Windows along these axes, with a number for each of a row's outputs, and one for each row of them."""
    taps, first = _taps(cols)
    valid = rows.valid()
    begins = rows.taps()[np.arange(rows.out), valid.argmax(axis=1)]
    columns = _window_columns(cols, lanes(dtype))
    slack = np.ones(len(columns) * lanes(dtype) - cols.out, numbers.dtype)
    tables = (
        np.stack([begins, valid.sum(axis=1), divisors], axis=1),
        columns,
        np.concatenate([numbers, slack]),
    )
    left = first * taps.stride
    sizes = rows.size * cols.size, rows.out * cols.out
    row_step = rows.dilation * cols.size
    return Plan(address, left, *sizes, cols.size, row_step, cols.out, left, _work(spec), *tables)


def _work(spec: PoolSpec) -> int:
    """Operations in the sense of `Kernel`: one for each tap, and one to move each number."""
    return spec.flops + spec.least_bytes(np.int8)


def _taps(axis: Axis) -> tuple[Taps, int]:
    """The taps of a row, and the group of the first window's first.

    A single window may as well be the first of many with a stride of 1.
    """
    stride = axis.stride if axis.out > 1 else 1
    places = [divmod(tap * axis.dilation - axis.before, stride) for tap in range(axis.kernel)]
    first = places[0][0]
    return Taps(stride, tuple((group - first, phase) for group, phase in places)), first


def _window_columns(axis: Axis, wide: int) -> np.ndarray:
    """The table of columns in `WINDOWS`: int64 (vectors, 1 + masks)."""
    taps, first = _taps(axis)
    lines = []
    for begin in range(0, axis.out, wide):
        masks = []
        for group in range(taps.groups):
            columns = taps.stride * (begin + first + group) + np.arange(taps.stride * wide)
            masks += list(((columns >= 0) & (columns < axis.size)).reshape(taps.stride, wide))
        masks.append(np.arange(begin, begin + wide) < axis.out)
        lines.append(_line(masks))
    return np.array(lines)


def _gradient_columns(axis: Axis, wide: int) -> np.ndarray:
    """The table of columns in `MEANS_DX`: int64 (vectors, 1 + masks)."""
    taps, first = _taps(axis)
    lines = []
    for begin in range(0, -(-axis.size // taps.stride), wide):
        outputs = np.arange(begin, begin + wide) - first - np.arange(taps.groups)[:, None]
        inside = taps.stride * begin + np.arange(taps.stride * wide) < axis.size
        masks = [*((outputs >= 0) & (outputs < axis.out)), *inside.reshape(taps.stride, wide)]
        lines.append(_line(masks))
    return np.array(lines)


def _line(masks: list[np.ndarray]) -> list[int]:
    """Whether all lanes of all masks are set, and the bits of each."""
    bits = 1 << np.arange(len(masks[0]))
    return [int(np.all(masks)), *(int(mask @ bits) for mask in masks)]


def _gradient_rows(axis: Axis) -> np.ndarray:
    """The table of rows in `MEANS_DX`: int64 (H, 2)."""
    valid = axis.valid()
    rows = axis.taps()[valid]
    first = np.full(axis.size, axis.out)
    np.minimum.at(first, rows, np.nonzero(valid)[0])
    return np.stack([first, np.bincount(rows, minlength=axis.size)], axis=1)
