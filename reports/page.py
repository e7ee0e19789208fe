"""The report: one HTML page that needs nothing else, with its figures and tables as files beside it."""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import jinja2
import pandas as pd

from reports import browser, crossing, headline, ladder, machines, sheets, tables, themed, trust, views
from reports.drawing import Job, draw_all
from reports.loading import Paths, Results, load_results
from reports.panels import THROUGHPUT, TIME
from reports.saving import Sheet
from reports.summarizing import DEFAULT_BASELINE, summary

TITLE = "Convolution and pooling, backend by backend"


@dataclass
class Part:
    """What the page shows of one setting: sentences, and tables and figures by name.

    `label` is what tells the setting from the others: empty if it is the only one. A name without a table
    or a figure has nothing to show. `drawings` say how the figures are made.
    """

    label: str
    anchor: str
    rows: pd.DataFrame
    place: ladder.Place | None
    sentences: list[str]
    spread: str
    tables: dict[str, views.Table]
    drawings: list[tuple[str, Job]]
    sheets: dict[str, list[Sheet]] = field(default_factory=dict)


def write(
    paths: Paths,
    out_dir: str | PathLike[str],
    baseline: str = DEFAULT_BASELINE,
    title: str = TITLE,
    layer: str | None = None,
) -> Path:
    """Write the report on `paths` into `out_dir`; return the path of its index.html.

    Beside it are its figures as PNG and SVG, its tables as CSV, and results.csv with every case.

    `paths` is what `load` takes. Where several files hold the same case, the report has the one with the
    latest datetime. `baseline` is the backend that speed-ups refer to, and `layer` that of the ladder; the
    most telling one if it is None.

    Everything is made before anything is written, and each file is replaced as a whole, index.html last:
    a failure leaves an existing report as it was. Other files in `out_dir` stay.

    Raises ValueError for what `load` refuses, for a baseline or a layer that is not among the results (but
    for the default baseline, without which the page says so), and for an `out_dir` that is a file.
    """
    results = load_results(paths)
    frame = tables.latest(results.frame)
    _known("baseline", baseline, (*tables.backends(frame), DEFAULT_BASELINE))
    if layer is not None:
        _known("layer", layer, tables.layers(frame))
    target = Path(out_dir)
    if target.exists() and not target.is_dir():
        raise ValueError(f"out_dir is {str(target)!r}, a file; expected a directory, or a path for a new one")
    files = _files(results, frame, baseline, title, layer)
    _publish(files, target)
    return target / "index.html"


def _known(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(dict.fromkeys(known))}")


def _files(
    results: Results, frame: pd.DataFrame, baseline: str, title: str, layer: str | None
) -> dict[str, bytes]:
    """The contents of the report by file name, index.html last."""
    gains = {name: gain for run in results.runs for name, gain in run.gains.items()}
    settings = list(tables.settings(frame))
    varying = tables.varying(frame)
    parts = [
        _part(
            rows,
            machines.machine_of(results.runs, setting),
            baseline,
            ladder.example(rows, layer) or ladder.example(rows),
            gains,
            label=tables.describe(setting, varying),
            anchor=f"-{number}" if varying else "",
        )
        for number, (setting, rows) in enumerate(settings, 1)
        if len(tables.timed(rows))
    ]
    drawn = _draw(parts)
    noisy, facts = views.noisy(frame), [views.machine(run) for run in results.runs]
    content = {
        "title": title,
        "baseline": baseline,
        "labels": [tables.describe(setting) for setting, _ in settings],
        "summary": summary(results.frame, baseline),
        "doubts": trust.doubts(frame, results.runs),
        "noisy": noisy,
        "skipped": views.groups(frame, "skipped"),
        "failed": views.groups(frame, "failed"),
        "counts": frame["status"].value_counts().to_dict(),
        "machines": facts,
        "data": browser.data(frame, {part.anchor: part.rows for part in parts}, gains),
    }
    files = {
        "noisy.csv": _csv(noisy.data),
        "untimed.csv": _csv(frame[frame["status"] != "timed"]),
        "machine.csv": _csv(pd.concat([table.data for table in facts])),
        "results.csv": _csv(frame),
    }
    for part in parts:
        files |= {f"{table.name}{part.anchor}.csv": _csv(table.data) for table in part.tables.values()}
    for part, name, sheet in drawn:
        part.sheets.setdefault(name, []).append(sheet)
        files |= {f"{sheet.name}.png": sheet.png, f"{sheet.name}.svg": sheet.svg}
    return {**files, "index.html": _render(parts=parts, **content).encode()}


def _part(
    rows: pd.DataFrame,
    machine: machines.Machine,
    baseline: str,
    place: ladder.Place | None,
    gains: Mapping[str, str],
    label: str,
    anchor: str,
) -> Part:
    ratios = tables.at_largest_batch(tables.speedups(rows, baseline))
    relative, peaks = tables.relative(rows), tables.memory(rows)
    crossings = crossing.crossings(rows, machine)
    shown = [views.advice(rows), views.correctness(rows)]
    # The largest come first, so that no process has one of them to draw when the others are done.
    drawings: list[tuple[str, Job]] = [("fastest", (sheets.fastest_sheet, rows, anchor))]
    drawings += [
        (quantity.name, (sheets.batch_sheet, rows, op, family, quantity, anchor))
        for quantity in (THROUGHPUT, TIME)
        for op, family in sheets.batch_panels(rows)
    ]
    drawings += [
        ("roofline", (sheets.roofline_sheet, relative, machine.ceiling, anchor)),
        ("error-speed", (sheets.error_speed_sheet, relative, anchor)),
    ]
    if crossings:
        shown.append(views.crossings(crossings))
    if place:
        rungs = ladder.rungs(rows, place)
        shown.append(views.rungs(rungs, gains))
        drawings.append(("ladder", (sheets.ladder_sheet, rungs, place, anchor)))
    if len(ratios):
        shown += [views.mean_speedups(ratios), views.layer_speedups(ratios)]
        drawings.append(("speedup", (sheets.speedup_sheet, ratios, baseline, anchor)))
    if len(peaks):
        shown.append(views.memory(peaks))
        drawings += [
            ("memory", (sheets.memory_sheet, peaks, anchor)),
            ("memory-speed", (sheets.memory_speed_sheet, relative.dropna(subset=["peak_mib"]), anchor)),
        ]
    if rows["compile_s"].notna().any():
        shown.append(views.compile_times(rows))
    named = {table.name: table for table in shown}
    return Part(label, anchor, rows, place, headline.sentences(rows), trust.spread(rows), named, drawings)


def _draw(parts: Sequence[Part]) -> Iterator[tuple[Part, str, Sheet]]:
    """The figures of all parts with their names, drawn side by side where there are many cases."""
    wanted = [(part, name, job) for part in parts for name, job in part.drawings]
    drawn = draw_all([job for _, _, job in wanted], sum(len(part.rows) for part in parts))
    return ((part, name, sheet) for (part, name, _), sheet in zip(wanted, drawn, strict=True))


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, lineterminator="\n").encode()


def _render(**content: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["picture"] = lambda sheet: base64.b64encode(
        themed.themed(sheet.svg, sheet.grounds)
    ).decode("ascii")
    return environment.get_template("report.html").render(**content)


def _publish(files: Mapping[str, bytes], target: Path) -> None:
    """Write all files beside `target`, on its file system, then move each to its place at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for name, content in files.items():
            (staging / name).write_bytes(content)
        target.mkdir(exist_ok=True)
        for name in files:
            (staging / name).replace(target / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
