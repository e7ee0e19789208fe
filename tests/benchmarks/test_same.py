"""A backend against itself: known ratios by a timer that is made up, and a real run."""

from __future__ import annotations

import gc
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli import convbench_run
from typer.testing import CliRunner

import convbench
from benchmarks import same
from benchmarks.doctor import Finding
from benchmarks.options import Options
from benchmarks.run import Case
from benchmarks.same import Invented, Same, by_duration, by_layer, measure_same, repeats, save
from kernels import ConvSpec, im2col
from kernels.measure import TIMED_S, WARM_UP_S, rounds_for, warm_up_rounds_for

SUITE = 'mb1ic1ih12oc2oh12kh3ph1n"conv"\nmax_pool2d mb1ic2ih12oh6kh2sh2n"pool"\n'
CASE = Case("suite", ConvSpec(4, 1, 8, 8, 2, 3, 3, name="conv"), "forward", "im2col", "float32")


@pytest.fixture
def options(tmp_path) -> Options:
    path = tmp_path / "tiny.txt"
    path.write_text(SUITE)
    return Options.read([str(path)], "im2col", "1,2", threads=1)


def pairs(*ratios: float, call_s: float = 1e-3) -> Same:
    """A case with such ratios of its sides."""
    return Same(CASE, tuple((ratio * call_s, call_s) for ratio in ratios))


def test_sides_take_turns_with_fresh_arrays_of_the_same_data(options):
    """The block that comes first is 21 % slower: side a in one repeat, side b in the next."""
    seen = []

    def time_block(call, call_s):
        problem = call.func.__self__
        seen.append(problem)
        assert call_s > 0
        return 1.21e-3 if len(seen) % 2 else 1e-3

    found = list(measure_same(options, seconds=1e-9, time_block=time_block))
    assert len(found) == (3 + 2) * 2
    for each in found:
        assert each.pairs_s == ((1.21e-3, 1e-3), (1e-3, 1.21e-3), (1.21e-3, 1e-3))
        assert each.distances == pytest.approx([math.log(1.21)] * 3)
    assert len(seen) == 2 * 3 * len(found)
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        for name, array in first.arrays.items():
            np.testing.assert_array_equal(array, second.arrays[name])
            assert not np.shares_memory(array, second.arrays[name])


def test_seconds_buy_repeats():
    """A block of short calls is as long as its timing and warm-up; one of long calls has a few of them."""
    short_s, long_s = TIMED_S / 1000, 10 * TIMED_S
    block_s = {
        short_s: TIMED_S + WARM_UP_S,
        long_s: long_s * (rounds_for(long_s) + warm_up_rounds_for(long_s)),
    }
    for call_s, seconds in block_s.items():
        assert repeats(call_s, 1e-9) == same.LEAST_REPEATS
        assert repeats(call_s, 20.5 * seconds) == 10


def test_what_is_invented_is_the_same_in_both_directions():
    invented = Invented.of([pairs(*[1.0] * 10, 1.1, 1 / 1.1), pairs(*[1.05, 1 / 1.05] * 4, 1.2)])
    assert invented.pairs == 21
    assert invented.median == pytest.approx(0.05)
    assert invented.p95 == pytest.approx(0.1)
    assert invented.worst == pytest.approx(0.2)
    assert str(invented) == (
        "Differences below 10 % between two backends mean nothing on this machine today: so far apart were "
        "95 % of 21 pairs of equal sides, half of them less than 5 %."
    )


@pytest.mark.parametrize(
    ("p95", "words"),
    [(0.07, "below 7 %"), (0.0701, "below 8 %"), (0.0042, "below 0.5 %"), (0.0, "below 0 %")],
)
def test_limits_are_rounded_up(p95, words):
    assert words in str(Invented(0.0, p95, p95, 20))


def test_cases_are_told_apart_by_layer_and_by_duration():
    short, middle, long = (pairs(1.0, call_s=seconds) for seconds in (1e-5, 1e-4, 1.0))
    skipped = Same(CASE, skipped="slow")
    assert by_layer([short, skipped, long]) == {("conv", 4, "im2col"): [short, long]}
    assert by_duration([short, middle, long, skipped]) == {
        (0.0, 1e-4): [short], (1e-4, 1e-3): [middle], (1e-3, math.inf): [long]
    }  # fmt: skip
    assert by_duration([long]) == {(1e-3, math.inf): [long]}


