"""What the tests of the kernels share: small layers of every kind, and cases over the registry."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kernels
from kernels import Backend, ConvSpec, PoolSpec, Spec
from kernels.registry import EXACT, ops_of

ROOT = Path(kernels.__file__).resolve().parents[1]
DTYPES = (np.float32, np.float64)

# N, C, H, W, K, R, S: small enough for nested loops, and no two sizes of a layer alike where that matters.
CONVS = {
    "dense": ConvSpec(2, 3, 6, 6, 4, 3, 3),
    "not square": ConvSpec(2, 3, 7, 5, 2, 2, 4),
    "stride": ConvSpec(2, 2, 7, 8, 3, 3, 3, stride=2),
    "uneven stride": ConvSpec(1, 2, 8, 7, 3, 3, 2, stride=(3, 2)),
    "stride over kernel": ConvSpec(2, 2, 9, 8, 2, 2, 1, stride=(4, 3)),
    "inputs left over": ConvSpec(1, 2, 8, 8, 3, 3, 3, stride=(3, 4)),
    "dilation": ConvSpec(2, 2, 8, 7, 3, 3, 2, dilation=(2, 3)),
    "dilation and stride": ConvSpec(1, 2, 9, 10, 3, 2, 3, stride=(2, 3), dilation=(3, 2), padding=2),
    "padding": ConvSpec(2, 3, 5, 4, 4, 3, 3, padding=1),
    "uneven padding": ConvSpec(1, 2, 4, 5, 3, 3, 4, padding=(2, 1)),
    "padding over kernel": ConvSpec(1, 2, 3, 4, 2, 2, 2, padding=(3, 4)),
    "padding over kernel, stride": ConvSpec(2, 1, 3, 2, 2, 2, 3, padding=5, stride=(3, 2)),
    "four paddings": ConvSpec(2, 2, 5, 6, 3, 3, 2, padding=((0, 2), (3, 1)), stride=(2, 1)),
    "padding before only": ConvSpec(1, 2, 4, 4, 2, 3, 3, padding=((2, 0), (2, 0))),
    "same": ConvSpec(2, 2, 5, 6, 3, 4, 2, padding="same"),
    "same, stride": ConvSpec(1, 2, 7, 8, 3, 3, 4, padding="same", stride=(3, 2)),
    "valid": ConvSpec(1, 2, 5, 5, 3, 3, 3, padding="valid"),
    "groups": ConvSpec(2, 4, 5, 6, 6, 3, 2, groups=2, padding=1),
    "odd groups": ConvSpec(2, 6, 5, 4, 9, 2, 3, groups=3, stride=(2, 1)),
    "depthwise": ConvSpec(2, 5, 6, 5, 5, 3, 3, groups=5, padding=1),
    "depthwise, two filters each": ConvSpec(2, 3, 5, 6, 6, 3, 2, groups=3, stride=2),
    "fewer filters than channels, grouped": ConvSpec(1, 8, 4, 5, 4, 3, 3, groups=4, padding=1),
    "one filter": ConvSpec(2, 3, 5, 5, 1, 3, 3),
    "pointwise": ConvSpec(2, 5, 4, 3, 6, 1, 1),
    "pointwise, stride and padding": ConvSpec(2, 2, 4, 5, 3, 1, 1, stride=2, padding=1),
    "kernel is input": ConvSpec(2, 3, 4, 5, 3, 4, 5),
    "height 1": ConvSpec(2, 2, 1, 7, 3, 1, 3, padding=((1, 0), (0, 1))),
    "width 1": ConvSpec(2, 2, 7, 1, 3, 3, 1, stride=(2, 1)),
    "one pixel": ConvSpec(1, 1, 1, 1, 1, 3, 3, padding=1),
    "long row": ConvSpec(1, 1, 2, 1100, 1, 2, 3),
    "long rows, few products": ConvSpec(2, 1, 5, 27, 9, 3, 3, padding=1),
    "long rows, few products, stride": ConvSpec(1, 2, 5, 41, 3, 2, 3, stride=2, padding=1),
    "long rows, depthwise": ConvSpec(2, 3, 4, 21, 3, 3, 3, padding=1, groups=3),
    "pointwise, one channel, many filters": ConvSpec(1, 1, 3, 17, 19, 1, 1),
    "1-D": ConvSpec(2, 3, 1, 9, 4, 1, 3),
    "1-D left and right": ConvSpec(2, 2, 1, 8, 3, 1, 4, padding=((0, 0), (3, 1)), stride=(1, 2)),
    "1-D causal": ConvSpec(1, 2, 1, 9, 2, 1, 3, padding=((0, 0), (4, 0)), dilation=(1, 2)),
    "1-D groups": ConvSpec(2, 4, 1, 7, 4, 1, 2, groups=2, padding=((0, 0), (1, 0))),
}

# mode, N, C, H, W, R, S.
POOLS = {
    "max": PoolSpec("max", 2, 3, 6, 4, 2, 2),
    "max overlapping": PoolSpec("max", 2, 2, 7, 7, 3, 3, stride=2),
    "max not square": PoolSpec("max", 2, 2, 7, 8, 2, 3, stride=(1, 2)),
    "max stride over kernel": PoolSpec("max", 1, 2, 9, 8, 2, 1, stride=(4, 3)),
    "max padding": PoolSpec("max", 2, 2, 5, 6, 3, 3, stride=2, padding=1),
    "max four paddings": PoolSpec("max", 1, 2, 5, 6, 3, 4, stride=(2, 1), padding=((2, 0), (1, 3))),
    "max ceil": PoolSpec("max", 2, 2, 6, 8, 3, 3, stride=2, ceil_mode=True),
    "max ceil, padding": PoolSpec("max", 1, 2, 6, 7, 3, 2, stride=(2, 3), padding=1, ceil_mode=True),
    "max dilation": PoolSpec("max", 2, 2, 8, 7, 3, 2, stride=(1, 2), dilation=(2, 3)),
    "max dilation, padding, ceil": PoolSpec(
        "max", 1, 2, 8, 8, 2, 3, stride=(3, 2), dilation=(3, 2), padding=(1, 2), ceil_mode=True
    ),
    "max same": PoolSpec("max", 1, 2, 5, 7, 2, 3, stride=(2, 3), padding="same"),
    "max kernel is input": PoolSpec("max", 2, 3, 4, 5, 4, 5),
    "max 1x1": PoolSpec("max", 2, 2, 3, 4, 1, 1),
    "max height 1": PoolSpec("max", 2, 2, 1, 9, 1, 3, stride=(1, 2), padding=((0, 0), (1, 1))),
    "avg": PoolSpec("avg", 2, 3, 6, 4, 2, 2),
    "avg kernel is input, many taps": PoolSpec("avg", 2, 3, 9, 11, 9, 11),
    "avg 3x3 s1": PoolSpec("avg", 2, 2, 6, 5, 3, 3, stride=1, padding=1),
    "avg 3x3 s1, exclude": PoolSpec("avg", 2, 2, 6, 5, 3, 3, stride=1, padding=1, count_include_pad=False),
    "avg overlapping": PoolSpec("avg", 2, 2, 7, 7, 3, 3, stride=2),
    "avg not square": PoolSpec("avg", 1, 2, 7, 8, 2, 3, stride=(3, 1)),
    "avg four paddings": PoolSpec("avg", 2, 1, 5, 6, 3, 4, stride=(1, 2), padding=((2, 0), (1, 3))),
    "avg four paddings, exclude": PoolSpec(
        "avg", 2, 1, 5, 6, 3, 4, stride=(1, 2), padding=((2, 0), (1, 3)), count_include_pad=False
    ),
    "avg ceil": PoolSpec("avg", 1, 2, 6, 8, 3, 3, stride=2, padding=1, ceil_mode=True),
    "avg ceil, exclude": PoolSpec(
        "avg", 1, 2, 6, 8, 3, 3, stride=(2, 3), padding=1, ceil_mode=True, count_include_pad=False
    ),
    "avg same": PoolSpec("avg", 1, 2, 5, 7, 2, 3, stride=(2, 3), padding="same", count_include_pad=False),
    "avg stride over kernel": PoolSpec("avg", 1, 2, 9, 8, 2, 1, stride=(4, 3)),
    "avg kernel is input": PoolSpec("avg", 2, 3, 4, 5, 4, 5),
    "avg width 1": PoolSpec("avg", 1, 2, 7, 1, 3, 1, stride=2),
}

LAYERS: dict[str, Spec] = {**CONVS, **POOLS}


def marks(backend: str) -> tuple[pytest.MarkDecorator, ...]:
    reason = kernels.get_backend(backend).unavailable
    return (pytest.mark.skip(reason=f"{backend}: {reason}"),) if reason else ()


def backend_params() -> list[Any]:
    """Every registered backend; one that is unavailable is skipped with its reason."""
    return [pytest.param(name, marks=marks(name)) for name in kernels.backends()]


def cases(layers: Mapping[str, Spec], dtypes: Sequence[type] = DTYPES) -> list[Any]:
    """(backend, spec, op, dtype) for all that a backend does not declare unsupported.

    An unavailable backend is skipped with its reason.
    """
    params = []
    for backend in map(kernels.get_backend, kernels.backends()):
        for (name, spec), dtype in itertools.product(layers.items(), dtypes):
            for op in ops_of(spec):
                if not backend.unavailable and backend.unsupported(spec, op, np.dtype(dtype)):
                    continue
                label = f"{backend.name}-{name}-{op}-{dtype.__name__}".replace(" ", "_")
                values = backend.name, spec, op, dtype
                params.append(pytest.param(*values, id=label, marks=marks(backend.name)))
    return params


def assert_same(backend: Backend, result: np.ndarray, expected: Any) -> None:
    """Equal for an exact backend, NaN included; for another within what its method is allowed."""
    expected = np.asarray(expected)
    assert result.shape == expected.shape
    if backend.tolerance == EXACT:
        np.testing.assert_array_equal(result, expected)
    else:
        largest = np.abs(expected[np.isfinite(expected)]).max(initial=1)
        np.testing.assert_allclose(result, expected, rtol=0, atol=backend.tolerance * largest)


class Calls:
    """The public functions on one backend. What the backend declares unsupported skips the test."""

    def __init__(self, name: str) -> None:
        self.backend = kernels.get_backend(name)

    @property
    def exact(self) -> bool:
        return self.backend.tolerance == EXACT

    def same(self, result: np.ndarray, expected: Any) -> None:
        assert_same(self.backend, result, expected)

    def __getattr__(self, function: str) -> Any:
        @functools.wraps(getattr(kernels, function))
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return getattr(kernels, function)(*args, **kwargs, backend=self.backend.name)
            except ValueError as error:
                if f"backend {self.backend.name!r} does not support" in str(error):
                    pytest.skip(str(error))
                raise

        return call


def integers(shape: tuple[int, ...], dtype: Any = np.float64, seed: int = 0) -> np.ndarray:
    """Integers from -4 to 4: their products and sums are exact in either float type, in any order."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def run_python(code: str, *arguments: str, timeout: float = 120, **environment: str) -> str:
    """What `code` prints in a fresh interpreter; fails with its errors unless it exits with 0."""
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert finished.returncode == 0, f"exit code {finished.returncode}\n{finished.stdout}{finished.stderr}"
    return finished.stdout
