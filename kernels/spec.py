"""The geometry of a layer: validated and computed once, for every backend.

Glossary, used by all backends: N images, C channels, H x W pixels, K filters of R x S taps, OH x OW
outputs. The long names (`stride`, `padding`, `dilation`, `groups`, ...) mean what they mean in
`torch.nn.functional`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import DTypeLike

from kernels import descriptor
from kernels.axis import Axis, Pair, Sides, as_int, as_pair, as_sides, is_int
from kernels.lazy import lazy


class _Windows:
    """What convolution and pooling share: the two axes, and what follows from them."""

    N: int
    C: int
    H: int
    W: int
    R: int
    S: int
    stride: Pair
    padding: Sides
    dilation: Pair
    name: str
    repeat: int
    rows: Axis
    cols: Axis

    def _normalise(self, ceil_mode: bool = False) -> None:
        """Validate the fields and bring them to their one form; runs once, as the spec is made."""
        assign = object.__setattr__  # the dataclasses are frozen for everyone else
        if not isinstance(self.name, str) or set(self.name) & set('"\n'):
            raise ValueError(f"name is {self.name!r}; expected a string on one line, without quotation marks")
        assign(self, "N", as_int("N", self.N, 0))
        for name in ("C", "H", "W", "R", "S", "repeat"):
            assign(self, name, as_int(name, getattr(self, name), 1))
        assign(self, "stride", as_pair("stride", self.stride))
        assign(self, "dilation", as_pair("dilation", self.dilation))
        bare = [
            Axis(size, kernel, stride, 0, 0, dilation, ceil_mode)
            for size, kernel, stride, dilation in zip(
                (self.H, self.W), (self.R, self.S), self.stride, self.dilation, strict=True
            )
        ]
        padding: object = self.padding
        word = padding if isinstance(padding, str) else None  # to compare an array with one would fail
        if word == "same":
            axes = [axis.same() for axis in bare]
        else:
            sides = as_sides(0 if word == "valid" else padding)
            axes = [
                replace(axis, before=before, after=after)
                for axis, (before, after) in zip(bare, sides, strict=True)
            ]
        rows, cols = axes
        assign(self, "padding", ((rows.before, rows.after), (cols.before, cols.after)))
        assign(self, "rows", rows)
        assign(self, "cols", cols)
        if min(rows.out, cols.out) < 1:
            raise ValueError(
                f"kernel {rows.reach}x{cols.reach} (dilation counted) is larger than the padded input "
                f"{rows.padded}x{cols.padded}; expected a smaller kernel or more padding"
            )

    @property
    def OH(self) -> int:
        return self.rows.out

    @property
    def OW(self) -> int:
        return self.cols.out

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.C, self.H, self.W

    @property
    def padded(self) -> bool:
        return self.padding != ((0, 0), (0, 0))

    @lazy
    def _numbers(self) -> int:
        """Their hash: specs are looked up often."""
        values = (getattr(self, field.name) for field in fields(self) if field.compare)  # type: ignore[arg-type]
        return hash(tuple(value for value in values if not isinstance(value, str)))  # as in any other process

    def __hash__(self) -> int:
        return self._numbers

    @lazy
    def valid_taps(self) -> int:
        """Taps that fall on the input, over one plane of outputs: oneDNN benchdnn's count."""
        return int(self.rows.valid().sum()) * int(self.cols.valid().sum())

    def im2col_bytes(self, dtype: DTypeLike) -> int:
        """Bytes of im2col's window matrix: every input once for each window that covers it."""
        return self.N * self.C * self.R * self.S * self.OH * self.OW * np.dtype(dtype).itemsize

    def with_batch(self, n: int) -> Self:
        """The same layer over `n` images."""
        return replace(self, N=n)  # type: ignore[type-var]


def _window_fields(rows: Axis, cols: Axis) -> dict[str, Any]:
    return {
        "H": rows.size,
        "W": cols.size,
        "R": rows.kernel,
        "S": cols.kernel,
        "stride": (rows.stride, cols.stride),
        "padding": ((rows.before, rows.after), (cols.before, cols.after)),
        "dilation": (rows.dilation, cols.dilation),
    }


