"""The backends: what each is, where it lives, and what every one of them offers.

A backend is a module with the functions of `Operations` and one line in `_BACKENDS`. Its module, and
whatever that needs, is imported at first use.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import numpy as np

from kernels.lazy import lazy
from kernels.spec import ConvSpec, PoolSpec, Spec

Op = Literal["forward", "dx", "dw"]
OPS: tuple[Op, ...] = ("forward", "dx", "dw")
EXACT = 0.0
"""The numeric class of a backend that equals the reference on integer-valued inputs."""


class Operations(Protocol):
    """What a backend's module offers.

    The arrays are validated, C-contiguous and of one dtype, and N is at least 1; inputs are read-only,
    the last arguments are the results, to be filled whole. Shapes are those of the spec. Where dw and db at
    once take less than one after the other, a module also has `conv_dw_db`: (spec, dy, x, dw, db).
    """

    conv_forward: Callable[[ConvSpec, np.ndarray, np.ndarray, np.ndarray | None, np.ndarray], None]
    """(spec, x, w, b or None, y)"""
    conv_dx: Callable[[ConvSpec, np.ndarray, np.ndarray, np.ndarray], None]
    """(spec, dy, w, dx)"""
    conv_dw: Callable[[ConvSpec, np.ndarray, np.ndarray, np.ndarray], None]
    """(spec, dy, x, dw)"""
    conv_db: Callable[[ConvSpec, np.ndarray, np.ndarray], None]
    """(spec, dy, db)"""
    max_pool_forward: Callable[[PoolSpec, np.ndarray, np.ndarray, np.ndarray | None], None]
    """(spec, x, y, indices or None): int64 flat positions in the H x W plane"""
    max_pool_dx: Callable[[PoolSpec, np.ndarray, np.ndarray, np.ndarray], None]
    """(spec, dy, indices, dx)"""
    avg_pool_forward: Callable[[PoolSpec, np.ndarray, np.ndarray], None]
    """(spec, x, y)"""
    avg_pool_dx: Callable[[PoolSpec, np.ndarray, np.ndarray], None]
    """(spec, dy, dx)"""
    supports: Callable[[Spec, Op, np.dtype], str | None]
    """(spec, op, dtype): why not, or None where it is supported"""


@dataclass(frozen=True)
class Backend:
    """One implementation: its name, what it is, its module, what that needs, and how exact it is.

    `gain` says in a clause what makes it faster than plainer ones: reports show it beside its times.
    `requires` names an optional library, or several with blanks between them, or is None. `tolerance` is
    `EXACT`, or the largest error relative to the largest output that the method is allowed. `compiles` says
    that the first call of a kind takes seconds. A `peer` is another library's implementation: there to be
    compared with, and used only where it is asked for by name. One that `checks_positions` raises ValueError
    itself for indices outside of the plane in `max_pool_dx`: it need not read them once more for that.
    """

    name: str
    summary: str
    gain: str
    module: str
    requires: str | None
    tolerance: float
    compiles: bool
    peer: bool = False
    checks_positions: bool = False

    @lazy
    def operations(self) -> Operations:
        """The backend's functions; imports its module."""
        if self.unavailable:
            raise ValueError(f"backend {self.name!r} is unavailable: {self.unavailable}")
        return cast(Operations, importlib.import_module(self.module))

    def conv_dw_db(
        self, spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray, db: np.ndarray
    ) -> None:
        """Fill dw and db: at once where the backend's module can do that."""
        at_once = getattr(self.operations, "conv_dw_db", None)
        if at_once is None:
            self.operations.conv_dw(spec, dy, x, dw)
            self.operations.conv_db(spec, dy, db)
        else:
            at_once(spec, dy, x, dw, db)

    @property
    def unavailable(self) -> str | None:
        """Why the backend cannot be used here, or None."""
        for library in (self.requires or "").split():
            if importlib.util.find_spec(library) is None:
                return f"{library} is not installed"
        return None

    def does(self, spec: Spec, op: Op, dtype: np.dtype) -> bool:
        """Whether the backend can be used here, and can do `op` on `spec` in `dtype`."""
        return not self.unavailable and self.unsupported(spec, op, dtype) is None

    def unsupported(self, spec: Spec, op: Op, dtype: np.dtype) -> str | None:
        """Why the backend cannot do `op` on `spec` in `dtype`, or None."""
        return self.operations.supports(spec, op, dtype)


