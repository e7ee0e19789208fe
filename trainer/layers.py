"""Layers: forward beside backward, parameters and gradients as arrays.

Names, arguments, shapes and first values are those of `torch.nn`. A layer that trains reuses its buffers:
what `forward(x, training=True)` and `backward` return is good until they are called again, and each
`backward` belongs to the `forward` before it. Without `training` nothing is kept, and what comes back is the
caller's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from kernels import (
    ConvSpec,
    PoolSpec,
    Spec,
    avg_pool2d,
    avg_pool2d_backward,
    conv1d,
    conv1d_backward,
    conv2d,
    conv2d_backward,
    max_pool2d,
    max_pool2d_backward,
)
from kernels.arguments import conv1d_spec, conv2d_spec, pool2d_spec
from kernels.axis import as_int, as_pair
from trainer.fused import MEMORY_BOUND, rectify, rectify_gradient
from trainer.products import multiply

Shape = tuple[int, ...]
Uniform = Callable[[float, int], np.ndarray]
"""(bound, count): float32 numbers from -bound to bound."""


class Layer(ABC):
    """A function of x (N, ...) and the parameters, with its gradient.

    `parameters` and `gradients` map names ("weight", "bias") to arrays of one shape. `in_place` allows
    overwriting x in forward and dy in backward: a model sets it where the neighbours have no need of them.
    """

    needs_output = False
    """Whether backward looks at what forward returned."""

    def __init__(self) -> None:
        self.parameters: dict[str, np.ndarray] = {}
        self.gradients: dict[str, np.ndarray] = {}
        self.in_place = False
        self._saved: Any = None
        self._buffers: dict[str, np.ndarray] = {}

    @abstractmethod
    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """y for x (N, ...); `training` keeps what `backward` needs."""

    @abstractmethod
    def backward(self, dy: np.ndarray, need_dx: bool = True) -> np.ndarray | None:
        """The gradient of x, given that of y; sets `gradients`. None if it is not needed."""

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """The shape of one image's y, given that of its x. Raises ValueError where x does not fit."""

    def flops(self, shape: Shape) -> int:
        """Operations of `forward` on one image of `shape`, two per multiply-add."""
        return 0

    def initialise(self, uniform: Uniform) -> None:
        """Give the parameters their first values, uniform within 1 / sqrt(fan in): as `torch.nn` has them.

        That is K. He et al., "Delving Deep into Rectifiers", 2015, with a = sqrt(5).
        """
        for values in self.parameters.values():
            bound = 1 / math.sqrt(self.parameters["weight"][0].size)
            values[...] = uniform(bound, values.size).reshape(values.shape)

    def _saved_by_forward(self) -> Any:
        if self._saved is None:
            raise ValueError(f"{type(self).__name__}: backward without forward(x, training=True) before it")
        saved, self._saved = self._saved, None
        return saved

    def _buffer(self, name: str, shape: Shape, dtype: DTypeLike) -> np.ndarray:
        """An array that is there from step to step; a smaller last batch takes the front of it."""
        held = self._buffers.get(name)
        if held is None or len(held) < shape[0] or held.shape[1:] != shape[1:] or held.dtype != dtype:
            held = self._buffers[name] = np.empty(shape, dtype)
        return held[: shape[0]]


class _Weighted(Layer):
    """A layer with weights and, perhaps, biases."""

    def __init__(self, weight: Shape, bias: bool, dtype: DTypeLike) -> None:
        super().__init__()
        shapes = {"weight": weight, "bias": weight[:1]} if bias else {"weight": weight}
        self.parameters = {name: np.zeros(shape, dtype) for name, shape in shapes.items()}
        self.gradients = {name: np.zeros(shape, dtype) for name, shape in shapes.items()}


