"""IDX files, the format of MNIST: a magic number, the lengths of the axes, then one byte a value."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

_CONTENT = {1: "labels", 3: "images"}


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """The array in an IDX file of bytes, gzipped or not: labels (N,) for ndim 1, images (N, H, W) for ndim 3.

    Returns uint8, read-only. Raises ValueError, naming the file, for one that is empty, truncated, too long,
    corrupt, or holds something else.
    """
    content = read_bytes(path)
    expected = f"an IDX file of {_CONTENT[ndim]}"
    if content[:4] != _magic(ndim):
        raise ValueError(f"{path} {_describe(content)}; expected {expected}")
    start = 4 + 4 * ndim
    if len(content) < start:
        raise ValueError(
            f"{path} is truncated: it has {len(content)} bytes; the header of {expected} has {start}"
        )
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    sizes = " x ".join(map(str, shape))
    announced = start + math.prod(shape)
    if len(content) != announced:
        fault = "truncated" if len(content) < announced else "too long"
        raise ValueError(
            f"{path} is {fault}: it has {len(content)} bytes; expected {announced}, "
            f"as its header announces {sizes} {_CONTENT[ndim]}"
        )
    if announced == start:
        raise ValueError(f"{path} holds no {_CONTENT[ndim]}: its header announces {sizes}; expected some")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_bytes(path: Path) -> bytes:
    """The content of a file, decompressed if it is gzipped, whatever its name.

    Raises ValueError for a corrupt gzip file.
    """
    content = path.read_bytes()
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is truncated or corrupt: {error}; expected a whole gzip file") from error


def _magic(ndim: int) -> bytes:
    return bytes((0, 0, 8, ndim))  # 8: unsigned bytes


def _describe(content: bytes) -> str:
    if not content:
        return "is empty"
    for ndim, what in _CONTENT.items():
        if content[:4] == _magic(ndim):
            return f"is an IDX file of {what}"
    return f"has the magic number {content[:4].hex(' ')}"