def everything(spec: Spec, op: Op, dtype: np.dtype) -> str | None:
    """`supports` of a backend without gaps."""
    return None


def lacking(library: str) -> Callable[..., None]:
    """In place of an operation that `library` does not have, as its `supports` says; raises ValueError."""

    def operation(*arguments: object) -> None:
        raise ValueError(f"{library} does not have this operation; expected one that `supports` lets pass")

    return operation


def first_gap(gaps: Mapping[str, bool]) -> str | None:
    """The first reason of `gaps` that holds, or None."""
    return next((reason for reason, holds in gaps.items() if holds), None)


_PEER_TOLERANCE = 1e-4
"""Libraries may pick methods that round more than sums of products do, such as Winograd's."""


def _peer(
    name: str, summary: str, requires: str, compiles: bool, tolerance: float = _PEER_TOLERANCE
) -> Backend:
    module, gain = f"kernels.peer_{name}", "another library's kernels, to compare with"
    return Backend(name, summary, gain, module, requires, tolerance, compiles, peer=True)


_BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(
            "loops",
            "nested loops over every index",
            "Python takes each number into its hands: the plainest way, and the measure of the others",
            "kernels.loops",
            None,
            EXACT,
            False,
        ),
        Backend(
            "window",
            "one sum of products per output position",
            "NumPy sums over all images or channels at once, so that Python runs once a position",
            "kernels.window",
            None,
            EXACT,
            False,
        ),
        Backend(
            "im2col",
            "the window matrix, then one matmul",
            "BLAS multiplies in registers and caches, which pays for copying the windows side by side",
            "kernels.im2col",
            None,
            EXACT,
            False,
        ),
        Backend(
            "einsum",
            "strided windows, not copied, then einsum",
            "one call for everything, on a view of the windows instead of a copy",
            "kernels.einsum",
            None,
            EXACT,
            False,
        ),
        Backend(
            "numba",
            "the loops compiled and parallel",
            "machine code without temporary arrays, images dealt out to the cores",
            "kernels.numba_loops",
            "numba",
            EXACT,
            True,
        ),
        Backend(
            "tiled",
            "register tiles for the machine's vectors",
            "sums stay in registers while inputs and weights stream by, in the widest vectors of the CPU",
            "kernels.tiled",
            "numba",
            EXACT,
            True,
            checks_positions=True,
        ),
        Backend(
            "winograd",
            "Winograd's tiles: kernels of 2x2 to 5x5 strides",
            "outputs made in tiles, with up to 6.3 times fewer multiplications",
            "kernels.winograd",
            "numba",
            3e-5,
            True,
        ),
        _peer("torch", "PyTorch", "torch", compiles=False),
        _peer("jax", "JAX, compiled by XLA", "jax", compiles=True),
        _peer("onnxruntime", "ONNX Runtime", "onnxruntime onnx", compiles=True),
        _peer("openvino", "OpenVINO", "openvino", compiles=True),
        _peer("scipy", "scipy.signal.correlate", "scipy", compiles=False, tolerance=EXACT),
    )
}


def ops_of(spec: Spec) -> tuple[Op, ...]:
    """The operations that a layer has: pooling has no weights."""
    return OPS if isinstance(spec, ConvSpec) else OPS[:2]


def backends() -> tuple[str, ...]:
    """The names of all backends, from the plainest on."""
    return tuple(_BACKENDS)


def available_backends() -> tuple[str, ...]:
    """The names of the backends that can be used here: those whose libraries are installed."""
    return tuple(name for name, backend in _BACKENDS.items() if not backend.unavailable)


def own_backends() -> tuple[str, ...]:
    """The names of those that can be used here and are no peers: what is meant unless others are named."""
    # `peer` comes first: to look for a library that is missing takes time.
    return tuple(name for name, backend in _BACKENDS.items() if not (backend.peer or backend.unavailable))


def find_backend(name: object) -> Backend | None:
    """The backend called `name`, or None."""
    return _BACKENDS.get(name) if isinstance(name, str) else None


def get_backend(name: str) -> Backend:
    """The backend called `name`. Raises ValueError with the valid names for an unknown one."""
    if not isinstance(name, str):
        raise TypeError(f"backend is {name!r}; expected one of {', '.join(backends())}")
    if name not in _BACKENDS:
        raise ValueError(f"backend is {name!r}; expected one of {', '.join(backends())}")
    return _BACKENDS[name]
