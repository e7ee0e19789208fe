"""Saved benchmark files become one tidy DataFrame.

The files are pytest-benchmark's JSON. What a case is stands in each benchmark's `extra_info`; the cases
that were skipped or failed, and the options of the run, stand under the key `convbench`; the machine
under `machine_info.convbench`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from reports.entries import Entry, OtherContentError, read_document

MIB = 2.0**20
GIB = 2.0**30

_TEXT = ("suite", "layer", "kind", "op", "backend", "dtype", "descriptor")
_COUNTS = ("batch", "threads")
_STATS = {"min_s": "min", "q1_s": "q1", "median_s": "median", "q3_s": "q3", "max_s": "max", "mean_s": "mean"}
_SPREADS = {"stddev_s": "stddev", "iqr_s": "iqr"}

COLUMNS = (
    "run", "datetime", "machine", "suite", "layer", "kind", "op", "backend", "batch", "dtype", "threads",
    "descriptor", "status", "reason", "predicted_s", "rounds", "min_s", "q1_s", "median_s", "q3_s", "max_s",
    "mean_s", "stddev_s", "iqr_s", "images_per_s", "gflops", "least_gib_per_s",
    "attainable_s", "share", "flops", "least_mib", "im2col_mib", "peak_mib", "error", "compile_s", "probe_s",
)  # fmt: skip
_FLOATS = (
    "predicted_s", "rounds", *_STATS, *_SPREADS, "images_per_s", "gflops", "least_gib_per_s", "attainable_s",
    "share", "least_mib", "im2col_mib", "peak_mib", "error", "compile_s", "probe_s",
)  # fmt: skip

Paths = str | PathLike[str] | Iterable[str | PathLike[str]]


@dataclass(frozen=True)
class Run:
    """One file: its name, its path, when and where it was made, with which options.

    `facts` is what the run recorded about its machine (`machine_info.convbench`), `commit` is
    pytest-benchmark's `commit_info`, `findings` are objects with the keys check, level, what and remedy that
    `convbench doctor` found before it, and `gains` say of each backend why it is faster than plainer ones.
    `probes` holds when the probe was timed, in seconds since the run began, and its median seconds. All of
    them may be empty.
    """

    name: str
    path: Path
    datetime: pd.Timestamp
    machine: str
    facts: Mapping[str, Any]
    options: Mapping[str, Any]
    commit: Mapping[str, Any]
    findings: tuple[Mapping[str, Any], ...] = ()
    gains: Mapping[str, str] = field(default_factory=dict)
    probes: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Results:
    """The rows of all files, as `load` returns them, and the runs they come from."""

    frame: pd.DataFrame
    runs: tuple[Run, ...]


def load(paths: Paths, *, foreign: bool = False) -> pd.DataFrame:
    """All cases in the saved files, one row per case that was timed, skipped or failed.

    `paths` is a file, a directory (all in it and below that pytest-benchmark saved), or several of them.
    Nothing is merged: where several files hold the same case, all its rows are here, and a report uses the
    latest.

    - run: the file's name without .json, with its folder's before it where two files share a name
    - datetime: when the run was saved, UTC
    - machine: the CPU's name, or the host's where no CPU is recorded
    - suite, layer: where the layer comes from, and its name
    - kind: "conv2d", "conv1d", "max_pool2d" or "avg_pool2d"
    - op: "forward", "dx" (gradient of the input) or "dw" (gradient of the weights)
    - backend: the implementation
    - batch: images per call
    - dtype: "float32" or "float64"
    - threads: how many each backend was allowed
    - descriptor: the geometry in benchdnn's notation
    - status: "timed", "skipped" or "failed"
    - reason: why a case has no time; empty for timed ones
    - predicted_s: seconds per call expected of a case without a time
    - rounds: how many times were measured
    - min_s, q1_s, median_s, q3_s, max_s, mean_s, stddev_s, iqr_s: seconds per call, over the rounds
    - images_per_s: batch / median_s
    - gflops: 1e9 floating-point operations per second, flops / median_s
    - least_gib_per_s: GiB/s if each array moves to or from memory once, least bytes / median_s
    - attainable_s: seconds that a call takes at least by the ceilings measured with the run: its operations
      at the rate of a matrix product, or its least bytes at that of a copy
    - share: attainable_s / median_s; more than 1 for a method that saves operations, or data from the caches
    - flops: floating-point operations of a call, of the taps that are not padding
    - least_mib: MiB of a call's arrays, inputs and result
    - im2col_mib: MiB of the window matrix that im2col would build
    - peak_mib: MiB allocated at the peak of a call
    - error: largest difference from the float64 reference, relative to the reference's largest output
    - compile_s: seconds that first calls took to compile for this case, or to load what was compiled before;
      0 where an earlier case did
    - probe_s: seconds of the fixed work that is timed now and then, as last timed before the case: what tells
      the machine's drift from a change

    Numbers that are not known are NaN. Benchmarks of other projects are left out; with `foreign` they have
    rows too: layer is the benchmark's full name, descriptor its parameters, the other words are empty, batch,
    threads and flops 0, and all but status, rounds and times is not known.

    Raises ValueError, naming the file and what is wrong with it, for
    files that are missing, empty, not JSON, not pytest-benchmark's, or without results of convbench
    (with `foreign`: without any benchmark).
    """
    return load_results(paths, foreign=foreign).frame


def load_results(paths: Paths, *, foreign: bool = False) -> Results:
    """The rows of `load` together with the machine and the options of each run."""
    rows: list[dict[str, Any]] = []
    runs: list[Run] = []
    for path, document in _documents(paths):
        run = _run(path, document, taken={run.name for run in runs})
        rows.extend(_rows(run, path, document, foreign))
        runs.append(run)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    types = dict.fromkeys(_FLOATS, "float64") | dict.fromkeys((*_COUNTS, "flops"), "int64")
    return Results(frame.astype(types), tuple(runs))


def _documents(paths: Paths) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each file once, with its content: a file and its directory may both be given."""
    given = [paths] if isinstance(paths, str | PathLike) else list(paths)
    if not given:
        raise ValueError("paths is empty; expected at least one JSON file or directory of a benchmark run")
    seen = set()
    for path, document in chain.from_iterable(_expand(Path(one)) for one in given):
        if path.resolve() not in seen:
            seen.add(path.resolve())
            yield path, document


