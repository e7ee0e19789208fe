"""What the `numba` backend's kernels do to one row at a time, every `step`-th element of it.

Rows are given as a flat array and where they begin, not as slices: making a view counts a reference, and
that costs as much as a short row. All indices are unsigned, since what cannot be negative needs no check
for counting from the end, and the loops vectorise.
"""

from __future__ import annotations

import numpy as np

from kernels.jit import helper


@helper
def gather(source, begin, step, target, at, count):
    """target[at + i] = source[begin + i * step]."""
    begin, step, at = np.uintp(begin), np.uintp(step), np.uintp(at)
    for i in range(np.uintp(max(0, count))):
        target[at + i] = source[begin + i * step]


@helper
def spread(source, begin, target, at, step, count):
    """target[at + i * step] = source[begin + i]."""
    begin, step, at = np.uintp(begin), np.uintp(step), np.uintp(at)
    for i in range(np.uintp(max(0, count))):
        target[at + i * step] = source[begin + i]


@helper
def add_gathered(source, begin, step, target, at, count):
    """target[at + i] += source[begin + i * step]."""
    begin, step, at = np.uintp(begin), np.uintp(step), np.uintp(at)
    for i in range(np.uintp(max(0, count))):
        target[at + i] += source[begin + i * step]


@helper
def add_spread(source, begin, target, at, step, count):
    """target[at + i * step] += source[begin + i]."""
    begin, step, at = np.uintp(begin), np.uintp(step), np.uintp(at)
    for i in range(np.uintp(max(0, count))):
        target[at + i * step] += source[begin + i]


@helper
def fill(target, at, count, value):
    """target[at + i] = value."""
    at = np.uintp(at)
    for i in range(np.uintp(max(0, count))):
        target[at + i] = value


@helper
def keep_larger(source, begin, step, best, at, count):
    """best[at + i] = the larger of itself and source[begin + i * step]; NaN counts as larger."""
    begin, step, at = np.uintp(begin), np.uintp(step), np.uintp(at)
    for i in range(np.uintp(max(0, count))):
        value, kept = source[begin + i * step], best[at + i]
        best[at + i] = value if value > kept or value != value else kept


@helper
def keep_where(source, begin, step, best, where, at, count, position):
    """The same, and where[at + i] = position + i * step of what was kept; -1 there gives way to anything."""
    begin, stride, at = np.uintp(begin), np.uintp(step), np.uintp(at)
    for i in range(np.uintp(max(0, count))):
        value, kept = source[begin + i * stride], best[at + i]
        wins = value > kept or value != value or where[at + i] < 0
        where[at + i] = position + np.int64(i) * step if wins else where[at + i]
        best[at + i] = value if wins else kept
