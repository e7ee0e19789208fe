"""The journal of a run: each case is on disk as soon as it is finished, whatever becomes of the process.

`results/<stamp>.partial` lies beside the result that it will become: lines of JSON, each with `at_s`, the
seconds that the run has taken so far, and one of

- begin: when, the run's `options`, and the `identity` of its machine
- cases: the keys of all its cases, in their order
- session: when a process took the run up, its `pid`, and the time at which it was `created`
- findings: what `convbench doctor` found before it
- ceiling: what the cases are held against
- probe: when the probe was timed, and its seconds
- start: the facts of a case that begins
- timed, skipped, failed: what became of it: pytest-benchmark's entry, or its facts with a reason
- end: the process stopped in order; a case that had begun has to begin again
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from pytest_benchmark.utils import safe_dumps

from benchmarks.origin import now

SUFFIX = ".partial"
OUTCOMES = ("timed", "skipped", "failed")
_KEY = ("suite", "kind", "descriptor", "op", "backend")


def key_of(facts: Mapping[str, Any]) -> str:
    """What tells a case from the others of its run; `facts` are those of `Case.facts`."""
    return " ".join(facts[name] for name in _KEY)


def facts_of(outcome: Mapping[str, Any]) -> Mapping[str, Any]:
    """The facts of the case that an outcome is about, timed or not."""
    facts: Mapping[str, Any] = outcome.get("extra_info", outcome)
    return facts


def as_json(value: Any, indent: int | None = None) -> str:
    """Text as pytest-benchmark writes it, which shows what JSON has no form for."""
    text: str = safe_dumps(value, indent=indent)  # type: ignore[no-untyped-call]
    return text


class Journal:
    """What is known of a run, in the order in which it became known; in memory alone without a `path`.

    `under_way` holds the facts of the case that has begun and has no outcome, or None; `ended` is whether the
    last process stopped in order; `durations` are the facts of each finished case, and the seconds it took.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.under_way: dict[str, Any] | None = None
        self.ended = False
        self.durations: list[tuple[Mapping[str, Any], float]] = []
        self._lines: dict[str, list[Any]] = defaultdict(list)
        self._size = 0
        self._began_s = 0.0
        self._offset_s, self._taken_up = 0.0, time.perf_counter()

    @classmethod
    def read(cls, path: Path) -> Journal:
        """The journal in a file; a last line that was not written to its end counts as not written.

        Raises ValueError where the file is no journal.
        """
        journal = cls(path)
        data = path.read_bytes()
        journal._size = data.rfind(b"\n") + 1
        for number, text in enumerate(data[: journal._size].splitlines(), 1):
            try:
                line = json.loads(text)
                at_s = float(line.pop("at_s"))
                ((kind, content),) = line.items()
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ValueError(
                    f"{path}:{number} is no line of a journal; expected a run's {SUFFIX}"
                ) from None
            journal._take(kind, content, at_s)
            journal._offset_s = at_s
        if not journal.all("begin"):
            raise ValueError(f"{path} holds no run; expected a run's {SUFFIX}")
        return journal

    @property
    def seconds(self) -> float:
        """How long the run has taken so far, without the time between its processes."""
        return self._offset_s + time.perf_counter() - self._taken_up

    def write(self, kind: str, content: Any = None) -> None:
        """Add a line; it is the system's, and outlives this process, when this returns."""
        at_s = self.seconds
        if self.path is not None:
            self.path.parent.mkdir(exist_ok=True)
            self.path.touch()
            line = (as_json({"at_s": round(at_s, 3), kind: content}) + "\n").encode()
            with self.path.open("r+b") as file:
                file.truncate(self._size)  # what a process did not come to write whole
                file.seek(self._size)
                file.write(line)
            self._size += len(line)
        self._take(kind, content, at_s)

    def all(self, kind: str) -> list[Any]:
        """The contents of all lines of one kind."""
        return self._lines[kind]

    @property
    def outcomes(self) -> dict[str, dict[str, Any]]:
        """What became of each finished case, by its key."""
        return {key_of(facts_of(each)): each for kind in OUTCOMES for each in self.all(kind)}

    @property
    def keys(self) -> list[str]:
        """The keys of all cases of the run, in their order; empty before they are known."""
        return self.all("cases")[-1] if self.all("cases") else []

    @property
    def remaining(self) -> list[str]:
        """The keys of the cases that have no outcome."""
        finished = self.outcomes
        return [key for key in self.keys if key not in finished]

    def in_order(self, kind: str) -> list[dict[str, Any]]:
        """The outcomes of one kind, in the order of the cases."""
        places = {key: place for place, key in enumerate(self.keys)}
        return sorted(self.all(kind), key=lambda each: places.get(key_of(facts_of(each)), len(places)))

    @property
    def resumed(self) -> list[str]:
        """When processes after the first took the run up."""
        return [session["at"] for session in self.all("session")[1:]]

    def begin_session(self) -> None:
        process = psutil.Process()
        self.write("session", {"at": now(), "pid": process.pid, "created": process.create_time()})

    @property
    def writer(self) -> int | None:
        """The process that is at work on the run, or None."""
        if self.ended or not self.all("session"):
            return None
        session = self.all("session")[-1]
        try:
            same = psutil.Process(session["pid"]).create_time() == session["created"]
        except psutil.NoSuchProcess:
            return None
        return session["pid"] if same else None

    def fail_case_under_way(self, reason: str) -> None:
        """Note that the case that had begun failed, as the process that ran it is no more."""
        assert self.under_way is not None
        self.write("failed", {**self.under_way, "predicted_s": None, "reason": reason})

    def _take(self, kind: str, content: Any, at_s: float) -> None:
        self._lines[kind].append(content)
        self.ended = kind == "end"
        if kind == "start":
            self.under_way, self._began_s = content, at_s
        elif kind in OUTCOMES:
            self.durations.append((facts_of(content), at_s - self._began_s))
            self.under_way = None
        elif kind == "end":
            self.under_way = None
