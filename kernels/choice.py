"""What `backend="auto"` stands for: what was measured here, else what that predicts, else a fixed order."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import DTypeLike

from kernels import selection, threads
from kernels.registry import Backend, Op, get_backend
from kernels.selection import PREFERENCE, Choice, Key, Selection
from kernels.spec import Spec

_logger = logging.getLogger("kernels")


class _Active:
    """The selection in use, read at first need, and what it has come to so far."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.selection: Selection | None = None
        self.resolved: dict[tuple[Spec, Op, np.dtype, int], Backend] = {}
        self.told = False

    def loaded(self) -> Selection:
        if self.selection is None:
            self.path = self.path or selection.default_path()
            self.selection = selection.load(self.path)
        return self.selection


_active = _Active()


def use_selection(source: Path | str | Selection | None = None) -> None:
    """Let "auto" read another selection: a file, one at hand, or for None the default file, read again."""
    _active.path = Path(source) if isinstance(source, str | Path) else None
    _active.selection = source if isinstance(source, Selection) else None
    _active.resolved.clear()
    _active.told = False


def auto(spec: Spec, op: Op, dtype: np.dtype) -> Backend:
    """The backend that "auto" uses: a look-up, after the first time."""
    key = (spec, op, dtype, threads.active())
    backend = _active.resolved.get(key)
    if backend is None:
        backend = _active.resolved[key] = get_backend(_explained(spec, op, dtype).backend)
    return backend


def choose(spec: Spec, op: Op, dtype: DTypeLike) -> str:
    """The name of the backend that "auto" uses for `op` ("forward", "dx" or "dw") of `spec` in `dtype`."""
    return explain(spec, op, dtype).backend


def explain(spec: Spec, op: Op, dtype: DTypeLike) -> Choice:
    """As `choose`, with the reason: measured, at this or another batch, forced, predicted, or fallback."""
    if op not in get_args(Op):
        raise ValueError(f"op is {op!r}; expected one of {', '.join(get_args(Op))}")
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype is {dtype}; expected float32 or float64")
    return _explained(spec, op, dtype)


def _explained(spec: Spec, op: Op, dtype: np.dtype) -> Choice:
    choice = _active.loaded().choose(Key(spec, op, dtype.name, threads.active()))
    if choice and get_backend(choice.backend).unsupported(spec, op, dtype) is None:
        return choice
    return _fallback(spec, op, dtype)


def _fallback(spec: Spec, op: Op, dtype: np.dtype) -> Choice:
    name = fallback(spec, op, dtype)
    if not _active.told:
        _active.told = True
        count = threads.active()
        others = {str(key.threads) for key in _active.loaded().entries} - {str(count)}
        _logger.info(
            "nothing is measured for %s of %s (and perhaps others) with %d threads%s: auto takes %s, as "
            "everywhere; `convbench tune` measures",
            op,
            spec.descriptor,
            count,
            f" (what is measured with {' or '.join(sorted(others))} does not hold)" if others else "",
            name,
        )
    return Choice(name, "fallback")


def fallback(spec: Spec, op: Op, dtype: np.dtype) -> str:
    """The first of `PREFERENCE` that can do it; peers are never among them."""
    for name in PREFERENCE:
        if get_backend(name).does(spec, op, dtype):
            return name
    raise ValueError(f"no backend supports {op} of {spec.descriptor} in {dtype}")
