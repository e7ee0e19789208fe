"""What the page shows in its tables: numbers as text, in rows and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pandas as pd

from reports import tables
from reports.crossing import Crossing
from reports.loading import Run
from reports.looks import look
from reports.machines import caches, ceiling
from reports.wording import NOTHING, count, error, percent, seconds, significant, size, times


@dataclass(frozen=True)
class Cell:
    """A text, a smaller one after it, a backend's colour before it."""

    text: str
    small: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells below a head; `align` has for each column an l, an r, or a w for sentences.

    `data` are the same figures, unrounded, for the CSV called `name` (without ending).
    """

    head: Sequence[str | Cell]
    align: str
    rows: Sequence[Sequence[str | Cell]]
    name: str
    data: pd.DataFrame


@dataclass(frozen=True)
class Group:
    """Cases without a time that share a backend and a reason."""

    title: Cell
    summary: str
    table: Table


def advice(frame: pd.DataFrame) -> Table:
    """Which backend to use, per op and family."""
    wins = tables.wins(frame)
    rows: list[list[str | Cell]] = []
    for op in tables.ops(wins):
        here = wins[wins["op"] == op]
        for family in here["family"].drop_duplicates().sort_values():
            best, *others = tables.records(here[here["family"] == family])
            rest = ", ".join(f"{row.backend} {row.wins}" for row in others if row.wins) or NOTHING
            small = "" if best.measured == best.cases else f"in the {best.measured:,} it has times for"
            share = Cell(f"{best.wins:,} of {best.cases:,}", percent(best.wins / best.cases))
            slowdown, worst = Cell(times(best.slowdown), small), times(best.worst)
            rows.append([f"{family}, {op}", backend_cell(best.backend), share, slowdown, worst, rest])
    head = ("layers and op", "most often fastest", "cases", "if used always", "at worst", "others")
    return Table(head, "llrrrl", rows, "advice", wins)


def mean_speedups(ratios: pd.DataFrame) -> Table:
    """The geometric means of speed-ups, a row per family and op, a column per backend."""
    means = tables.mean_speedups(ratios)
    names = tables.backends(means)
    rows: list[list[str | Cell]] = []
    for op in tables.ops(means):
        for family in means["family"].drop_duplicates().sort_values():
            here = means[(means["op"] == op) & (means["family"] == family)]
            if len(here):
                cells = {row.backend: _mean(row) for row in tables.records(here)}
                layers = f"{here['layers'].max():,}"
                rows.append([f"{family}, {op}", layers, *(cells.get(name, NOTHING) for name in names)])
    head = ("layers and op", "layers", *_heads(names))
    return Table(head, "lr" + "r" * len(names), rows, "speedups-mean", means)


def _mean(row: Any) -> Cell:
    mark = "≈ " if row.predicted else ""
    return Cell(f"{mark}{times(row.speedup)}", f"{times(row.least)} to {times(row.most)}")


def layer_speedups(ratios: pd.DataFrame) -> Table:
    """Speed-ups per layer and op, at the batch sizes of `tables.at_largest_batch`."""
    names = tables.backends(ratios)
    rows: list[list[str | Cell]] = []
    for op, layer, here in tables.by_layer(ratios):
        cells = {row.backend: _ratio(row) for row in here}
        first = here[0]
        base = f"{'≈ ' if first.predicted else ''}{seconds(first.base_median_s)}"
        rows.append([op, layer, f"{first.batch:,}", base, *(cells.get(name, NOTHING) for name in names)])
    head = ("op", "layer", "batch size", "baseline", *_heads(names))
    data = ratios[["op", "layer", "batch", "backend", "base_median_s", "predicted", "speedup", "low", "high"]]
    return Table(head, "llrr" + "r" * len(names), rows, "speedups", data)


def _ratio(row: Any) -> Cell:
    if row.predicted:
        return Cell(f"≈ {times(row.speedup)}")
    return Cell(times(row.speedup), f"{times(row.low)} to {times(row.high)}")


def correctness(frame: pd.DataFrame) -> Table:
    """Largest errors, a row per backend, a column per op."""
    worst = tables.correctness(frame)
    ops = tables.ops(worst)
    rows: list[list[str | Cell]] = []
    for backend in tables.backends(worst):
        here = worst[worst["backend"] == backend]
        cells = {row.op: Cell(error(row.error), _site(row)) for row in tables.records(here)}
        checked = f"{here['checked'].sum():,}"
        rows.append([backend_cell(backend), checked, *(cells.get(op, NOTHING) for op in ops)])
    data = worst[["backend", "op", "checked", "error", "layer", "batch"]]
    return Table(("backend", "cases checked", *ops), "lr" + "r" * len(ops), rows, "correctness", data)


def memory(peaks: pd.DataFrame) -> Table:
    """Peak memory in MiB, a row per op and layer, a column per backend; `peaks` is `tables.memory`."""
    names = tables.backends(peaks)
    rows: list[list[str | Cell]] = []
    for op, layer, here in tables.by_layer(peaks):
        cells = {row.backend: significant(row.peak_mib) for row in here}
        arrays, matrix = significant(here[0].least_mib), significant(here[0].im2col_mib)
        shown = [cells.get(name, NOTHING) for name in names]
        rows.append([op, layer, f"{here[0].batch:,}", arrays, matrix, *shown])
    head = ("op", "layer", "batch size", "arrays", "im2col's matrix", *_heads(names))
    data = peaks[["op", "layer", "batch", "backend", "least_mib", "im2col_mib", "peak_mib"]]
    return Table(head, "llrrr" + "r" * len(names), rows, "memory", data)


def compile_times(frame: pd.DataFrame) -> Table:
    """Seconds of compilation, a row per backend and op."""
    table = tables.compile_times(frame)
    rows: list[list[str | Cell]] = [
        [
            backend_cell(row.backend), op, f"{row.compilations:,}",
            seconds(row.total_s), seconds(row.compile_s), _site(row),
        ]
        for op in tables.ops(table)
        for row in tables.records(table[table["op"] == op])
    ]  # fmt: skip
    head = ("backend", "op", "compilations", "in all", "longest", "where")
    data = table[["backend", "op", "compilations", "total_s", "compile_s", "layer", "batch"]]
    return Table(head, "llrrrl", rows, "compile", data)


def groups(frame: pd.DataFrame, status: str) -> list[Group]:
    """The skipped or failed cases by backend and reason, the largest group first."""
    rows = tables.untimed(frame, status)
    found = [
        Group(backend_cell(str(rows_here["backend"].iloc[0])), _extent(rows_here), _cases(rows_here))
        for _, rows_here in rows.groupby(["backend", "group"], sort=False)
    ]
    return sorted(found, key=lambda group: -len(group.table.rows))


def _extent(rows: pd.DataFrame) -> str:
    predicted = rows["predicted_s"].dropna()
    text = f"{count(len(rows), 'case')}: {rows['group'].iloc[0]}"
    if predicted.empty:
        return text
    least, most = seconds(predicted.min()), seconds(predicted.max())
    return f"{text} (predicted: {least if least == most else f'{least} to {most}'} a call)"


def _cases(rows: pd.DataFrame) -> Table:
    """A row per layer and op, its batch sizes with their predicted times in one cell."""
    lines: list[list[str | Cell]] = []
    several = len(rows["reason"].unique()) > 1
    for op, layer, here in tables.by_layer(rows):
        here.sort(key=lambda row: row.batch)
        batches = ", ".join(_predicted(row) for row in here)
        lines.append([op, layer, batches, *([here[-1].reason] if several else [])])
    head = ("op", "layer", "batch sizes (predicted time of a call)", *(["reason, of the last"] * several))
    return Table(head, "llll"[: len(head)], lines, "untimed", rows)


def _predicted(row: Any) -> str:
    return f"{row.batch:,}" if pd.isna(row.predicted_s) else f"{row.batch:,} ({seconds(row.predicted_s)})"


def machine(run: Run) -> Table:
    """What a run recorded about its machine, as far as it did."""
    facts, load = run.facts, [run.facts.get("load_start"), run.facts.get("load_end")]
    blas = facts.get("blas")
    blas = blas if isinstance(blas, list) else []
    known = {
        "saved": f"{run.datetime:%Y-%m-%d %H:%M:%S} UTC",
        "commit": _commit(run.commit),
        "CPU": facts.get("cpu") or run.machine,
        "cores": facts.get("cores"),
        "threads": facts.get("threads"),
        "instruction sets": facts.get("isa"),
        "caches": {name: size(bytes_) for name, bytes_ in caches(facts.get("caches")).items()},
        "memory": _bytes(facts.get("memory_bytes")),
        "platform": facts.get("platform"),
        "Python": facts.get("python"),
        "versions": facts.get("versions"),
        "BLAS": ", ".join(_blas(one) for one in blas if isinstance(one, dict)),
        "BLAS kernels": facts.get("coretype"),
        "advice": facts.get("lesser_blas"),
        "ceiling": _ceiling(facts.get("ceiling")),
        "Numba": facts.get("numba"),
        "frequency governor": facts.get("governor"),
        "load before and after": None if None in load else " and ".join(map(_plain, load)),
        "options": run.options,
    }
    rows = [[name, _plain(value)] for name, value in known.items() if value not in (None, "", [], {}, ())]
    data = pd.DataFrame(rows, columns=["fact", "value"]).assign(run=run.name)
    return Table(("of the run", run.name), "ll", rows, "machine", data)


def _plain(value: Any) -> str:
    """A fact in words: lists and objects separated by commas."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items()) or NOTHING
    if isinstance(value, list | tuple):
        return " ".join(_plain(item) for item in value) or NOTHING
    if isinstance(value, float):
        return f"{value:.3g}"
    return NOTHING if value is None else str(value)


