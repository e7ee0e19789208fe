"""Numbers, names and orders as a reader sees them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

OPS = ("forward", "dx", "dw")
BACKENDS = (
    "loops", "window", "im2col", "einsum", "numba", "tiled", "winograd", "fft",
    "torch", "jax", "onnxruntime", "openvino", "scipy",
)  # fmt: skip
OP_NAMES = {"forward": "forward", "dx": "gradient of the input (dx)", "dw": "gradient of the weights (dw)"}
FAMILIES = ("convolution", "pooling")
NOTHING = "\N{EN DASH}"
"""What stands in a cell of a table where there is no value."""


def in_order(names: Iterable[str], known: tuple[str, ...]) -> list[str]:
    """Each name once: the known ones in their order, then the others by alphabet."""
    present = set(names)
    return [name for name in known if name in present] + sorted(present - set(known))


def significant(value: float, digits: int = 3) -> str:
    """A number with so many digits, without an exponent: 0.0123, 1.23, 12.3, 1,230."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else NOTHING
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = max(digits - 1 - math.floor(math.log10(abs(rounded))), 0)
    return f"{rounded:,.{decimals}f}"


def short(value: float) -> str:
    """A tick's label: 0.5, 8, 32, 1k, 10k, 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def seconds(value: float) -> str:
    """A duration in the unit that suits it."""
    if not math.isfinite(value):
        return NOTHING
    if value >= 120:
        return f"{significant(value / 60)} min" if value < 7200 else f"{significant(value / 3600)} h"
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= size:
            return f"{significant(value / size)} {unit}"
    return f"{significant(value / 1e-9)} ns"


def size(value: float) -> str:
    """Bytes in the unit that suits them."""
    for bytes_, unit in ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB")):
        if value >= bytes_:
            return f"{significant(value / bytes_)} {unit}"
    return f"{significant(value)} B"


def times(value: float) -> str:
    """A ratio: three digits and the sign of multiplication."""
    return f"{significant(value)}\N{MULTIPLICATION SIGN}" if math.isfinite(value) else NOTHING


def percent(value: float) -> str:
    """A fraction in per cent."""
    return f"{significant(100 * value, 2)} %" if math.isfinite(value) else NOTHING


def error(value: float) -> str:
    """A relative error: 0, or 1.2e-07."""
    return NOTHING if not math.isfinite(value) else "0" if value == 0 else f"{value:.1e}"


def count(number: int, noun: str) -> str:
    """`1 layer`, `18 layers`, `2 batches`, `1,350 cases`."""
    plural = f"{noun}es" if noun.endswith(("ch", "s")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def listing(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = list(words)
    return f"{', '.join(first)} and {last}" if first else last


def where(row: Any, room: int | None = None) -> str:
    """The layer, op and batch size of a row of `load`, the layer's name shortened to fit into `room`."""
    rest = f" {row.op}, batch {row.batch:,}"
    return f"{row.layer if room is None else clip(row.layer, max(room - len(rest), 9))}{rest}"


def clip(text: str, width: int) -> str:
    """The text, its middle left out where it is longer than `width`: names differ at their ends."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"