def test_a_wrong_or_slow_backend_gets_no_times(options, monkeypatch):
    def conv_dw(spec, dy, x, dw):
        raise RuntimeError("out of luck")

    def conv_dx(spec, dy, w, dx):
        dx[...] = 7.0

    monkeypatch.setattr(im2col, "conv_dw", conv_dw)
    monkeypatch.setattr(im2col, "conv_dx", conv_dx)
    found = {each.case.id: each for each in measure_same(options, 1e-9, lambda call, call_s: 1e-3)}
    assert found["conv-dw-b1-im2col"].wrong == "RuntimeError: out of luck"
    assert "more than rounding explains" in found["conv-dx-b1-im2col"].wrong
    assert found["conv-forward-b1-im2col"].pairs_s
    monkeypatch.undo()
    slow = Options.read(options.suites, "im2col", "1", threads=1, budget_s=1e-12)
    assert all(each.skipped.startswith("predicted ") for each in measure_same(slow))


def test_a_block_is_timed_without_garbage_collection():
    seen = []
    assert gc.isenabled()
    assert 0 < same.time_block(lambda: seen.append(gc.isenabled()), 0.05) < 0.05
    assert set(seen) == {False}
    assert gc.isenabled()


def test_everything_is_saved(tmp_path, options):
    found = [pairs(1.1, 0.9), Same(CASE, skipped="slow"), Same(CASE, wrong="off")]
    findings = [Finding("noise", "warn", "noisy", "be quiet")]
    table = save(tmp_path / "aa" / "x.json", found, options, 2.0, findings)
    saved = json.loads((tmp_path / "aa" / "x.json").read_text())
    assert saved["findings"] == [{"check": "noise", "level": "warn", "what": "noisy", "remedy": "be quiet"}]
    assert saved["options"]["seconds"] == 2.0
    assert saved["options"]["threads"] == saved["machine"]["threads"] == 1
    assert saved["invented"]["pairs"] == 2
    assert [entry["skipped"] or entry["wrong"] for entry in saved["left_out"]] == ["slow", "off"]
    frame = pd.read_csv(table)
    assert table.name == "x.csv"
    assert frame["ratio"].tolist() == pytest.approx([1.1, 0.9])
    assert frame.to_dict("list").keys() == saved["pairs"][0].keys()
    assert set(frame["layer"]) == {"conv"}


def test_bench_aa_says_what_means_nothing(tmp_path: Path):
    (tmp_path / "tiny.txt").write_text(SUITE)
    arguments = ("--suite", "tiny.txt", "--backends", "im2col", "--batch-sizes", "2", "--seconds", "0.01")
    done = convbench_run(tmp_path, "bench", "--aa", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split()[:3] for line in done.stdout.splitlines()]
    assert ["conv", "2", "im2col"] in rows
    assert ["pool", "2", "im2col"] in rows
    *_, words, results = done.stdout.splitlines()
    assert words.startswith("Differences below ")
    assert "between two backends mean nothing on this machine today" in words
    files = sorted((tmp_path / "results" / "aa").iterdir())
    assert [file.suffix for file in files] == [".csv", ".json"]
    assert results == f"results: results/aa/{files[1].name}, results/aa/{files[0].name}"
    saved = json.loads(files[1].read_text())
    assert saved["invented"]["pairs"] == len(saved["pairs"]) >= 5 * same.LEAST_REPEATS


@pytest.mark.parametrize("finished", [0, 2])
def test_ctrl_c_keeps_what_is_finished(tmp_path, monkeypatch, finished):
    """A keyboard interrupt in the third case, or in the first."""

    def measure(options, seconds):
        yield from [pairs(1.1, 0.9)] * finished
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(same, "measure_same", measure)
    (tmp_path / "tiny.txt").write_text(SUITE)
    done = CliRunner().invoke(convbench.app, ["bench", "--aa", "--suite", "tiny.txt", "--threads", "1"])
    assert done.exit_code == 130, done.output
    saved = [json.loads(file.read_text()) for file in tmp_path.glob("results/aa/*.json")]
    if finished:
        assert "stopped: 2 of 10 cases are finished" in done.output
        assert [len(each["pairs"]) for each in saved] == [4]
    else:
        assert "no case was finished: nothing is kept" in done.output
        assert saved == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--aa", "--seconds", "0"], "--seconds is 0; expected more than 0"),
        (["--seconds", "2"], "--seconds is 2, which is of --aa; expected --budget, or --aa with it"),
        (["--aa", "--backends", "nope"], "backend is 'nope'; expected one of loops"),
        (["--aa", "--suite", "nope"], "suite is 'nope'; expected one of default"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, arguments, message):
    done = convbench_run(tmp_path, "bench", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"convbench: {message}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
