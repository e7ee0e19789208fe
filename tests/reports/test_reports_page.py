"""The report: complete, self-contained, escaped, and never half written."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

import reports
from reports import drawing, page
from reports.saving import Sheet

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects attributes and texts, and checks that tags are nested."""

    def __init__(self, html):
        super().__init__()
        self.open, self.links, self.ids, self.texts = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [values[key] for key in ("src", "href", "srcset", "action") if key in values]
        self.ids += [values["id"]] if "id" in values else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(" ".join(data.split()))


@pytest.fixture(scope="module")
def golden_report(make, tmp_path_factory):
    """The report on the golden results, made once."""
    path = tmp_path_factory.mktemp("golden") / "golden.json"
    path.write_text(json.dumps(make.golden()))
    return reports.write(path, path.parent / "out")


@pytest.fixture
def written(golden_report, tmp_path):
    """A copy of it, to be written to."""
    assert not list(golden_report.parent.parent.glob(".out*"))
    return shutil.copytree(golden_report.parent, tmp_path / "out") / "index.html"


@pytest.fixture
def undrawn(monkeypatch):
    """Reports without their figures, which take seconds, where a test is about words."""

    def blank(jobs, cases):
        return [Sheet(f"blank-{number}", "", "", b"", b"<svg></svg>", 1, 1) for number in range(len(jobs))]

    monkeypatch.setattr(page, "draw_all", blank)


def words(path):
    text = " ".join(filter(None, Reader(path.read_text(encoding="utf-8")).texts))
    return text.replace("\N{MULTIPLICATION SIGN}", "x")


FIGURES = {
    "error-speed", "fastest", "ladder", "memory", "memory-speed", "roofline", "speedup",
    *(f"{quantity}-{panels}" for quantity in ("throughput", "time")
      for panels in ("dw-convolution", "forward-convolution", "forward-pooling")),
}  # fmt: skip
TABLES = {
    "advice", "compile", "correctness", "crossings", "ladder", "machine", "memory", "noisy", "results",
    "speedups", "speedups-mean", "untimed",
}  # fmt: skip


def columns(path):
    """What the page's script makes the table of all results of."""
    html = path.read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1]
    return json.loads(data)["results"]["columns"]


