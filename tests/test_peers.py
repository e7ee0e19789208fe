"""convbench beside other libraries: what is measured, saved and shown; SciPy is one that is always there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli import convbench_run
from matplotlib.figure import Figure

import kernels
from benchmarks import peer_worker
from benchmarks.peer_worker import Library
from benchmarks.peers import OURS, Comparison, Plan, compare
from kernels import ConvSpec, PoolSpec
from kernels.problem import Problem
from kernels.registry import ops_of
from reports import peers as report

SUITE = 'mb2ic3ih6oc4oh6kh3ph1n"tiny:conv"\navg_pool2d mb2ic3ih6oh3kh2sh2n"tiny:pool"\n'
LAYERS = [
    ConvSpec(2, 4, 9, 8, 6, 3, 2, stride=(2, 1), padding=1, groups=2),
    ConvSpec(2, 2, 7, 8, 3, 3, 3, padding=((0, 1), (2, 0))),
    PoolSpec("max", 2, 3, 8, 9, 3, 3, stride=2, padding=1),
    PoolSpec("avg", 2, 3, 8, 9, 2, 2),
]
PEERS = [name for name in kernels.available_backends() if name not in kernels.own_backends()]
SECONDS = 0.02


@pytest.fixture
def suite(tmp_path: Path) -> str:
    path = tmp_path / "tiny.txt"
    path.write_text(SUITE)
    return str(path)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.descriptor)
@pytest.mark.parametrize("backend", ["im2col", *PEERS])
def test_what_is_timed_is_what_the_backend_computes(backend, layer) -> None:
    """In a library's own tensors too, with new outputs and with those of the call before."""
    for op in ops_of(layer):
        if peer_worker.unsupported(kernels.get_backend(backend), layer, op):
            continue
        problem = Problem.random(layer, op)
        native = peer_worker._native(problem, backend)
        for call in filter(None, (native.fresh, native.into, native.into)):
            assert problem.judge(backend, native.arrays(call())).wrong is None
        if native.into is not None:
            first, again = (native.arrays(native.into()) for _ in range(2))
            assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))


def test_a_library_prepares_times_and_forgets() -> None:
    library = Library()
    layer = "conv2d mb2ic3ih6oc4oh6kh3ph1"
    answer = library.prepare(layer, "forward", "im2col")
    assert answer["into"]
    assert 0 <= answer["error"] < 1e-6
    assert answer["call_s"] > 0
    for mode in ("fresh", "out"):
        times = library.time("im2col", mode, SECONDS)
        assert 1 <= len(times) <= peer_worker.MOST_CALLS
        assert min(times) > 0
    assert len(library.time("im2col", "fresh", 0.0)) == 1
    library.forget()
    with pytest.raises(KeyError):
        library.time("im2col", "fresh", SECONDS)


def test_a_library_says_why_not(monkeypatch) -> None:
    library = Library()
    pool, large = "max_pool2d mb2ic3ih6oh3kh2sh2", "conv2d mb8ic64ih56oc64oh56kh3ph1"
    assert library.prepare(pool, "forward", "scipy") == {"skipped": "scipy.signal has no pooling"}
    answer = library.prepare(large, "forward", "loops", 0.01)
    assert answer["skipped"] == "too slow to be timed"
    assert answer["call_s"] > 0.01
    im2col = kernels.get_backend("im2col").operations
    monkeypatch.setattr(im2col, "avg_pool_forward", lambda spec, x, y: y.fill(7))
    answer = library.prepare("avg_pool2d mb2ic3ih6oh3kh2sh2", "forward", "im2col")
    assert "more than rounding explains" in answer["wrong"]


