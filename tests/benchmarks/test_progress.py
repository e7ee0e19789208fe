"""The line that says how far a run is, and its estimate of the time left."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from benchmarks import progress as module
from benchmarks.journal import Journal
from benchmarks.options import Options
from benchmarks.progress import PLAIN_S, Progress, rounded
from benchmarks.run import cases
from benchmarks.time_left import LEAST_CASES, TimeLeft
from benchmarks.watching import death, time_limit


class Reporter:
    """As much of pytest's as is used, which keeps what it is told."""

    def __init__(self, isatty: bool, verbosity: int = 0, width: int = 100) -> None:
        writer = SimpleNamespace(fullwidth=width)
        self.config = SimpleNamespace(get_verbosity=lambda: verbosity, get_terminal_writer=lambda: writer)
        self.isatty, self.showfspath, self.said = isatty, True, []

    def rewrite(self, line: str, erase: bool = False) -> None:
        self.said.append(line)

    def write_line(self, line: str) -> None:
        self.said.append(line)

    def flush(self) -> None:
        pass


@pytest.fixture
def chosen():
    return list(cases(Options.read(["lenet"], "im2col,loops", "1,8", threads=1)))


@pytest.fixture
def journal(chosen) -> Journal:
    journal = Journal()
    journal.write("cases", [case.key for case in chosen])
    return journal


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test sets."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.now)
    return clock


def finish(journal: Journal, case, seconds: float, compile_s: float | None = None) -> None:
    journal.durations.append(({**case.facts(1), "compile_s": compile_s}, seconds))
    journal.all("timed").append({"extra_info": case.facts(1)})


def test_a_terminal_has_one_line_with_what_runs(chosen, journal, clock):
    reporter = Reporter(isatty=True)
    progress = Progress(reporter, journal, chosen)
    assert not reporter.showfspath
    assert progress.instead_of_letters
    progress.show(chosen[0])
    finish(journal, chosen[0], 1.0)
    progress.show(chosen[1])
    total = len(chosen)
    assert reporter.said == [
        f"0/{total} cases: 0 timed, 0 skipped, 0 failed, 0:00:00: {chosen[0].id}",
        f"1/{total} cases: 1 timed, 0 skipped, 0 failed, 0:00:00: {chosen[1].id}",
    ]
    progress.clear()
    assert reporter.said[-1] == ""
    assert not progress.instead_of_letters


def test_a_narrow_terminal_cuts_the_line(chosen, journal):
    reporter = Reporter(isatty=True, width=40)
    Progress(reporter, journal, chosen).show(chosen[0])
    assert [len(line) for line in reporter.said] == [39]


def test_where_nobody_watches_a_line_comes_now_and_then(chosen, journal, clock):
    reporter = Reporter(isatty=False)
    progress = Progress(reporter, journal, chosen)
    for clock.now in (1.0, PLAIN_S - 1, PLAIN_S + 1, PLAIN_S + 2, 2 * PLAIN_S + 2):
        progress.show(chosen[0])
    assert len(reporter.said) == 2
    progress.clear()
    assert len(reporter.said) == 2


def test_with_a_line_for_each_test_that_stays(chosen, journal):
    reporter = Reporter(isatty=True, verbosity=1)
    progress = Progress(reporter, journal, chosen)
    progress.show(chosen[0])
    assert (reporter.said, reporter.showfspath, progress.instead_of_letters) == ([], True, False)


def test_the_time_left_is_that_of_similar_cases(chosen, journal):
    time_left = TimeLeft(journal)
    assert time_left.of(chosen) is None
    first = [case for case in chosen if case.name == chosen[0].name]
    assert len(first) >= LEAST_CASES
    costs = {("im2col", 1): 1.0, ("im2col", 8): 2.0, ("loops", 1): 4.0, ("loops", 8): 0.0}
    for case in first:
        finish(journal, case, costs[case.backend, case.layer.N] + 50.0, compile_s=50.0)
    rest = chosen[len(first) :]
    assert time_left.of(rest) == pytest.approx(sum(costs[case.backend, case.layer.N] for case in rest))
    assert time_left.of([]) == 0


def test_the_line_holds_the_time_left(chosen, journal):
    reporter = Reporter(isatty=True, width=200)
    progress = Progress(reporter, journal, chosen)
    for case in chosen[:LEAST_CASES]:
        progress.show(case)
        finish(journal, case, 60.0)
    progress.show(chosen[LEAST_CASES])
    minutes = len(chosen) - LEAST_CASES
    assert f", about {minutes} min left: {chosen[LEAST_CASES].id}" in reporter.said[-1]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "10 s"), (44, "40 s"), (89, "90 s"),
        (91, "2 min"), (5000, "83 min"), (5430, "1 h 30 min"), (36180, "10 h 03 min"),
    ],
)  # fmt: skip
def test_guesses_are_rounded(seconds, words):
    assert rounded(seconds) == words


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (7, "the process ended with exit code 7"),
        (-11, "the process was killed by signal SIGSEGV (segmentation fault)"),
        (-9, "the process was killed by signal SIGKILL (killed), as the system does where memory runs out"),
    ],
)
def test_the_end_of_a_process_is_told_in_words(status, words):
    assert death(status) == words


def test_the_limit_of_a_case_is_far_above_its_budget():
    assert time_limit(1.0) == 80
    assert time_limit(100.0) == 2060
