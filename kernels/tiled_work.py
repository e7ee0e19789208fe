"""Memory that is used again: large arrays that are made anew cost a page fault for each of their pages."""

from __future__ import annotations

import math
import threading
from functools import lru_cache

import numpy as np

from kernels.arrays import readonly
from kernels.tiled_vectors import lanes

KEPT_BYTES = 64 << 20
"""What is kept for a Python thread under one name; anything larger is made for its call alone."""
LINE = 64
"""Bytes of a line of the cache, and of the widest vectors."""
PAGE_BYTES = 4096
"""Bytes that a page has at least, and between lines of the cache that share a place in it."""


class _Kept(threading.local):
    def __init__(self) -> None:
        self.arrays: dict[tuple[str, np.dtype], np.ndarray] = {}


_kept = _Kept()


def workspace(name: str, count: int, dtype: np.dtype) -> np.ndarray:
    """`count` or more of `dtype`, their content whatever was left; at each call of this thread the same.

    It begins with a line of the cache: a vector that lies in two lines takes twice as long to load.
    """
    array = _kept.arrays.get((name, dtype))
    if array is None or len(array) < count:
        array = _aligned(count, dtype)
        if array.nbytes <= KEPT_BYTES:
            _kept.arrays[name, dtype] = array
    return array


def room(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The workspace of that name as an array."""
    count = math.prod(shape)
    return workspace(name, count, dtype)[:count].reshape(shape)


@lru_cache(maxsize=4)
def nothing(dtype: np.dtype) -> np.ndarray:
    """The bias of what has none: (0,)."""
    return readonly(np.empty(0, dtype))


@lru_cache(maxsize=64)
def zeros(count: int, dtype: np.dtype) -> np.ndarray:
    """So many, and those that a tile may read beyond them."""
    return readonly(np.zeros(count + 4 * lanes(dtype), dtype))


def whole_lines(count: int) -> int:
    """`count` elements, float32 or float64, or some more, so that what lies behind them is aligned too."""
    return -(-count // LINE) * LINE


def _aligned(count: int, dtype: np.dtype) -> np.ndarray:
    array = np.empty(count + LINE // dtype.itemsize, dtype)
    first = -array.ctypes.data % LINE // dtype.itemsize
    return array[first : first + count]
