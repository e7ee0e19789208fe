"""Digits as CSV: a row an image, the label first, then 28 x 28 pixels from 0 to 255."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np

from trainer.idx import read_bytes

_SIDE = 28
_COLUMNS = 1 + _SIDE * _SIDE
_CSV_COLUMNS = f"{_COLUMNS}, separated by commas: the label, then {_SIDE} x {_SIDE} pixels"


def read_csv(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) and labels (N,), uint8, from a CSV file, gzipped or not.

    A header line is passed over. Raises ValueError, naming the file and the line, for anything else.
    """
    content = read_bytes(path)
    try:
        rows = _csv_rows(content)
    except ValueError as error:
        fault = _csv_fault(content) or f"is not a CSV of digits: {str(error).splitlines()[0]}"
        raise ValueError(f"{path} {fault}") from error
    return rows[:, 1:].reshape(-1, _SIDE, _SIDE), rows[:, 0]


def _csv_rows(content: bytes) -> np.ndarray:
    """The rows (N, 785), uint8, of a CSV; ValueError if that is not what it holds."""
    import pandas as pd

    # Some rows at a time: as int64, which is how pandas reads, MNIST would take eight times the memory.
    with pd.read_csv(
        io.BytesIO(content),
        header=None,
        skiprows=int(_has_header(content)),
        na_filter=False,
        chunksize=4096,
        low_memory=False,
    ) as chunks:
        return np.concatenate([_csv_bytes(chunk.to_numpy()) for chunk in chunks])


def _csv_bytes(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "iuf":
        raise ValueError("does not hold numbers alone")
    with np.errstate(invalid="ignore"):  # infinity, and what is not between 0 and 255, shows as a difference
        result = values.astype(np.uint8)
    if values.shape[1] != _COLUMNS or (result != values).any() or (result[:, 0] > 9).any():
        raise ValueError("does not hold rows of a label and pixels")
    return result


def _csv_fault(content: bytes) -> str | None:
    """What is wrong with the first faulty line of a CSV, if one of them is."""
    header = _has_header(content)
    empty = True
    for number, line in enumerate(_csv_lines(content), 1):
        if not line.strip() or number <= header:
            continue
        empty = False
        fields = _csv_fields(line)
        if len(fields) != _COLUMNS:
            columns = "1 column" if len(fields) == 1 else f"{len(fields)} columns"
            return f"has {columns} in line {number}; expected {_CSV_COLUMNS}"
        for column, field in enumerate(fields):
            largest = 255 if column else 9
            value = _number(field)
            if not (value.is_integer() and 0 <= value <= largest):
                what = f"pixel {column}" if column else "the label"
                found = f"has {field[:20]!r} for {what} in line {number}"
                return f"{found}; expected a whole number, 0 to {largest}"
    return f"holds no rows; expected {_CSV_COLUMNS}" if empty else None


def _csv_lines(content: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", errors="replace")


def _csv_fields(line: str) -> list[str]:
    return [field.strip().strip('"') for field in line.split(",")]


def _has_header(content: bytes) -> bool:
    first = _csv_fields(_csv_lines(content).readline())[0]
    return bool(first) and math.isnan(_number(first))


def _number(field: str) -> float:
    try:
        return float(field)
    except ValueError:
        return math.nan
