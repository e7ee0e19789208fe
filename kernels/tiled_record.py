"""Plans as the compiled loops take them: one record of numbers, of smaller records, and of tables.

Each array that is handed to compiled code costs a fifth of a microsecond or more, whatever it holds: with a
plan's tables one by one, a call took longer than a small layer.
"""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from kernels.arrays import readonly
from kernels.jit import helper
from kernels.lazy import lazy

_TABLE = (("address", np.intp), ("rows", np.intp), ("columns", np.intp))


class Recorded:
    """A dataclass of integers, of tables (arrays of intp or of records), and of others of its kind."""

    @lazy
    def record(self) -> np.ndarray:
        """All of it, as an array of one record: (1,). It holds addresses: keep what it was made of.

        Numba cannot hand the record itself to what threads run: inside of a `prange`, hand on the array.
        """
        described = [(field.name, *_described(getattr(self, field.name))) for field in fields(self)]  # type: ignore[arg-type]
        kind = _dtype(tuple((name, kind) for name, kind, _ in described))
        return readonly(np.array([tuple(value for _, _, value in described)], kind))


def _described(value: Any) -> tuple[Any, Any]:
    """The dtype and the value of a field."""
    if isinstance(value, Recorded):
        return value.record.dtype, value.record[0]
    if isinstance(value, np.ndarray):
        return _dtype(_TABLE), (value.ctypes.data, len(value), value.size // max(1, len(value)))
    return np.intp, int(value)


@lru_cache(maxsize=256)
def _dtype(described: tuple[Any, ...]) -> np.dtype:
    """The same one for the same fields: Numba then knows it by its identity."""
    return np.dtype(list(described))


@intrinsic
def pointer(typing, address):
    """An address as a pointer."""

    def codegen(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.intp), codegen


@helper
def column(table):
    """A record's table as an array of intp (rows,)."""
    return carray(pointer(table.address), (table.rows,), np.intp)


@helper
def matrix(table):
    """A record's table as an array of intp (rows, columns)."""
    return carray(pointer(table.address), (table.rows, table.columns), np.intp)


@helper
def entries(table, kind):
    """A record's table of records, of that dtype."""
    return carray(pointer(table.address), (table.rows,), kind)
