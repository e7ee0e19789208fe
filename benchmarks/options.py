"""What to run: the options of a benchmark run, a check or a tuning, read and validated in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.suites import load_suite
from kernels import available_backends, get_backend, own_backends
from kernels.registry import OPS, Op
from kernels.spec import Spec
from kernels.threads import thread_count

BATCH_SIZES = (1, 8, 32, 128, 512)
BUDGET_S = 1.0


@dataclass(frozen=True)
class Options:
    """`budget_s`: seconds that one case (layer, operation, batch size, backend) may take."""

    suites: tuple[str, ...]
    backends: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    ops: tuple[Op, ...]
    dtype: str
    threads: int
    budget_s: float

    @classmethod
    def read(
        cls,
        suites: Sequence[str] = (),
        backends: str | None = None,
        batch_sizes: str | None = None,
        ops: str | None = None,
        dtype: str | None = None,
        threads: int | None = None,
        budget_s: float | None = None,
    ) -> Options:
        """From the command line's words; None or empty takes the default. Raises ValueError."""
        return cls(
            suites=tuple(dict.fromkeys(suites)) or ("default",),
            backends=_backends(backends),
            batch_sizes=_batch_sizes(batch_sizes),
            ops=_ops(ops),
            dtype=_dtype(dtype),
            threads=thread_count(threads),
            budget_s=_budget(budget_s),
        )

    def layers(self) -> list[tuple[str, Spec]]:
        """Each layer with the name of its suite. Raises ValueError."""
        return [(suite, layer) for suite in self.suites for layer in load_suite(suite)]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word for word in text.replace(",", " ").split() if word))


def _backends(text: str | None) -> tuple[str, ...]:
    if text is None:
        return own_backends()
    names = tuple(_words(text))
    for name in names:
        unavailable = get_backend(name).unavailable
        if unavailable:
            raise ValueError(f"backend {name!r} is unavailable: {unavailable}")
    if not names:
        raise ValueError(f"--backends is empty; expected some of {', '.join(available_backends())}")
    return names


def _batch_sizes(text: str | None) -> tuple[int, ...]:
    if text is None:
        return BATCH_SIZES
    words = _words(text)
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ValueError(f"--batch-sizes is {text!r}; expected positive ints such as 1,8,32")
    return tuple(sorted({int(word) for word in words}))


def _ops(text: str | None) -> tuple[Op, ...]:
    if text is None:
        return OPS
    wanted = [part for word in _words(text) for part in (("dx", "dw") if word == "backward" else (word,))]
    if not wanted or not set(wanted) <= set(OPS):
        raise ValueError(f"--ops is {text!r}; expected some of forward, dx, dw, backward (dx and dw)")
    return tuple(op for op in OPS if op in wanted)


def _dtype(text: str | None) -> str:
    if text not in (None, "float32", "float64"):
        raise ValueError(f"--dtype is {text!r}; expected float32 or float64")
    return np.dtype(text or "float32").name


def _budget(budget_s: float | None) -> float:
    if budget_s is None:
        return BUDGET_S
    if not budget_s > 0:
        raise ValueError(f"--budget is {budget_s}; expected seconds, more than 0")
    return float(budget_s)