def _bytes(value: Any) -> str | None:
    return size(value) if isinstance(value, int | float) and value else None


def _blas(one: Mapping[str, Any]) -> str:
    words = [str(one[key]) for key in ("library", "version") if one.get(key)]
    if one.get("architecture"):
        words.append(f"for {one['architecture']}")
    if isinstance(one.get("threads"), int):
        words.append(f"with {count(one['threads'], 'thread')}")
    return " ".join(words)


def _ceiling(facts: Any) -> str | None:
    found = ceiling(facts)
    if found is None:
        return None
    gemm, copy = significant(found.gemm_gflops), significant(found.copy_gbs)
    return f"{gemm} GFLOP/s (matrix product), {copy} GB/s (copy, read and written)"


def _commit(commit: Mapping[str, Any]) -> str:
    name = str(commit.get("id") or "")[:10]
    return f"{name} with changes" if name and commit.get("dirty") else name


def crossings(found: Sequence[Crossing]) -> Table:
    """Where another backend becomes the fastest, and why."""
    rows: list[list[str | Cell]] = [
        [
            each.op, each.layer, backend_cell(each.before), f"to {each.last:,}", backend_cell(each.after),
            f"from {each.first:,}", each.why,
        ]
        for each in found
    ]  # fmt: skip
    head = ("op", "layer", "fastest", "batch size", "then", "batch size", "why")
    data = pd.DataFrame([asdict(each) for each in found], columns=[key.name for key in fields(Crossing)])
    return Table(head, "lllrlrw", rows, "crossings", data)