def _expand(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A file, or those below a directory that are of pytest-benchmark; other JSON may lie among them."""
    if not path.exists():
        raise ValueError(f"{path} does not exist; expected a JSON file or directory of a benchmark run")
    if not path.is_dir():
        yield path, read_document(path)
        return
    files = sorted(file for file in path.rglob("*.json") if file.is_file())
    others = 0
    for file in files:
        try:
            document = read_document(file)
        except OtherContentError:
            others += 1
        else:
            yield file, document
    if others == len(files):
        kind = "saved benchmark runs" if files else ".json files"
        raise ValueError(f"{path} is a directory without {kind}; expected one with saved benchmark runs")


def _run(path: Path, document: Mapping[str, Any], taken: set[str]) -> Run:
    top = Entry(str(path), document)
    when = top.text("datetime")
    try:
        datetime = pd.to_datetime(when, utc=True)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{path}: datetime is {when!r}; expected a date and time like '2025-01-31T12:00:00+00:00'"
        ) from None
    machine = top.child("machine_info", optional=True)
    facts = machine.child("convbench", optional=True)
    own = top.child("convbench", optional=True)
    name = path.stem if path.stem not in taken else f"{path.resolve().parent.name}/{path.stem}"
    return Run(
        name,
        path,
        datetime,
        _label(facts.content, machine.content),
        facts.content,
        own.child("options", optional=True).content,
        top.child("commit_info", optional=True).content,
        tuple(item.content for item in own.children("findings", "finding", optional=True)),
        {name: str(gain) for name, gain in own.child("gains", optional=True).content.items()},
        tuple(
            (probe.number("at_s"), probe.number("seconds", positive=True))
            for probe in own.children("probes", "probe", optional=True)
        ),
    )


def _label(facts: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """The CPU's name: it means more to a reader than a host's, and stays when a container's host changes."""
    cpu = machine.get("cpu")
    brand = cpu.get("brand_raw") if isinstance(cpu, dict) else None
    return next((str(name) for name in (facts.get("cpu"), brand, machine.get("node")) if name), "unknown")


def _rows(run: Run, path: Path, document: Mapping[str, Any], foreign: bool) -> Iterator[dict[str, Any]]:
    top = Entry(str(path), document)
    items = top.children("benchmarks", "benchmark")
    ours = [item for item in items if "schema" in item.extra()]
    others = [item for item in items if "schema" not in item.extra()] if foreign else []
    own = top.child("convbench", optional=True)
    _check_schema(own)
    idle = {
        status: own.children(status, f"{status} entry", optional=True) for status in ("skipped", "failed")
    }
    if not ours and not others and not any(idle.values()):
        raise _nothing(path, len(items))
    origin = {"run": run.name, "datetime": run.datetime, "machine": run.machine}
    for item in ours:
        yield origin | _timed(item)
    for item in others:
        yield origin | _foreign(item)
    for status, items in idle.items():
        for item in items:
            yield origin | _idle(item, status)


def _nothing(path: Path, count: int) -> ValueError:
    what = "no benchmarks" if count == 0 else f"{count} foreign benchmark{'s' if count > 1 else ''}"
    return ValueError(
        f"{path} holds no convbench results (pytest-benchmark file of {what}); "
        "expected the JSON of a convbench benchmark run"
    )


def _check_schema(entry: Entry) -> None:
    schema = entry.content.get("schema", 1)
    if schema != 1:
        raise ValueError(f"{entry.where}: {entry.prefix}schema is {schema!r}; expected 1")


def _case(entry: Entry) -> dict[str, Any]:
    texts = {key: entry.text(key) for key in _TEXT}
    counts = {key: entry.integer(key, least=1) for key in _COUNTS}
    return texts | counts | {"flops": entry.integer("flops")}


def _timed(item: Entry) -> dict[str, Any]:
    info, stats = item.child("extra_info"), item.child("stats")
    _check_schema(info)
    case, times = _case(info), _times(stats)
    least, median = info.integer("least_bytes"), times["median_s"]
    peak = info.number("peak_bytes", null=True)
    attainable = info.number("attainable_s", null=True, missing=True)
    rates = {
        "images_per_s": case["batch"] / median,
        "gflops": case["flops"] / median / 1e9,
        "least_gib_per_s": least / median / GIB,
        "attainable_s": attainable,
        "share": attainable / median,
    }
    sizes = {
        "least_mib": least / MIB,
        "im2col_mib": info.integer("im2col_bytes") / MIB,
        "peak_mib": peak / MIB,
    }
    rest = {
        "error": info.number("error"),
        "compile_s": info.number("compile_s", null=True),
        "probe_s": info.number("probe_s", positive=True, null=True, missing=True),
    }
    return {**case, "status": "timed", "reason": "", **times, **rates, **sizes, **rest}


def _times(stats: Entry) -> dict[str, Any]:
    """What pytest-benchmark measured."""
    times = {name: stats.number(key, positive=True) for name, key in _STATS.items()}
    spreads = {name: stats.number(key) for name, key in _SPREADS.items()}
    return {**times, **spreads, "rounds": stats.integer("rounds", least=1)}


def _foreign(item: Entry) -> dict[str, Any]:
    """A benchmark of another project: its name, its parameters and its times are all that is known."""
    params = item.child("params", optional=True).content
    case = {
        **dict.fromkeys(_TEXT, ""),
        **dict.fromkeys((*_COUNTS, "flops"), 0),
        "layer": item.text("fullname" if "fullname" in item.content else "name"),
        "descriptor": ", ".join(f"{name}={value}" for name, value in params.items()),
    }
    return {**case, "status": "timed", "reason": "", **_times(item.child("stats"))}


def _idle(item: Entry, status: str) -> dict[str, Any]:
    predicted = item.number("predicted_s", null=True, missing=True)
    return _case(item) | {"status": status, "reason": item.text("reason"), "predicted_s": predicted}
