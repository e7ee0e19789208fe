"""Reading JSON key by key; what is missing or wrong is named by file, entry and key, in one line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BENCHMARK_KEYS = ("machine_info", "benchmarks", "datetime", "version")


class OtherContentError(ValueError):
    """JSON, but not of pytest-benchmark."""


def read_document(path: Path) -> dict[str, Any]:
    """The content of a pytest-benchmark file. Raises ValueError; for JSON of others `OtherContentError`."""
    expected = "expected the JSON of a convbench benchmark run"
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not JSON (not UTF-8 text); {expected}") from None
    if not text.strip():
        raise ValueError(f"{path} is empty; {expected}")
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not JSON (line {error.lineno}, column {error.colno}: {error.msg}); {expected}"
        ) from None
    if not isinstance(document, dict):
        raise OtherContentError(f"{path} is not a pytest-benchmark file (JSON {_name(document)}); {expected}")
    missing = [key for key in _BENCHMARK_KEYS if key not in document]
    if missing:
        raise OtherContentError(
            f"{path} is not a pytest-benchmark file (no key {', '.join(missing)}); {expected}"
        )
    return document


@dataclass(frozen=True)
class Entry:
    """A JSON object and where it stands: the file, the benchmark, and the keys that lead to it."""

    where: str
    content: Mapping[str, Any]
    prefix: str = ""

    def text(self, key: str) -> str:
        """The string under `key`."""
        value = self._get(key, "a string")
        if not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        return value

    def integer(self, key: str, least: int = 0) -> int:
        """The integer under `key`, at least `least`."""
        expected = f"an integer of at least {least}"
        value = self._get(key, expected)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self._wrong(key, value, expected)
        return value

    def number(self, key: str, *, positive: bool = False, null: bool = False, missing: bool = False) -> float:
        """The finite number under `key`, not negative; NaN for null, or for none, where these are allowed."""
        expected = f"a {'positive' if positive else 'non-negative'} number{' or null' if null else ''}"
        if missing and key not in self.content:
            return math.nan
        value = self._get(key, expected)
        if value is None and null:
            return math.nan
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self._wrong(key, value, expected)
        if value < 0 or (positive and value == 0):
            raise self._wrong(key, value, expected)
        return float(value)

    def child(self, key: str, optional: bool = False) -> Entry:
        """The object under `key`; an empty one if it is `optional` and missing or null."""
        if optional and self.content.get(key) is None:
            return Entry(self.where, {}, f"{self.prefix}{key}.")
        value = self._get(key, "an object")
        if not isinstance(value, dict):
            raise self._wrong(key, value, "an object")
        return Entry(self.where, value, f"{self.prefix}{key}.")

    def children(self, key: str, noun: str, optional: bool = False) -> list[Entry]:
        """The objects listed under `key`, each called by `noun` and its name or number."""
        if optional and self.content.get(key) is None:
            return []
        value = self._get(key, "a list")
        if not isinstance(value, list):
            raise self._wrong(key, value, "a list")
        entries = []
        for number, item in enumerate(value, 1):
            if not isinstance(item, dict):
                raise self._wrong(f"{key}[{number - 1}]", item, "an object")
            called = repr(item["name"]) if isinstance(item.get("name"), str) else str(number)
            entries.append(Entry(f"{self.where}: {noun} {called}", item))
        return entries

    def extra(self) -> Mapping[str, Any]:
        """The entry's `extra_info`, or an empty one."""
        info = self.content.get("extra_info")
        return info if isinstance(info, dict) else {}

    def _get(self, key: str, expected: str) -> Any:
        if key not in self.content:
            raise ValueError(f"{self.where}: {self.prefix}{key} is missing; expected {expected}")
        return self.content[key]

    def _wrong(self, key: str, value: Any, expected: str) -> ValueError:
        shown = _name(value) if isinstance(value, dict | list) else _json(value)
        return ValueError(f"{self.where}: {self.prefix}{key} is {shown}; expected {expected}")


def _name(value: Any) -> str:
    """What JSON calls a value of this type."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return "a string" if isinstance(value, str) else "null" if value is None else "a number or truth value"


def _json(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
