"""A run in a process of its own, watched: what a case does to that process costs the case alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from benchmarks.journal import Journal
from benchmarks.recording import SIGNALS
from benchmarks.resume import kept

RESUME = "convbench bench --resume "
"""What goes on with the run of the journal whose path comes after it."""
POLL_S = 0.2
ONCE_S = 1.0
"""Signals within this time count once: `timeout` sends one to the process, and one to its group."""
ARGUMENTS = (
    str(Path(__file__).parent),
    "--benchmark-only",
    "--benchmark-quiet",
    "-q",
    "-rfE",
    *("-p", "no:cacheprovider"),
    *("-p", "no:faulthandler"),  # a crash is told in a line
)


def time_limit(budget_s: float) -> float:
    """Seconds after which a case surely hangs: it may have to be compiled, and checked, before its timing."""
    return 20 * budget_s + 60


def watch(path: Path, limit_s: float, say: Callable[[str], None]) -> int:
    """Have pytest do what remains of the run of a journal, in a new process after each crash.

    Returns pytest's exit code. A case of which the process dies, or that takes longer than `limit_s`, has
    failed; the others go on. Ctrl-C and SIGTERM are passed on, and the second time end the process at once.
    Raises ValueError where the process ends by itself without a case under way.
    """
    with _Watched(path, limit_s, say) as watched:
        while True:
            status = watched.run()
            journal = Journal.read(path) if path.exists() else None
            if journal is None or journal.ended:
                return status if status >= 0 else int(pytest.ExitCode.TESTS_FAILED)
            if watched.stopped is None and journal.under_way is not None:
                say(_fail(journal, watched.overrun or death(status)))
                continue
            journal.write("end")
            if not journal.outcomes:
                path.unlink()
            if watched.stopped is None:
                raise ValueError(f"{death(status)} without a case under way; {kept(path, RESUME)}")
            return int(pytest.ExitCode.INTERRUPTED)


def _fail(journal: Journal, reason: str) -> str:
    """Note that the case under way failed, and say so."""
    facts = journal.under_way
    assert facts is not None
    journal.fail_case_under_way(reason)
    return f"{facts['layer']} {facts['op']} batch {facts['batch']}, {facts['backend']}, failed: {reason}"


def death(status: int) -> str:
    """In words, how a process ended."""
    if status >= 0:
        return f"the process ended with exit code {status}"
    name, words = signal.Signals(-status).name, (signal.strsignal(-status) or "").lower()
    memory = ", as the system does where memory runs out" if name == "SIGKILL" else ""
    return f"the process was killed by signal {name} ({words}){memory}"


class _Watched:
    """One process after the other, to which signals go on; `stopped` is when the first came.

    `overrun` says that the last process was ended for a case that took too long.
    """

    def __init__(self, path: Path, limit_s: float, say: Callable[[str], None]) -> None:
        self.path, self.limit_s, self.say = path, limit_s, say
        self.stopped: float | None = None
        self.overrun: str | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> _Watched:
        self.before = {each: signal.signal(each, self._stop) for each in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self.before.items():
            signal.signal(each, handler)

    def run(self) -> int:
        """Start a process, and return its exit code when it has ended."""
        self.overrun = None
        # The process ignores Ctrl-C, which a terminal sends to both, and gets SIGTERM from here: just once.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.process = subprocess.Popen([sys.executable, "-m", "pytest", *ARGUMENTS, f"--resume={self.path}"])
        signal.signal(signal.SIGINT, self._stop)
        if self.stopped is not None:
            self.process.terminate()
        waited_s, size = 0.0, 0
        while (status := self.process.poll()) is None:
            time.sleep(POLL_S)
            # Each finished case makes the journal longer. Naps are counted, not time: the machine may sleep.
            waited_s = waited_s + POLL_S if size == (size := self._size()) else 0.0
            if waited_s > self.limit_s and self._hangs():
                self.overrun = f"took longer than {self.limit_s:g} s (--timeout), and was ended"
                self.process.kill()
        if status < 0 and sys.stdout.isatty():
            print()  # after the line that says how far the run was
        return status

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _hangs(self) -> bool:
        return self.path.exists() and Journal.read(self.path).under_way is not None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        repeated = self.stopped is not None and time.monotonic() - self.stopped > ONCE_S
        if self.stopped is None:
            self.stopped = time.monotonic()
        elif not repeated:
            return
        if self.process is not None and self.process.poll() is None:
            (self.process.kill if repeated else self.process.terminate)()