def test_files(written):
    assert written.name == "index.html"
    assert {file.name for file in written.parent.iterdir()} == {
        "index.html",
        *(f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")),
        *(f"{name}.csv" for name in TABLES),
    }


def test_self_contained(written):
    html = written.read_text(encoding="utf-8")
    reader = Reader(html)
    pictures = [link for link in reader.links if link.startswith("data:image/svg+xml;base64,")]
    assert len(pictures) == len(FIGURES)
    for picture in pictures:
        svg = base64.b64decode(picture.partition(",")[2])
        assert ElementTree.fromstring(svg).tag.endswith("svg")
    for link in set(reader.links) - set(pictures):
        assert "://" not in link
        assert not link.startswith("//")
        if link.startswith("#"):
            assert link[1:] in reader.ids
        else:
            assert (written.parent / link).is_file()
    assert not re.search(r"<link|@import|url\(|fetch\(|<script[^>]* src", html)
    assert len(reader.ids) == len(set(reader.ids))


def test_tables_as_csv_hold_the_numbers(written):
    speedups = pd.read_csv(written.parent / "speedups.csv")
    row = speedups[(speedups["layer"] == "a:conv") & (speedups["backend"] == "im2col")].iloc[0]
    assert (row["speedup"], row["batch"]) == (200, 8)
    ladder = pd.read_csv(written.parent / "ladder.csv")
    assert ladder["total"].tolist() == pytest.approx([1, 100, 200])
    crossings = pd.read_csv(written.parent / "crossings.csv")
    assert crossings[["before", "after", "first"]].to_numpy().tolist() == [["im2col", "numba", 32]]
    assert len(pd.read_csv(written.parent / "noisy.csv")) == 13


def test_contents(written):
    text = words(written)
    for expected in (
        "1 case failed.",
        "13 cases timed, 4 skipped, 1 failed",
        "On this machine, at batch 8, forward: im2col is fastest on 2 of 4 layers, numba on 2 (1 of these "
        "within the noise); choosing per layer saves 3.2 % over numba alone.",
        "13 of 13 cases (100 %) are noisy",
        "numba pays about 5.33 ms a call whatever the batch",
        "≈ 200x",  # c:conv, predicted
        "30.0x 9.00x to 100x",
        "3.0e-06 a:conv, batch 32",
        "loops, 3 cases: predicted … s, over the budget of 1.0 s (predicted: 2.00 s to 3.60 s a call)",
        "error 0.5 is above the tolerance of 1e-05",
        "32 (3.20 s)",
        "Testor 9000, float32, 2 threads",
        "L1d 32.0 KiB, L2 1.00 MiB",
        "openblas 0.3.30 for SkylakeX with 2 threads",
        "0123456789 with changes",
        "0.25 and 1.5",
        "budget_s 1",
        "below 20 % of their median",
        "2.00 s 1.50 s a:conv, batch 8",
    ):
        assert expected in text, expected


def test_csv_holds_every_case(written):
    table = pd.read_csv(written.parent / "results.csv")
    assert len(table) == 18
    assert table["status"].value_counts().to_dict() == {"timed": 13, "skipped": 4, "failed": 1}
    assert table.loc[3, "gflops"] == pytest.approx(1000)


@pytest.mark.usefixtures("undrawn")
def test_the_latest_run_is_shown(save, make, tmp_path):
    old = save("r/a.json", make.document([make.timed("a", "numba", 8, 0.5)], datetime="2025-01-02T00:00:00Z"))
    save("r/b.json", make.document([make.timed("a", "numba", 8, 0.25)], datetime="2025-01-01T00:00:00Z"))
    written = reports.write(old.parent, tmp_path / "out")
    assert pd.read_csv(written.parent / "results.csv")["median_s"].tolist() == [0.5]
    assert "500 ms" in words(written)
    assert "250 ms" not in words(written)


def test_a_section_for_each_setting(save, make, tmp_path):
    cases = [make.timed("a", "numba", 8, 0.5, dtype=dtype) for dtype in ("float32", "float64")]
    written = reports.write(save("x.json", make.document(cases)), tmp_path / "out")
    assert "Throughput and time: float64" in words(written)
    for name in ("fastest-2.png", "roofline-2.svg", "advice-2.csv"):
        assert (written.parent / name).is_file()


@pytest.mark.usefixtures("undrawn")
def test_names_are_escaped(save, make, tmp_path):
    name = "<script>alert(1)</script>&\"'"
    written = reports.write(
        save("x.json", make.document([make.timed(name, "numba", 8, 0.5)])), tmp_path / "out", title="<b>a & b"
    )
    html = written.read_text(encoding="utf-8")
    assert html.count("<script") == 2  # the data, and what works on them
    assert "\\u003cscript>alert(1)" in html
    assert html.count("alert(1)") == html.count("&lt;script&gt;alert(1)") + html.count(
        "\\u003cscript>alert(1)"
    )
    assert name in words(written)
    assert "<b>a & b" in words(written)


def test_nothing_timed(save, make, tmp_path):
    path = save("x.json", make.document([], [make.untimed("a", "loops", 8, 3.0)]))
    written = reports.write(path, tmp_path / "out")
    assert "loops , 1 case: too slow (predicted: 3.00 s a call)" in words(written).replace(
        "loops,", "loops ,"
    )


@pytest.mark.usefixtures("undrawn")
def test_the_machine_has_its_ceiling_and_its_advice(save, make, tmp_path):
    content = make.document([make.timed("a", "numba", 8, 0.5)])
    content["machine_info"]["convbench"] |= {"lesser_blas": "take the other kernels", "coretype": None}
    written = reports.write(save("x.json", content), tmp_path / "out")
    text = words(written)
    assert "400 GFLOP/s (matrix product), 38.0 GB/s (copy, read and written)" in text
    assert "advice take the other kernels" in text
    assert "BLAS kernels" not in text
    (share,) = (column for column in columns(written) if column["head"] == "of attainable")
    assert (share["texts"], share["keys"]) == (["4.0 %"], [pytest.approx(8 * 0.0025 / 0.5)])


@pytest.mark.usefixtures("undrawn")
def test_facts_of_the_machine_may_be_missing_or_odd(save, make, tmp_path):
    content = make.document([make.timed("a", "numba", 8, 0.5)])
    del content["convbench"]
    facts = {"cpu": None, "caches": 3, "blas": {"a": 1}, "load_start": "?", "load_end": 1, "isa": "avx2",
             "ceiling": {"gemm_gflops": "?"}, "lesser_blas": 7, "coretype": []}  # fmt: skip
    for machine in ({"node": "host"}, {"convbench": facts}):
        content["machine_info"] = machine
        assert "Machine" in words(reports.write(save("x.json", content), tmp_path / "out"))


@pytest.mark.usefixtures("undrawn")
def test_baseline_by_name(golden_path, tmp_path):
    assert "Speed-ups over im2col" in words(reports.write(golden_path, tmp_path / "out", baseline="im2col"))


def test_unknown_baseline(golden_path, tmp_path):
    with pytest.raises(ValueError, match=r"^baseline is 'nunba'; expected one of loops, im2col, numba$"):
        reports.write(golden_path, tmp_path / "out", baseline="nunba")
    assert not (tmp_path / "out").exists()


def test_the_ladder_of_the_layer_that_is_asked_for(golden_path, tmp_path):
    written = reports.write(golden_path, tmp_path / "out", layer="d:pool")
    assert "d:pool, forward, batch 8, as a table and a figure" in words(written)
    with pytest.raises(ValueError, match=r"^layer is 'e'; expected one of a:conv, b:conv, c:conv, d:pool$"):
        reports.write(golden_path, tmp_path / "out", layer="e")


@pytest.mark.usefixtures("undrawn")
def test_why_a_rewriting_is_faster_stands_in_the_file(save, make, tmp_path):
    content = make.golden()
    content["convbench"]["gains"] = {"numba": "compiled loops"}
    assert "compiled loops" in words(reports.write(save("x.json", content), tmp_path / "out"))


def test_many_cases_are_drawn_by_several_processes(golden_path, tmp_path, monkeypatch):
    alone = reports.write(golden_path, tmp_path / "alone")
    monkeypatch.setattr(drawing, "_WORTH_PROCESSES", 1)
    together = reports.write(golden_path, tmp_path / "together")
    assert contents(alone.parent) == contents(together.parent)


@pytest.mark.usefixtures("undrawn")
def test_default_baseline_may_be_missing(save, make, tmp_path):
    written = reports.write(
        save("x.json", make.document([make.timed("a", "numba", 8, 0.5)])), tmp_path / "out"
    )
    assert "There is nothing to compare with: loops has neither times" in words(written)


def test_out_dir_that_is_a_file(golden_path, save):
    path = save("file", "mine")
    with pytest.raises(ValueError, match=r"^out_dir is '.*/file', a file; expected a directory"):
        reports.write(golden_path, path)
    assert path.read_text() == "mine"


def contents(directory):
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_bad_input_leaves_the_report_as_it_was(written, save):
    before = contents(written.parent)
    with pytest.raises(ValueError, match="is empty"):
        reports.write(save("bad.json", ""), written.parent)
    assert contents(written.parent) == before


def test_bad_input_makes_no_directory(save, tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        reports.write(save("bad.json", ""), tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_failure_while_making_leaves_the_report_as_it_was(written, golden_path, monkeypatch):
    before = contents(written.parent)

    def fail(*_arguments, **_options):
        raise RuntimeError("no paper")

    monkeypatch.setattr(page, "_render", fail)
    with pytest.raises(RuntimeError, match="no paper"):
        reports.write(golden_path, written.parent, baseline="im2col")
    assert contents(written.parent) == before


@pytest.mark.usefixtures("undrawn")
def test_a_full_disk_leaves_the_report_as_it_was(written, golden_path, monkeypatch):
    before = contents(written.parent)
    write_bytes = Path.write_bytes

    def fail_at_the_page(path, data):
        if path.name == "index.html":
            raise OSError("No space left on device")
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", fail_at_the_page)
    with pytest.raises(OSError, match="No space left"):
        reports.write(golden_path, written.parent, baseline="im2col")
    monkeypatch.undo()
    assert contents(written.parent) == before
    assert not list(written.parent.parent.glob(".out*"))


@pytest.mark.usefixtures("undrawn")
def test_files_of_others_stay_and_ours_are_replaced(written, golden_path):
    (written.parent / "notes.txt").write_text("mine")
    again = reports.write(golden_path, written.parent, title="Another title")
    assert (written.parent / "notes.txt").read_text() == "mine"
    assert "Another title" in words(again)
