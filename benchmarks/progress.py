"""How far a run is: one line, drawn between cases, never while one is timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta

import pytest

from benchmarks.journal import OUTCOMES, Journal
from benchmarks.run import Case
from benchmarks.time_left import TimeLeft

PLAIN_S = 30.0
"""Seconds between lines where nobody watches."""


class Progress:
    """Says what is done, what runs, and how long the rest may take, through pytest's own reporter.

    A terminal has one line, which changes, instead of a letter for each test; a file gets a new line now and
    then. With -v, pytest has a line for each test, and those are all.
    """

    def __init__(self, reporter: pytest.TerminalReporter, journal: Journal, cases: Sequence[Case]) -> None:
        self.reporter, self.journal, self.cases = reporter, journal, cases
        self.instead_of_letters = reporter.config.get_verbosity() <= 0
        if self.instead_of_letters:
            reporter.showfspath = False
        self.live = self.instead_of_letters and reporter.isatty
        self.begun = 0
        self.drawn = time.monotonic()
        self.time_left = TimeLeft(journal)

    def show(self, case: Case) -> None:
        """Say that `case` begins."""
        line = f"{self._done()}, {self._times()}: {case.id}"
        self.begun += 1
        if self.live:
            width = self.reporter.config.get_terminal_writer().fullwidth - 1
            self.reporter.rewrite(line[:width], erase=True)
            self.reporter.flush()
        elif time.monotonic() - self.drawn >= PLAIN_S:
            self.reporter.write_line(line)
            self.reporter.flush()
            self.drawn = time.monotonic()

    def clear(self) -> None:
        """Make room for what pytest says at the end, where results have their letters and words."""
        if self.live:
            self.reporter.rewrite("", erase=True)
            self.reporter.rewrite("")
        self.live = self.instead_of_letters = False

    def _done(self) -> str:
        counts = {kind: len(self.journal.all(kind)) for kind in OUTCOMES}
        words = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
        return f"{sum(counts.values()):,}/{len(self.journal.keys):,} cases: {words}"

    def _times(self) -> str:
        left_s = self.time_left.of(self.cases[self.begun :])
        left = "" if left_s is None else f", about {rounded(left_s)} left"
        return f"{timedelta(seconds=round(self.journal.seconds))}{left}"


def rounded(seconds: float) -> str:
    """A duration that is only guessed, in the unit that suits it."""
    if seconds < 90:
        return f"{max(10, round(seconds, -1)):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
