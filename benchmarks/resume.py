"""Unfinished runs: which there are, and whether one can go on here, with the options that are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.journal import SUFFIX, Journal
from benchmarks.options import Options
from benchmarks.origin import now, stamp
from benchmarks.run import cases
from kernels.machine import identity
from kernels.selection import foreign


def begin(options: Options, journal: Journal) -> None:
    """Write down what the run is to be."""
    journal.write("begin", {"at": now(), "options": options.as_dict(), "identity": identity()})


def new_path(folder: Path) -> Path:
    """Where the journal of a run that begins now belongs; its result will have its name."""
    begun = stamp()
    names = (f"{begun}-{number}" if number > 1 else begun for number in count(1))
    paths = (folder / f"{name}{SUFFIX}" for name in names)
    return next(path for path in paths if not path.exists() and not result_of(path).exists())


def result_of(journal: Path) -> Path:
    """The saved result that a journal becomes."""
    return journal.with_suffix(".json")


def unfinished(folder: Path) -> list[Journal]:
    """The runs in `folder` that no process is at work on, the newest last; other files are passed over."""
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            journal = Journal.read(path)
        except ValueError:
            continue
        if journal.writer is None:
            found.append(journal)
    return found


def find(name: str | Path | None, folder: Path) -> Journal:
    """The journal `name` (or beside the result `name`), or the newest in `folder`. Raises ValueError."""
    if not name:
        found = unfinished(folder)
        if not found:
            raise ValueError(f"no unfinished run in {folder}/; expected one that was stopped, or no --resume")
        return found[-1]
    path = Path(name).with_suffix(SUFFIX)
    if not path.is_file():
        raise ValueError(f"there is no unfinished run {path}; expected a {SUFFIX} file, or its result")
    journal = Journal.read(path)
    if journal.writer is not None:
        raise ValueError(
            f"{path} is being written by process {journal.writer}; expected a run that has ended"
        )
    return journal


def kept(path: Path, command: str) -> str:
    """What there is of the run of a journal that has ended; `command` goes on with the path after it."""
    lines = [f"results: {result_of(path)}"] if result_of(path).exists() else []
    if path.exists():
        journal = Journal.read(path)
        done, total = len(journal.outcomes), len(journal.keys)
        lines.append(f"{done:,} of {total:,} cases are finished; `{command}{path}` goes on with the rest")
    return "\n".join(lines) or "no case was finished: nothing is kept"


def options_of(journal: Journal, asked: Mapping[str, Any]) -> Options:
    """The options of a run that is to go on here; `asked` are those of `Options.read`, empty where not given.

    Raises ValueError where something else is asked for, and on a machine whose times would not compare.
    """
    begun = journal.all("begin")[0]
    differences = foreign(begun["identity"], identity())
    if differences:
        raise ValueError(f"{journal.path} was begun with {differences}; expected the same machine")
    words = _words(begun["options"])
    given = {name: value for name, value in asked.items() if value not in (None, "", (), [])}
    options, same = Options.read(**{**words, **given}), Options.read(**words)
    for name in (field.name for field in fields(Options)):
        if getattr(options, name) != getattr(same, name):
            flag = {"suites": "--suite", "budget_s": "--budget"}.get(name, f"--{name.replace('_', '-')}")
            raise ValueError(
                f"{flag} is {_shown(given[name])}, but {journal.path} was begun with {_shown(words[name])}; "
                f"expected the same, or no {flag}"
            )
    gone = set(journal.remaining).difference(case.key for case in cases(options))
    if gone:
        raise ValueError(
            f"{_shown(options.suites)} no longer has {len(gone)} cases that {journal.path} is to go on with; "
            "expected the layers with which it was begun"
        )
    return options


def _words(options: Mapping[str, Any]) -> dict[str, Any]:
    """Saved options as the command line gives them to `Options.read`."""
    lists = {name: ",".join(map(str, options[name])) for name in ("backends", "batch_sizes", "ops")}
    return {**options, **lists}


def _shown(value: Any) -> str:
    return ",".join(value) if isinstance(value, list | tuple) else str(value)