def test_the_default_plan() -> None:
    plan = Plan.read()
    assert plan.suites == ("peers",)
    assert plan.ops == ("forward", "dx", "dw")
    assert plan.backends == kernels.own_backends()
    assert plan.peers == tuple(PEERS)
    assert len(plan.cases()) == 17 * 3 + 12 * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"peers": "numba"}, r"^--peers has 'numba', which is our own; expected some of .*scipy"),
        ({"peers": "nope"}, r"^backend is 'nope'; expected one of "),
        ({"backends": "im2col,scipy"}, r"^--backends has 'scipy', which is a peer; expected it in --peers$"),
        ({"seconds": 0.0}, r"^--seconds is 0.0; expected more than 0$"),
        ({"ops": "sideways"}, r"^--ops is 'sideways'; expected some of forward"),
    ],
)
def test_a_bad_plan_is_refused(words, message) -> None:
    with pytest.raises(ValueError, match=message):
        Plan.read(**words)


def test_a_library_that_ends_is_named(suite, monkeypatch) -> None:
    monkeypatch.setattr("benchmarks.peers.SUITE", suite)
    monkeypatch.setattr("benchmarks.workers.sys.executable", "/bin/false")
    with pytest.raises(ValueError, match=r"^the process of convbench ended with exit code 1$"):
        compare(Plan.read(backends="im2col", peers="scipy"))


def test_a_comparison_on_the_command_line(tmp_path, suite) -> None:
    arguments = ["--suite", suite, "--backends", "im2col,window", "--peers", "scipy", "--threads", "1"]
    done = convbench_run(tmp_path, "peers", *arguments, "--seconds", "0.2", "--out", "mine.json")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    headings = [line.partition(":")[0] for line in lines if "microseconds" in line]
    assert headings == ["forward, fresh outputs", "forward, written into out"]
    row = next(line for line in lines if line.startswith("tiny:conv")).split()
    assert row[1] in ("im2col", "window")
    assert sum(line.startswith("geometric mean, convolution ") for line in lines) == 2
    assert "skipped scipy, scipy.signal has no pooling: forward tiny:pool, dx tiny:pool" in lines
    assert "skipped scipy, scipy.signal has no gradients: dx tiny:conv, dw tiny:conv" in lines
    assert lines[-1] == "results: mine.json, mine.png"
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((tmp_path / "mine.json").read_text())
    assert content["plan"]["threads"] == content["machine"]["threads"] == 1
    assert {"identity", "cpu", "caches", "versions"} <= set(content["machine"])
    assert content["wrong"] == []
    frame = report.load(tmp_path / "mine.json")
    assert set(frame["library"]) == {OURS, "scipy"}
    assert set(frame["mode"]) == {"fresh", "out"}
    by_kind = frame.groupby("kind")["op"].agg(set).to_dict()
    assert by_kind == {"conv2d": {"forward", "dx", "dw"}, "avg_pool2d": {"forward", "dx"}}
    assert all(len(rounds) == 7 for rounds in frame["rounds_s"])
    assert (frame["q1_s"] <= frame["median_s"]).all()
    assert (frame["median_s"] <= frame["q3_s"]).all()
    assert (frame["calls"] >= 7).all()


