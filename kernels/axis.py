"""One spatial axis of a sliding window, and the arguments that describe it."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace

import numpy as np

from kernels.lazy import lazy

Pair = tuple[int, int]
Sides = tuple[Pair, Pair]


def is_int(value: object) -> bool:
    if type(value) is int:
        return True
    if isinstance(value, bool | np.bool_):
        return False
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def as_int(name: str, value: object, least: int) -> int:
    wanted = "a positive int" if least else "an int of 0 or more"
    if not is_int(value):
        raise TypeError(f"{name} is {value!r}; expected {wanted}")
    number = operator.index(value)  # type: ignore[arg-type]
    if number < least:
        raise ValueError(f"{name} is {number}; expected {wanted}")
    return number


def as_pair(name: str, value: object, least: int = 1) -> Pair:
    """`value`, an int or a pair (height, width), as a pair of ints of at least `least`."""
    if is_int(value):
        both = as_int(name, value, least)
        return both, both
    if isinstance(value, tuple | list) and len(value) == 2 and all(map(is_int, value)):
        pair = operator.index(value[0]), operator.index(value[1])
        if min(pair) < least:
            raise ValueError(f"{name} is {pair}; expected ints of {least} or more")
        return pair
    raise TypeError(f"{name} is {value!r}; expected an int or a pair of ints (height, width)")


def as_sides(padding: object) -> Sides:
    """Explicit `padding` as ((top, bottom), (left, right)).

    Takes an int, a pair (height, width), or the four sides; "same" depends on the layer: see `Axis.same`.
    """
    if isinstance(padding, str):
        raise ValueError(f'padding is {padding!r}; expected "same", "valid" or numbers')
    if isinstance(padding, tuple | list) and len(padding) == 2 and not all(map(is_int, padding)):
        if all(isinstance(side, tuple | list) for side in padding):
            return as_pair("padding", padding[0], 0), as_pair("padding", padding[1], 0)
    else:
        height, width = as_pair("padding", padding, 0)
        return (height, height), (width, width)
    raise TypeError(
        f"padding is {padding!r}; expected an int, a pair (height, width), "
        '((top, bottom), (left, right)), "same" or "valid"'
    )


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a sliding window: `size` inputs, windows of `kernel` taps, `out` outputs."""

    size: int
    kernel: int
    stride: int
    before: int
    after: int
    dilation: int
    ceil_mode: bool = False

    @property
    def reach(self) -> int:
        """Inputs from a window's first tap to its last: the dilated kernel."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def padded(self) -> int:
        return self.before + self.size + self.after

    @property
    def trivial(self) -> bool:
        """Whether nothing happens along this axis: one input, one tap."""
        return self.padded == self.kernel == 1

    @lazy
    def out(self) -> int:
        """The number of windows; below 1 where not even one fits."""
        slack = self.padded - self.reach
        if slack < 0:
            return 0
        out = slack // self.stride + 1
        # PyTorch's rule for ceil_mode: the last window must start inside the input or its left padding.
        if self.ceil_mode and slack % self.stride and out * self.stride < self.size + self.before:
            out += 1
        return out

    @property
    def extent(self) -> int:
        """Padded inputs that the windows touch; with ceil_mode that can exceed `padded`."""
        return (self.out - 1) * self.stride + self.reach

    @property
    def touched(self) -> int:
        """Inputs up to the last one that a window touches."""
        return max(0, min(self.size, self.extent - self.before))

    def taps(self) -> np.ndarray:
        """Input index of each tap, int64 (out, kernel); outside 0..size-1 it lies in the padding."""
        starts = np.arange(self.out) * self.stride - self.before
        taps: np.ndarray = starts[:, None] + np.arange(self.kernel) * self.dilation
        return taps

    def valid(self) -> np.ndarray:
        """Which taps fall on the input rather than on padding: bool (out, kernel)."""
        taps = self.taps()
        return (taps >= 0) & (taps < self.size)

    def spans(self) -> np.ndarray:
        """Taps of each window that count when padding counts: int64 (out,). The overhang never does."""
        spans: np.ndarray = (self.taps() < self.size + self.after).sum(axis=1)
        return spans

    def same(self) -> Axis:
        """This axis padded so that out = ceil(size / stride), the odd element at the end."""
        out = -(-self.size // self.stride)
        total = max(0, (out - 1) * self.stride + self.reach - self.size)
        return replace(self, before=total // 2, after=total - total // 2)
