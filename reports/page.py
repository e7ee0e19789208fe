"""The report: one HTML page that needs nothing else, its figures and a CSV beside it."""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from reports import sheets, tables, views
from reports.loading import Paths, Results, load_results
from reports.summarizing import DEFAULT_BASELINE, summary
from reports.wording import count

TITLE = "Convolution and pooling, backend by backend"


@dataclass(frozen=True)
class Part:
    """What the page shows of one setting; None where there is nothing to show.

    `label` is what tells the setting from the others: empty if it is the only one.
    """

    label: str
    anchor: str
    headline: str
    advice: views.Table
    throughput: list[sheets.Sheet]
    fastest: sheets.Sheet
    mean_speedups: views.Table | None
    layer_speedups: views.Table | None
    correctness: views.Table
    memory: views.Table | None
    memory_sheet: sheets.Sheet | None
    compile_times: views.Table | None
    noise: str


def write(
    paths: Paths,
    out_dir: str | PathLike[str],
    baseline: str = DEFAULT_BASELINE,
    title: str = TITLE,
) -> Path:
    """Write index.html, its figures as PNG and results.csv into `out_dir`; return the path of index.html.

    `paths` is what `load` takes. Where several files hold the same case, the page and the CSV have the
    one with the latest datetime. `baseline` is the backend that speed-ups refer to.

    Everything is made before anything is written, and each file is replaced as a whole, index.html last:
    a failure leaves an existing report as it was. Other files in `out_dir` stay.

    Raises ValueError for what `load` refuses, for a baseline that is not among the results (but for the
    default one, without which the page says so), and for an `out_dir` that is a file.
    """
    results = load_results(paths)
    frame = tables.latest(results.frame)
    known = tables.backends(frame)
    if baseline not in known and baseline != DEFAULT_BASELINE:
        raise ValueError(f"baseline is {baseline!r}; expected one of {', '.join(known)}")
    target = Path(out_dir)
    if target.exists() and not target.is_dir():
        raise ValueError(f"out_dir is {str(target)!r}, a file; expected a directory, or a path for a new one")
    files = _files(results, frame, baseline, title)
    _publish(files, target)
    return target / "index.html"


def _files(results: Results, frame: pd.DataFrame, baseline: str, title: str) -> dict[str, bytes]:
    """The contents of the report by file name, index.html last."""
    settings = list(tables.settings(frame))
    varying = [key for key in tables.SETTING if len(frame[key].unique()) > 1]
    parts = [
        _part(rows, baseline, label=_label(setting, varying), suffix=f"-{number}" if varying else "")
        for number, (setting, rows) in enumerate(settings, 1)
        if len(tables.timed(rows))
    ]
    pictures = [sheet for part in parts for sheet in _sheets(part)]
    page = _render(
        title=title,
        baseline=baseline,
        parts=parts,
        labels=[_label(setting, tables.SETTING) for setting, _ in settings],
        summary=summary(results.frame, baseline),
        skipped=views.groups(frame, "skipped"),
        failed=views.groups(frame, "failed"),
        counts=frame["status"].value_counts().to_dict(),
        machines=[views.machine(run) for run in results.runs],
        results=views.results(frame),
    )
    csv = frame.to_csv(index=False, lineterminator="\n")
    return {sheet.name: sheet.png for sheet in pictures} | {
        "results.csv": csv.encode(),
        "index.html": page.encode(),
    }


def _part(frame: pd.DataFrame, baseline: str, label: str, suffix: str) -> Part:
    ratios = tables.at_largest_batch(tables.speedups(frame, baseline))
    peaks = tables.memory(frame)
    compiles = frame["compile_s"].notna().any()
    return Part(
        label=label,
        anchor=suffix,
        headline=views.headline(frame),
        advice=views.advice(frame),
        throughput=list(sheets.throughput_sheets(frame, suffix)),
        fastest=sheets.fastest_sheet(frame, suffix),
        mean_speedups=views.mean_speedups(ratios) if len(ratios) else None,
        layer_speedups=views.layer_speedups(ratios) if len(ratios) else None,
        correctness=views.correctness(frame),
        memory=views.memory(peaks) if len(peaks) else None,
        memory_sheet=sheets.memory_sheet(peaks, suffix) if len(peaks) else None,
        compile_times=views.compile_times(frame) if compiles else None,
        noise=views.noise(frame),
    )


def _sheets(part: Part) -> list[sheets.Sheet]:
    return [sheet for sheet in (*part.throughput, part.fastest, part.memory_sheet) if sheet is not None]


def _label(setting: Any, keys: Sequence[str]) -> str:
    words = {"machine": setting.machine, "dtype": setting.dtype, "threads": count(setting.threads, "thread")}
    return ", ".join(words[key] for key in keys)


def _render(**content: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
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