def test_bad_input_is_one_line(tmp_path) -> None:
    for arguments, words in (
        (("--peers", "im2col"), "--peers has 'im2col', which is our own"),
        (("--suite", "nope"), "suite is 'nope'"),
        (("--threads", "0"), "--threads is 0"),
        (("--out", "times.csv"), "--out is 'times.csv'; expected a file whose name ends with .json"),
    ):
        done = convbench_run(tmp_path, "peers", *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith(f"convbench: {words}")
        assert done.stderr.count("\n") == 1


@pytest.fixture
def saved(tmp_path) -> pd.DataFrame:
    """Two layers: ours is twice as fast as one peer, and half as fast as another that has no `out`."""
    medians = [
        ("a", OURS, "im2col", "fresh", 3.0),
        ("a", OURS, "numba", "fresh", 2.0),
        ("a", "torch", "torch", "fresh", 4.0),
        ("a", "jax", "jax", "fresh", 1.0),
        ("b", OURS, "im2col", "fresh", 1.0),
        ("b", "torch", "torch", "fresh", 8.0),
        ("a", OURS, "im2col", "out", 1.0),
        ("a", OURS, "numba", "out", 2.0),
        ("a", "torch", "torch", "out", 4.0),
    ]
    comparison = Comparison(Plan.read(backends="im2col", peers="scipy", threads=1))
    for layer, library, backend, mode, seconds in medians:
        rounds = [seconds * drift for drift in (1.0, 3.0, 2.0)]  # what all have in common, ratios do not show
        comparison.rows.append(
            {
                "layer": layer,
                "kind": "conv2d" if layer == "a" else "max_pool2d",
                "op": "forward",
                "library": library,
                "backend": backend,
                "mode": mode,
                "rounds_s": rounds,
                "q1_s": 1.5 * seconds,
                "median_s": 2 * seconds,
                "q3_s": 2.5 * seconds,
                "calls": 3,
                "error": 0.0,
            }
        )
    comparison.save(tmp_path / "saved.json")
    return report.load(tmp_path / "saved.json")


def test_ratios(saved) -> None:
    """Against the best of ours on each layer; a peer that is missing somewhere counts where it is."""
    rows = report.compared(saved, "forward", "fresh")
    assert not rows["instead"].any()
    assert (rows["q1"] == rows["q3"]).all()
    fresh = report.ratios(rows)
    assert list(fresh.columns) == ["torch", "jax", "best peer"]
    assert fresh.loc["a"].tolist() == [2.0, 0.5, 0.5]
    assert fresh.loc["b"].dropna().tolist() == [8.0, 8.0]
    assert report.compared(saved, "dx", "fresh").empty
    winners = report.best(saved, "forward", "fresh")
    assert winners[winners["library"] == OURS]["backend"].tolist() == ["numba", "im2col"]


def test_geometric_means_are_of_a_family(saved) -> None:
    saved["kind"] = "conv2d"
    rows = report.compared(saved, "forward", "fresh")
    (mean,) = report.means(rows).to_dict("records")
    assert mean == pytest.approx({"torch": 4.0, "jax": 0.5, "best peer": 2.0})
    saved.loc[saved["layer"] == "b", "kind"] = "avg_pool2d"
    means = report.means(report.compared(saved, "forward", "fresh"))
    assert means["best peer"].to_dict() == pytest.approx({"convolution": 0.5, "pooling": 8.0})


def test_a_peer_without_out_takes_part_with_fresh_outputs(saved) -> None:
    """Not so ours: where it has no `out`, there is nothing to compare."""
    rows = report.compared(saved, "forward", "out")
    assert dict(zip(rows["library"], rows["instead"], strict=True)) == {"torch": False, "jax": True}
    assert set(rows["ours"]) == {"im2col"}
    assert report.ratios(rows).loc["a"].tolist() == [4.0, 1.0, 1.0]
    assert list(report.ratios(rows).index) == ["a"]


def test_the_figure(saved, tmp_path) -> None:
    assert report.write(saved, tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")
    ours = saved[saved["library"] == OURS]
    assert not report.write(ours, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_nothing_timed_is_nothing_to_compare(tmp_path) -> None:
    """All may have been wrong, or skipped."""
    Comparison(Plan.read(backends="im2col", peers="scipy", threads=1)).save(tmp_path / "none.json")
    frame = report.load(tmp_path / "none.json")
    assert report.compared(frame, "forward", "out").empty
    assert not report.write(frame, tmp_path / "none.png")


def test_what_the_figure_shows(saved) -> None:
    """The layers, then the means; hollow where fresh outputs stand in; who won for us."""
    ax = Figure().subplots()
    report.draw(ax, report.compared(saved, "forward", "out"))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "mean, convolution"]
    assert [text.get_text() for text in ax.texts] == ["im2col"]
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "white" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in hollow] == [[1.0]]


def test_other_files_are_refused(tmp_path) -> None:
    path = tmp_path / "other.json"
    for content in ("{}", "[]", "no JSON", '{"convbench_peers": 99}'):
        path.write_text(content)
        with pytest.raises(ValueError, match="holds no comparison with peers; expected a file of `convbench"):
            report.load(path)
