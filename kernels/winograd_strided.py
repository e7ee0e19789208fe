"""The `winograd` backend's convolutions at a stride: phases of the input become channels, the stride 1.

At stride s, output o reads input s o + r for tap r. As r = s a + i, that is number o + a of phase i, which
has each s-th input from i on; and the weight is number a of the weights' phase i. So R x S taps at stride
s x t on C channels are ceil(R/s) x ceil(S/t) taps at stride 1 on s t C channels, and weights beyond the
kernel are zero: 11 x 11 at stride 4 on 3 channels become 3 x 3 on 48. Source: A. Lavin, github.com/andravin/
wincnn, issue 6, as a sum of convolutions, one for each phase; here it is one, so results are transformed
back once. Short kernels have tiles of their own instead: see `winograd_plan.tiles_have_strides`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kernels import winograd_conv, winograd_dw
from kernels.axis import Pair
from kernels.spec import ConvSpec
from kernels.tiled_phases import add, join, split
from kernels.tiled_work import room

PHASES_BYTES = 8 << 20
"""Of the phases of the images that are taken at a time, about: they stay in the last-level cache."""


class Part(NamedTuple):
    """Some images, and their convolution at stride 1."""

    images: slice
    unit: ConvSpec


class Plan(NamedTuple):
    """A strided convolution in parts, and what of x lies in the phases."""

    parts: tuple[Part, ...]
    origin: Pair
    """Rows and columns of padding before x."""
    seen: Pair
    """Rows and columns of x, from its first on, that windows reach."""


def unit_taps(spec: ConvSpec) -> Pair:
    """Of the same convolution at stride 1, down and across."""
    return -(-spec.R // spec.stride[0]), -(-spec.S // spec.stride[1])


@lru_cache(maxsize=1024)
def plan(spec: ConvSpec, itemsize: int) -> Plan:
    """How to compute all of its operations."""
    R, S = unit_taps(spec)
    unit = ConvSpec(spec.N, spec.C * math.prod(spec.stride), spec.OH + R - 1, spec.OW + S - 1, spec.K, R, S,
                    groups=spec.groups)  # fmt: skip
    count = max(1, PHASES_BYTES // (math.prod(unit.x_shape[1:]) * itemsize))
    parts = tuple(
        Part(slice(first, first + count), unit.with_batch(min(count, spec.N - first)))
        for first in range(0, spec.N, count)
    )
    return Plan(parts, (spec.rows.before, spec.cols.before), (spec.rows.touched, spec.cols.touched))


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y = the phases of x correlated with those of w, plus b."""
    found = plan(spec, x.itemsize)
    weights = _split_weights(spec, found, w)
    for images, unit in found.parts:
        data = _split_data(spec, found, x[images], unit)
        winograd_conv.conv_forward(unit, data, weights, b, y[images])


def conv_dx(spec: ConvSpec, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """The phases of dx, joined; it is zero where no window reaches."""
    found = plan(spec, dy.itemsize)
    weights = _split_weights(spec, found, w)
    if found.seen != (spec.H, spec.W):
        dx.fill(0)
    for images, unit in found.parts:
        data = room("phases of data", unit.x_shape, dy.dtype)
        winograd_conv.conv_dx(unit, dy[images], weights, data)
        join(_phases(spec, data), spec.stride, found.seen, found.origin, dx[images])


def conv_dw_db(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray, db: np.ndarray) -> None:
    """The phases of dw, joined, and db: those of all parts are added."""
    found = plan(spec, x.itemsize)
    db.fill(0)
    sums = np.empty_like(db)
    for number, (images, unit) in enumerate(found.parts):
        data = _split_data(spec, found, x[images], unit)
        weights = room("phases of weights", unit.w_shape, x.dtype)
        winograd_dw.conv_dw_db(unit, dy[images], data, weights, sums)
        (add if number else join)(_phases(spec, weights), spec.stride, (spec.R, spec.S), (0, 0), dw)
        db += sums


def _split_data(spec: ConvSpec, plan: Plan, x: np.ndarray, unit: ConvSpec) -> np.ndarray:
    data = room("phases of data", unit.x_shape, x.dtype)
    split(x, spec.stride, plan.seen, plan.origin, _phases(spec, data))
    return data


def _split_weights(spec: ConvSpec, plan: Plan, w: np.ndarray) -> np.ndarray:
    weights = room("phases of weights", plan.parts[0].unit.w_shape, w.dtype)
    split(w, spec.stride, (spec.R, spec.S), (0, 0), _phases(spec, weights))
    return weights


def _phases(spec: ConvSpec, array: np.ndarray) -> np.ndarray:
    return array.reshape(-1, *spec.stride, *array.shape[2:])
