"""Memory that is used again: large arrays that are made anew cost a page fault for each of their pages."""

from __future__ import annotations

import threading

import numpy as np

KEPT_BYTES = 64 << 20
"""What is kept for a Python thread under one name; anything larger is made for its call alone."""


class _Kept(threading.local):
    def __init__(self) -> None:
        self.arrays: dict[tuple[str, np.dtype], np.ndarray] = {}


_kept = _Kept()


def workspace(name: str, count: int, dtype: np.dtype) -> np.ndarray:
    """(count,) of `dtype`, its content whatever was left; the same memory at each call of this thread."""
    if count * dtype.itemsize > KEPT_BYTES:
        return np.empty(count, dtype)
    array = _kept.arrays.get((name, dtype))
    if array is None or len(array) < count:
        array = _kept.arrays[name, dtype] = np.empty(count, dtype)
    return array[:count]
