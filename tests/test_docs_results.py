"""The documentation of saved results: its columns, its sample, and its notebook, which runs top to bottom."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cli import ROOT

import reports
from reports.loading import COLUMNS

DOCS = ROOT / "docs"
SAMPLE, NOTEBOOK = DOCS / "sample.json", DOCS / "results.ipynb"
MOST_BYTES = {SAMPLE: 300_000, NOTEBOOK: 400_000}
TYPES = {"int64": "int64", "float64": "float64", "date": "datetime64"}
"""What the table calls a type, and how pandas' name of it begins; the rest is text."""


@pytest.fixture(scope="module")
def table() -> dict[str, tuple[str, str]]:
    """The type of each documented column, and where it is NaN."""
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| .+ \| ([^|]+) \|$", (DOCS / "results.md").read_text(), re.MULTILINE
    )
    return {name: (kind, nan) for name, kind, nan in rows}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return reports.load(SAMPLE)


def test_every_column_is_documented_and_no_other(table):
    assert tuple(table) == COLUMNS


def test_types_are_those_of_the_columns(table, frame):
    for name, (kind, _) in table.items():
        if kind == "text":
            assert frame[name].map(type).eq(str).all(), name
        else:
            assert str(frame[name].dtype).startswith(TYPES[kind]), name


def test_numbers_are_missing_where_it_says_so(table, frame):
    timed = frame["status"] == "timed"
    assert set(frame["status"]) == {"timed", "skipped"}
    for name, (_, where) in table.items():
        missing = frame[name].isna()
        if where == "never":
            assert not missing.any(), name
        elif where == "not timed":
            assert (missing == ~timed).all(), name
        elif where.startswith("not timed; "):
            assert missing[~timed].all(), name
            assert not missing[timed].all(), name
        else:
            assert where == "timed; not forecast"
            assert (missing == timed).all(), name


def test_the_formulas_hold(frame):
    timed = frame[frame["status"] == "timed"]
    for name, formula in {
        "iqr_s": timed["q3_s"] - timed["q1_s"],
        "images_per_s": timed["batch"] / timed["median_s"],
        "gflops": timed["flops"] / timed["median_s"] / 1e9,
        "least_gib_per_s": timed["least_mib"] / 1024 / timed["median_s"],
        "share": timed["attainable_s"] / timed["median_s"],
    }.items():
        pd.testing.assert_series_equal(timed[name], formula, check_names=False)


@pytest.mark.parametrize("path", [SAMPLE, NOTEBOOK], ids=lambda path: path.name)
def test_what_is_kept_is_small_and_of_no_machine(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES[path]
    assert not re.search(r"/(home|root|tmp|Users|usr|work|opt)/|[A-Z]:\\\\", text)


def outputs(notebook: Any) -> list[str]:
    """The kinds of what each code cell puts out, in a row each."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [" ".join(output["output_type"] for output in cell["outputs"]) for cell in cells]


def test_the_notebook_runs_top_to_bottom(monkeypatch):
    """In a kernel of its own; it puts out what is kept in it."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra dev)")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra dev)")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (extra dev)")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    kept = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(DOCS)}}
    ).execute()
    assert outputs(notebook) == outputs(kept)
    assert any("display_data" in kinds for kinds in outputs(kept))
    counts = [cell["execution_count"] for cell in kept["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