@dataclass(frozen=True)
class ConvSpec(_Windows):
    """A 2-D convolution of x (N, C, H, W) with w (K, C/groups, R, S) into y (N, K, OH, OW).

    `stride`, `dilation`: an int or a pair (height, width). `padding`: also ((top, bottom), (left,
    right)), "same" or "valid"; kept as the four sides. A 1-D convolution has H = R = 1. `name` and
    `repeat` label a layer and take no part in comparison. Raises ValueError or TypeError for a
    geometry that is none.
    """

    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    stride: Pair = (1, 1)
    padding: Sides = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1
    name: str = field(default="", compare=False)
    repeat: int = field(default=1, compare=False)

    __hash__ = _Windows.__hash__

    def __post_init__(self) -> None:
        object.__setattr__(self, "K", as_int("K", self.K, 1))
        object.__setattr__(self, "groups", as_int("groups", self.groups, 1))
        for count, what in ((self.C, "channels of x"), (self.K, "filters of w")):
            if is_int(count) and count % self.groups:
                raise ValueError(
                    f"groups is {self.groups} and does not divide the {count} {what}; expected a divisor"
                )
        self._normalise()

    @property
    def kind(self) -> Literal["conv1d", "conv2d"]:
        return "conv1d" if self.is_1d else "conv2d"

    @property
    def is_1d(self) -> bool:
        """Whether only the width is convolved; a 1x1 kernel on a 1x1 image passes for 2-D."""
        return self.rows.trivial and self.rows != self.cols

    @property
    def w_shape(self) -> tuple[int, int, int, int]:
        return self.K, self.C // self.groups, self.R, self.S

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.K, self.OH, self.OW

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return int(np.prod(self.w_shape)) + self.K

    @property
    def flops(self) -> int:
        """Operations of one pass (forward, dx or dw): two per multiply-add, padding's taps not counted."""
        return 2 * self.N * self.K * (self.C // self.groups) * self.valid_taps

    def least_bytes(self, dtype: DTypeLike) -> int:
        """Bytes that any pass must move: x, w and y once each (two are read, the third is written)."""
        values = sum(int(np.prod(shape)) for shape in (self.x_shape, self.w_shape, self.y_shape))
        return values * np.dtype(dtype).itemsize

    @classmethod
    def parse(cls, text: str) -> ConvSpec:
        """Read a oneDNN benchdnn descriptor such as `mb32ic6ih12oc16oh8kh5n"lenet:conv2"`."""
        numbers, name, repeat = descriptor.read(text, descriptor.CONV_KEYS)
        rows, cols = descriptor.axes(text, numbers)
        with descriptor.named(text):
            return cls(
                N=numbers["mb"],
                C=numbers["ic"],
                K=numbers["oc"],
                groups=numbers["g"],
                name=name,
                repeat=repeat,
                **_window_fields(rows, cols),
            )

    @property
    def descriptor(self) -> str:
        """The layer as a benchdnn descriptor; `parse` reads it back."""
        groups = f"g{self.groups}" if self.groups > 1 else ""
        head = f"{groups}mb{self.N}ic{self.C}"
        return descriptor.write(head, self.rows, self.cols, self.name, self.repeat, oc=self.K)


@dataclass(frozen=True)
class PoolSpec(_Windows):
    """A 2-D max or average pooling of x (N, C, H, W) into y (N, C, OH, OW) by R x S windows.

    Arguments as for `ConvSpec`; `stride` is the window's size unless given. Padding must be smaller
    than the (dilated) window on each side. Average pooling has no dilation, and divides by the window's
    taps, those on padding included if `count_include_pad`.
    """

    mode: Literal["max", "avg"]
    N: int
    C: int
    H: int
    W: int
    R: int
    S: int
    stride: Pair = None  # type: ignore[assignment]  # the window's size
    padding: Sides = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    ceil_mode: bool = False
    count_include_pad: bool = True
    name: str = field(default="", compare=False)
    repeat: int = field(default=1, compare=False)

    __hash__ = _Windows.__hash__

    def __post_init__(self) -> None:
        if self.mode not in ("max", "avg"):
            raise ValueError(f"mode is {self.mode!r}; expected 'max' or 'avg'")
        stride: object = self.stride
        if stride is None:
            object.__setattr__(self, "stride", (self.R, self.S))
        self._normalise(ceil_mode=bool(self.ceil_mode))
        if self.mode == "avg" and self.dilation != (1, 1):
            raise ValueError(f"dilation is {self.dilation}; average pooling has none, expected 1")
        for axis, where in ((self.rows, "height"), (self.cols, "width")):
            if max(axis.before, axis.after) >= axis.reach:
                raise ValueError(
                    f"padding ({axis.before}, {axis.after}) of the {where} is not smaller than the "
                    f"window's {axis.reach} (dilation counted); expected less on each side"
                )
            if not axis.valid().any(axis=1).all():
                raise ValueError(
                    f"dilation {axis.dilation} over a {where} of {axis.size} leaves a window with "
                    "nothing but padding; expected a smaller dilation or less padding"
                )

    @property
    def kind(self) -> Literal["max_pool2d", "avg_pool2d"]:
        return "max_pool2d" if self.mode == "max" else "avg_pool2d"

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.C, self.OH, self.OW

    @property
    def parameters(self) -> int:
        return 0

    @property
    def flops(self) -> int:
        """One comparison or addition for each tap that falls on the input."""
        return self.N * self.C * self.valid_taps

    def least_bytes(self, dtype: DTypeLike) -> int:
        """Bytes that any pass must move: x and y once each."""
        return int(np.prod(self.x_shape) + np.prod(self.y_shape)) * np.dtype(dtype).itemsize

    @lazy
    def divisors(self) -> np.ndarray:
        """What average pooling divides each window's sum by: int64 (OH, OW)."""
        if self.count_include_pad:
            return np.outer(self.rows.spans(), self.cols.spans())
        return np.outer(self.rows.valid().sum(axis=1), self.cols.valid().sum(axis=1))

    @classmethod
    def parse(cls, text: str, mode: Literal["max", "avg"] = "max") -> PoolSpec:
        """Read a benchdnn pooling descriptor such as `mb32ic6ih24oh12kh2sh2n"lenet:pool1"`."""
        numbers, name, repeat = descriptor.read(text, descriptor.POOL_KEYS)
        ceil_mode = bool(numbers["cm"])
        rows, cols = descriptor.axes(text, numbers, ceil_mode)
        with descriptor.named(text):
            return cls(
                mode=mode,
                N=numbers["mb"],
                C=numbers["ic"],
                ceil_mode=ceil_mode,
                count_include_pad=bool(numbers["cp"]),
                name=name,
                repeat=repeat,
                **_window_fields(rows, cols),
            )

    @property
    def descriptor(self) -> str:
        """The layer as a benchdnn descriptor; `parse` reads it back."""
        exclude = "" if self.count_include_pad else "cp0"
        head = f"mb{self.N}ic{self.C}"
        return descriptor.write(head, self.rows, self.cols, self.name, self.repeat, tail=exclude)


Spec = ConvSpec | PoolSpec