class Linear(_Weighted):
    """y = x w^T + b for x (N, in_features) and w (out_features, in_features)."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, dtype: DTypeLike = np.float32
    ) -> None:
        super().__init__((out_features, in_features), bias, dtype)

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        w, b = self.parameters["weight"], self.parameters.get("bias")
        shape = len(x), len(w)
        y = self._buffer("y", shape, x.dtype) if training else np.empty(shape, x.dtype)
        multiply(x, w.T, y)
        if b is not None:
            y += b
        if training:
            self._saved = x
        return y

    def backward(self, dy: np.ndarray, need_dx: bool = True) -> np.ndarray | None:
        x, w = self._saved_by_forward(), self.parameters["weight"]
        multiply(dy.T, x, self.gradients["weight"])
        if "bias" in self.gradients:
            np.sum(dy, axis=0, out=self.gradients["bias"])
        if not need_dx:
            return None
        dx = self._buffer("dx", x.shape, x.dtype)
        multiply(dy, w, dx)
        return dx

    def output_shape(self, shape: Shape) -> Shape:
        out_features, in_features = self.parameters["weight"].shape
        if shape != (in_features,):
            raise ValueError(f"Linear takes {in_features} features; its input is {shape}")
        return (out_features,)

    def flops(self, shape: Shape) -> int:
        return 2 * self.parameters["weight"].size


class Windowed(Layer):
    """A layer that a backend computes, convolution or pooling. `backend` is a name, or "auto"."""

    backend: str

    @abstractmethod
    def spec(self, shape: Shape, N: int = 1) -> Spec:
        """The geometry over `N` images of `shape`. Raises ValueError where they do not fit."""

    def output_shape(self, shape: Shape) -> Shape:
        return self.spec(shape).y_shape[1:]

    def flops(self, shape: Shape) -> int:
        return self.spec(shape).flops

    def _out(self, x: np.ndarray) -> np.ndarray:
        """Where to put y for x."""
        return self._buffer("y", (len(x), *self.output_shape(x.shape[1:])), x.dtype)


class _Convolution(_Weighted, Windowed):
    """What 1-D and 2-D convolution share: the filters, and the two functions that use them."""

    _forward: Callable[..., np.ndarray]
    _backward: Callable[..., Any]

    def __init__(
        self,
        weight: Shape,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
        bias: bool,
        backend: str,
        dtype: DTypeLike,
    ) -> None:
        super().__init__(weight, bias, dtype)
        self.geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        self.backend = backend

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        w, b = self.parameters["weight"], self.parameters.get("bias")
        out = self._out(x) if training else None
        if training:
            self._saved = x
        return self._forward(x, w, b, **self.geometry, backend=self.backend, out=out)

    def backward(self, dy: np.ndarray, need_dx: bool = True) -> np.ndarray | None:
        x, w = self._saved_by_forward(), self.parameters["weight"]
        dx = self._buffer("dx", x.shape, x.dtype) if need_dx else None
        out = dx, self.gradients["weight"], self.gradients.get("bias")
        need = [name for name, array in zip(("dx", "dw", "db"), out, strict=True) if array is not None]
        self._backward(dy, x, w, **self.geometry, backend=self.backend, need=need, out=out)
        return dx

    def _check_channels(self, shape: Shape) -> None:
        expected = self.parameters["weight"].shape[1] * self.geometry["groups"]
        if shape[0] != expected:
            raise ValueError(f"{type(self).__name__} takes {expected} channels; its input is {shape}")


class Conv2d(_Convolution):
    """2-D convolution of x (N, C, H, W) with `out_channels` filters: `kernels.conv2d`."""

    _forward = staticmethod(conv2d)
    _backward = staticmethod(conv2d_backward)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        *,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        backend: str = "auto",
        dtype: DTypeLike = np.float32,
    ) -> None:
        weight = out_channels, in_channels // groups, *as_pair("kernel_size", kernel_size)
        super().__init__(weight, stride, padding, dilation, groups, bias, backend, dtype)

    def spec(self, shape: Shape, N: int = 1) -> ConvSpec:
        self._check_channels(shape)
        return conv2d_spec((N, *shape), self.parameters["weight"].shape, **self.geometry)


class Conv1d(_Convolution):
    """1-D convolution of x (N, C, L) with `out_channels` filters: `kernels.conv1d`."""

    _forward = staticmethod(conv1d)
    _backward = staticmethod(conv1d_backward)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        backend: str = "auto",
        dtype: DTypeLike = np.float32,
    ) -> None:
        weight = out_channels, in_channels // groups, as_int("kernel_size", kernel_size, 1)
        super().__init__(weight, stride, padding, dilation, groups, bias, backend, dtype)

    def spec(self, shape: Shape, N: int = 1) -> ConvSpec:
        self._check_channels(shape)
        return conv1d_spec((N, *shape), self.parameters["weight"].shape, **self.geometry)

    def output_shape(self, shape: Shape) -> Shape:
        spec = self.spec(shape)
        return spec.K, spec.OW


class _Pooling(Windowed):
    """What the two poolings share."""

    def __init__(self, kernel_size: Any, backend: str, **geometry: Any) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.geometry = geometry
        self.backend = backend


class MaxPool2d(_Pooling):
    """The maximum of each window of x (N, C, H, W): `kernels.max_pool2d`."""

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            kernel_size, backend, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
        )

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        if not training:
            y: np.ndarray = max_pool2d(x, self.kernel_size, **self.geometry, backend=self.backend)
            return y
        y = self._out(x)
        indices = self._buffer("indices", y.shape, np.int64)
        max_pool2d(
            x,
            self.kernel_size,
            **self.geometry,
            return_indices=True,
            backend=self.backend,
            out=(y, indices),
        )
        self._saved = x, indices
        return y

    def backward(self, dy: np.ndarray, need_dx: bool = True) -> np.ndarray | None:
        x, indices = self._saved_by_forward()
        if not need_dx:
            return None
        dx = self._buffer("dx", x.shape, x.dtype)
        return max_pool2d_backward(
            dy, x, self.kernel_size, **self.geometry, indices=indices, backend=self.backend, out=dx
        )

    def spec(self, shape: Shape, N: int = 1) -> PoolSpec:
        return pool2d_spec("max", (N, *shape), self.kernel_size, **self.geometry)


class AvgPool2d(_Pooling):
    """The mean of each window of x (N, C, H, W): `kernels.avg_pool2d`."""

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            kernel_size,
            backend,
            stride=stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
        )

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        out = self._out(x) if training else None
        if training:
            self._saved = x.shape
        return avg_pool2d(x, self.kernel_size, **self.geometry, backend=self.backend, out=out)

    def backward(self, dy: np.ndarray, need_dx: bool = True) -> np.ndarray | None:
        shape = self._saved_by_forward()
        if not need_dx:
            return None
        dx = self._buffer("dx", shape, dy.dtype)
        return avg_pool2d_backward(dy, shape, self.kernel_size, **self.geometry, backend=self.backend, out=dx)

    def spec(self, shape: Shape, N: int = 1) -> PoolSpec:
        return pool2d_spec("avg", (N, *shape), self.kernel_size, **self.geometry)


class Flatten(Layer):
    """(N, ...) as (N, features): a view."""

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        if training:
            self._saved = x.shape
        return x.reshape(len(x), math.prod(x.shape[1:]))

    def backward(self, dy: np.ndarray, need_dx: bool = True) -> np.ndarray | None:
        return dy.reshape(self._saved_by_forward())

    def output_shape(self, shape: Shape) -> Shape:
        return (math.prod(shape),)


class _Activation(Layer):
    """A function of each number, whose slope follows from its result."""

    needs_output = True

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        x = np.ascontiguousarray(x)
        out = x if self.in_place else self._buffer("y", x.shape, x.dtype) if training else None
        y = self._function(x, out)
        if training:
            self._saved = y
        return y

    def backward(self, dy: np.ndarray, need_dx: bool = True) -> np.ndarray | None:
        y, dy = self._saved_by_forward(), np.ascontiguousarray(dy)
        if not need_dx:
            return None
        return self._gradient(dy, y, dy if self.in_place else self._buffer("dx", y.shape, y.dtype))

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def flops(self, shape: Shape) -> int:
        return math.prod(shape)

    @abstractmethod
    def _function(self, x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        """y, in `out` if given."""

    @abstractmethod
    def _gradient(self, dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> np.ndarray:
        """`dx`, filled; it may be dy itself."""


class ReLU(_Activation):
    """max(x, 0)."""

    def _function(self, x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        y = np.empty_like(x) if out is None else out
        rectify(MEMORY_BOUND * x.size, x.reshape(-1), y.reshape(-1))
        return y

    def _gradient(self, dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> np.ndarray:
        rectify_gradient(MEMORY_BOUND * dy.size, dy.reshape(-1), y.reshape(-1), dx.reshape(-1))
        return dx


class Tanh(_Activation):
    """tanh(x)."""

    def _function(self, x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        y: np.ndarray = np.tanh(x, out=out)
        return y

    def _gradient(self, dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> np.ndarray:
        slope = np.multiply(y, y, out=self._buffer("slope", y.shape, y.dtype))
        np.subtract(1, slope, out=slope)
        np.multiply(dy, slope, out=dx)
        return dx