def rungs(steps: pd.DataFrame, gains: Mapping[str, str]) -> Table:
    """A ladder, a row per rung; `steps` is `ladder.rungs`, `gains` say why a backend is faster."""
    rows: list[list[str | Cell]] = [
        [
            backend_cell(row.backend), f"{'≈ ' if row.predicted else ''}{seconds(row.seconds)}",
            times(row.step), times(row.total), gains.get(row.backend, ""),
        ]
        for row in tables.records(steps)
    ]  # fmt: skip
    head = ("backend", "time of a call", "over the one above", "over the first", "why")
    return Table(head, "lrrrw", rows, "ladder", steps)


def noisy(frame: pd.DataFrame) -> Table:
    """The timed cases whose spread is over `tables.NOISY`, the noisiest first."""
    found = tables.noisy(frame)
    rows: list[list[str | Cell]] = [
        [
            row.op, row.layer, f"{row.batch:,}", backend_cell(row.backend), seconds(row.median_s),
            percent(row.noise), f"{row.rounds:,.0f}",
        ]
        for row in tables.records(found)
    ]  # fmt: skip
    head = ("op", "layer", "batch size", "backend", "median time", "IQR/median", "rounds")
    data = found[["op", "layer", "batch", "backend", "median_s", "iqr_s", "noise", "rounds"]]
    return Table(head, "llrlrrr", rows, "noisy", data)


def backend_cell(name: str) -> Cell:
    """A backend's name beside its colour."""
    return Cell(name, colour=look(name).colour)


def _heads(names: Sequence[str]) -> list[str | Cell]:
    return [backend_cell(name) for name in names]


def _site(row: Any) -> str:
    return f"{row.layer}, batch {row.batch:,}"
