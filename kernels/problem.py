"""One operation on one layer with its data: to be computed by any backend, and to be checked.

Tests, benchmarks and tuning all go through `Problem`, so that whatever is timed has been compared with
the same reference under the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from kernels import functional, reference
from kernels.lazy import lazy
from kernels.registry import EXACT, Op, get_backend, ops_of
from kernels.spec import ConvSpec, PoolSpec, Spec


@dataclass(frozen=True)
class Verdict:
    """How far results are from the reference: `error` relative to its largest value, and what is wrong."""

    error: float
    wrong: str | None


@dataclass(frozen=True)
class Problem:
    """`op` ("forward", "dx", "dw") of `spec` on `arrays`: x, w, b, dy, indices, as far as needed.

    `with_indices`: forward of max pooling also returns the maxima's indices, as in training.
    """

    spec: Spec
    op: Op
    arrays: Mapping[str, np.ndarray]
    with_indices: bool = False

    @classmethod
    def random(
        cls, spec: Spec, op: Op, dtype: DTypeLike = np.float32, seed: int = 0, x: np.ndarray | None = None
    ) -> Problem:
        """Standard normal data; or the given x (N, C, H, W) with weights and gradients of that kind."""
        rng = np.random.default_rng(seed)
        return cls._of(spec, op, lambda shape: np.asarray(rng.standard_normal(shape), dtype), x=x)

    @classmethod
    def integers(cls, spec: Spec, op: Op, dtype: DTypeLike = np.float32, seed: int = 0) -> Problem:
        """Integer-valued data, -4 to 4, on which exact backends make no rounding error at all.

        Sums stay below 2**24 for up to a million terms; what average pooling divides is a multiple of each
        of its divisors.
        """
        rng = np.random.default_rng(seed)
        unit = 1
        if isinstance(spec, PoolSpec) and spec.mode == "avg":
            unit = int(np.lcm.reduce(np.unique(spec.divisors)))
        return cls._of(spec, op, lambda shape: (unit * rng.integers(-4, 5, shape)).astype(dtype))

    @classmethod
    def of_training(cls, spec: Spec, dtype: DTypeLike = np.float32, seed: int = 0) -> dict[Op, Problem]:
        """All that training does with a layer, on the same standard normal data; forward keeps indices."""
        rng = np.random.default_rng(seed)
        arrays: dict[str, np.ndarray] = {}
        for op in ops_of(spec):
            arrays |= cls._of(
                spec, op, lambda shape: np.asarray(rng.standard_normal(shape), dtype), **arrays
            ).arrays
        is_max = isinstance(spec, PoolSpec) and spec.mode == "max"
        return {op: cls(spec, op, arrays, is_max and op == "forward") for op in ops_of(spec)}

    @classmethod
    def _of(cls, spec: Spec, op: Op, draw: Any, **given: np.ndarray | None) -> Problem:
        arrays = {}

        def need(name: str, make: Callable[[], np.ndarray]) -> None:
            array = given.get(name)
            arrays[name] = make() if array is None else array

        need("x", lambda: draw(spec.x_shape))
        if op != "forward":
            need("dy", lambda: draw(spec.y_shape))
        if isinstance(spec, ConvSpec):
            if op != "dw":
                need("w", lambda: draw(spec.w_shape))
            if op == "forward":
                need("b", lambda: draw(spec.K))
        elif op == "dx" and spec.mode == "max":
            need("indices", lambda: reference.max_pool_forward(spec, arrays["x"])[1])
        return cls(spec, op, arrays)

    @property
    def dtype(self) -> np.dtype:
        return self.arrays["x"].dtype

    def call(self, backend: str) -> Callable[..., Any]:
        """The public function on this data: it wants nothing but `out`, and `shown` shows what it returns."""
        if isinstance(self.spec, ConvSpec):
            return _conv_call(self.spec, self.op, self.arrays, backend)
        return _pool_call(self.spec, self.op, self.arrays, backend, self.with_indices)

    def as_out(self, results: tuple[np.ndarray, ...]) -> Any:
        """The results of a run as the `out` of `call`, to be written to again."""
        if isinstance(self.spec, PoolSpec):
            return results if self.with_indices else results[0]
        if self.spec.is_1d:
            results = tuple(map(_without_height, results))
        return {"forward": results[0], "dx": (results[0], None, None), "dw": (None, *results)}[self.op]

    def shown(self, returned: Any) -> tuple[np.ndarray, ...]:
        """What `call` returned as (y,), (y, indices), (dx,) or (dw, db), in the shapes of the spec."""
        arrays = (returned,) if isinstance(returned, np.ndarray) else returned
        return tuple(array[:, :, None] if array.ndim == 3 else array for array in arrays if array is not None)

    def run(self, backend: str, out: tuple[np.ndarray, ...] | None = None) -> tuple[np.ndarray, ...]:
        """Compute by the public functions, into the `out` of a run before if given.

        Returns (y,), (y, indices), (dx,) or (dw, db).
        """
        return self.shown(self.call(backend)(out=None if out is None else self.as_out(out)))

    @lazy
    def reference(self) -> tuple[np.ndarray, ...]:
        """What `run` should return, in float64."""
        return self._computed(self.arrays)

    @lazy
    def bounds(self) -> tuple[np.ndarray, ...]:
        """The largest rounding error that any order of summation can make, for each element.

        A sum of n products in unit roundoff u is off by at most n u / (1 - n u) times the sum of their
        absolute values (N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., section
        3.1), and that sum is the reference on the absolute values of the data.
        """
        absolute = {
            name: array if name == "indices" else np.abs(array) for name, array in self.arrays.items()
        }
        unit = np.finfo(self.dtype).eps / 2
        terms = _terms(self.spec, self.op)
        gamma = terms * unit / (1 - terms * unit)
        return tuple(gamma * array for array in self._computed(absolute))

    def judge(self, backend: str, results: tuple[np.ndarray, ...]) -> Verdict:
        """Compare a backend's results with the reference, by the backend's own numeric class."""
        tolerance = get_backend(backend).tolerance
        error, wrong = 0.0, None
        for number, (name, result, expected) in enumerate(
            zip(self._names, results, self.reference, strict=True)
        ):
            dtype = expected.dtype if name == "indices" else self.dtype
            if result.shape != expected.shape or result.dtype != dtype:
                found = f"{name} is {result.shape} of {result.dtype}"
                return Verdict(np.inf, f"{found}; expected {expected.shape} of {dtype}")
            largest = float(np.abs(expected).max(initial=0)) or 1.0
            distance = np.abs(result - expected)
            here = float(distance.max(initial=0)) / largest
            allowed = self.bounds[number] if tolerance == EXACT else tolerance * largest
            if not (distance <= allowed).all():
                wrong = f"{name} is off by {here:.1e} of its largest value, more than rounding explains"
            error = max(error, here)
        return Verdict(error, wrong)

    @property
    def _names(self) -> tuple[str, ...]:
        if self.with_indices:
            return "y", "indices"
        return {"forward": ("y",), "dx": ("dx",), "dw": ("dw", "db")}[self.op]

    def _computed(self, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        if self.with_indices:
            assert isinstance(self.spec, PoolSpec)
            return reference.max_pool_forward(self.spec, arrays["x"])
        return _reference(self.spec, self.op, arrays)


def _terms(spec: Spec, op: Op) -> int:
    """How many roundings at most go into one value: its products, and a bias or a division."""
    if isinstance(spec, PoolSpec):
        return 0 if spec.mode == "max" and op == "forward" else spec.R * spec.S + 1
    if op == "dw":
        return spec.N * spec.OH * spec.OW
    return (spec.C if op == "forward" else spec.K) // spec.groups * spec.R * spec.S + 1


def _conv_call(spec: ConvSpec, op: Op, arrays: Mapping[str, np.ndarray], backend: str) -> Callable[..., Any]:
    """`conv2d`, `conv1d` or their gradients on `arrays`."""
    geometry: dict[str, Any] = {
        "stride": spec.stride,
        "padding": spec.padding,
        "dilation": spec.dilation,
    }
    forward: Any = functional.conv2d
    backward: Any = functional.conv2d_backward
    # dw needs no weights, only their shape.
    w = arrays["w"] if op != "dw" else np.broadcast_to(arrays["x"].dtype.type(0), spec.w_shape)
    arrays = {**arrays, "w": w}
    if spec.is_1d:
        geometry = {name: along_width for name, (_, along_width) in geometry.items()}
        forward, backward = functional.conv1d, functional.conv1d_backward
        arrays = {name: _without_height(array) for name, array in arrays.items()}
    geometry |= {"groups": spec.groups, "backend": backend}
    if op == "forward":
        return partial(forward, arrays["x"], arrays["w"], arrays["b"], **geometry)
    need = ("dx",) if op == "dx" else ("dw", "db")
    return partial(backward, arrays["dy"], arrays["x"], arrays["w"], **geometry, need=need)


def _without_height(array: np.ndarray) -> np.ndarray:
    """An array of a convolution of height 1 as 1-D functions know it; a bias is as it is."""
    return array if array.ndim == 1 else array[:, :, 0]


def _pool_call(
    spec: PoolSpec, op: Op, arrays: Mapping[str, np.ndarray], backend: str, with_indices: bool
) -> Callable[..., Any]:
    """`max_pool2d`, `avg_pool2d` or their gradients on `arrays`."""
    window: dict[str, Any] = {
        "kernel_size": (spec.R, spec.S),
        "stride": spec.stride,
        "padding": spec.padding,
        "ceil_mode": spec.ceil_mode,
        "backend": backend,
    }
    if spec.mode == "avg":
        window["count_include_pad"] = spec.count_include_pad
        if op == "forward":
            return partial(functional.avg_pool2d, arrays["x"], **window)
        return partial(functional.avg_pool2d_backward, arrays["dy"], spec.x_shape, **window)
    window["dilation"] = spec.dilation
    if op == "forward":
        return partial(functional.max_pool2d, arrays["x"], **window, return_indices=with_indices)
    indices = arrays["indices"]
    return partial(functional.max_pool2d_backward, arrays["dy"], arrays["x"], **window, indices=indices)


def _reference(spec: Spec, op: Op, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    if isinstance(spec, ConvSpec):
        if op == "forward":
            return (reference.conv_forward(spec, arrays["x"], arrays["w"], arrays["b"]),)
        if op == "dx":
            return (reference.conv_dx(spec, arrays["dy"], arrays["w"]),)
        return reference.conv_dw(spec, arrays["dy"], arrays["x"]), reference.conv_db(spec, arrays["dy"])
    if spec.mode == "max":
        if op == "forward":
            return (reference.max_pool_forward(spec, arrays["x"])[0],)
        return (reference.max_pool_dx(spec, arrays["dy"], arrays["indices"]),)
    if op == "forward":
        return (reference.avg_pool_forward(spec, arrays["x"]),)
    return (reference.avg_pool_dx(spec, arrays["dy"]),)
