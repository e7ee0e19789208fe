"""The turns of a cross-check as pytest-benchmark sees them; `benchmarks.crosscheck` hands them in."""

from typing import Any

from benchmarks.crosscheck import Turn


def test_turn(turn: Turn, benchmark: Any) -> None:
    turn.take(benchmark)
