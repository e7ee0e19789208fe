"""The command line, as its user meets it: in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli import convbench_run, environment

from kernels import PoolSpec, backends, get_backend, own_backends

SUITE = 'mb1ic1ih12oc2oh12kh3ph1n"tiny:conv"\nmax_pool2d mb1ic2ih12oh6kh2sh2n"tiny:pool"\n'
POOL, FLOAT32 = PoolSpec("max", 1, 2, 12, 12, 2, 2), np.dtype(np.float32)
POOLING = [name for name in own_backends() if not get_backend(name).unsupported(POOL, "forward", FLOAT32)]
CASES = 3 * len(own_backends()) + 2 * len(POOLING)
"""A convolution's three operations for each backend, and a pooling's two for those that pool."""


@pytest.fixture(scope="module")
def benched(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder in which a small `convbench bench` has run, and what it said."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "tiny.txt").write_text(SUITE)
    done = convbench_run(folder, "bench", "--suite", "tiny.txt", "--batch-sizes", "1,4")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


def test_help_tells_a_newcomer_what_to_do_first(tmp_path):
    done = convbench_run(tmp_path, "--help")
    assert done.returncode == 0
    words = " ".join(done.stdout.split())
    assert "New here? convbench list shows the backends" in words
    for command in ("list", "check", "bench", "report"):
        assert command in words


def test_list_shows_every_backend_and_what_auto_is(tmp_path):
    done = convbench_run(tmp_path, "list")
    assert done.returncode == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert set(backends()) <= set(rows)
    for name in own_backends():
        assert ("exact on integers" in rows[name]) == (get_backend(name).tolerance == 0)
        assert ("not everything" in rows[name]) == (name not in POOLING)
    assert "backend='auto' is tiled" in done.stdout
    assert "vgg19 (15 layers)" in done.stdout


def test_check_prints_the_errors(tmp_path):
    (tmp_path / "tiny.txt").write_text(SUITE)
    done = convbench_run(tmp_path, "check", "--suite", "tiny.txt")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["layer", "op", "batch", *own_backends()]
    assert [line.split()[:3] for line in lines[1:6]] == [
        ["tiny:conv", "forward", "2"], ["tiny:conv", "dx", "2"], ["tiny:conv", "dw", "2"],
        ["tiny:pool", "forward", "2"], ["tiny:pool", "dx", "2"],
    ]  # fmt: skip
    columns = zip(own_backends(), *(line.split()[3:] for line in lines[1:6]), strict=True)
    errors = {name: [error for error in column if error != "skipped"] for name, *column in columns}
    assert {name: len(found) for name, found in errors.items()} == {
        name: 5 if name in POOLING else 3 for name in own_backends()
    }
    for name, found in errors.items():
        assert all(float(error) < max(1e-6, get_backend(name).tolerance) for error in found)
    assert lines[-1] == f"{CASES} right, 0 wrong."


def test_check_says_where_it_looked_at_less(tmp_path):
    (tmp_path / "large.txt").write_text('mb1ic64ih32oc64oh32kh3ph1n"large"\n')
    done = convbench_run(
        tmp_path,
        "check",
        "--suite",
        "large.txt",
        "--backends",
        "loops",
        "--ops",
        "forward",
        "--budget",
        "0.2",
    )
    assert done.returncode == 0, done.stderr
    assert "~" in done.stdout.splitlines()[1]
    assert "1 would take longer than the budget of 0.2 s a case: checked on a" in done.stdout


def test_check_exits_with_1_on_a_mismatch(tmp_path):
    (tmp_path / "tiny.txt").write_text(SUITE)
    (tmp_path / "broken.py").write_text(
        "import convbench, kernels.im2col as im2col\n"
        "right = im2col.conv_dx\n"
        "def conv_dx(spec, dy, w, dx):\n"
        "    right(spec, dy, w, dx)\n"
        "    dx[0, 0, 0, 0] += 1\n"
        "im2col.conv_dx = conv_dx\n"
        "def conv_db(spec, dy, db): raise RuntimeError('out of luck')\n"
        "im2col.conv_db = conv_db\n"
        "convbench.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "broken.py", "check", "--suite", "tiny.txt"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "wrong tiny:conv-dx-b2-im2col: differs from the reference on integers" in done.stdout
    assert "wrong tiny:conv-dw-b2-im2col: RuntimeError: out of luck" in done.stdout
    assert f"{CASES - 2} right, 2 wrong." in done.stdout


def test_bench_ends_with_the_report_and_a_summary(benched):
    folder, done = benched
    lines = done.stdout.splitlines()
    (results,) = (folder / "results").glob("*.json")
    assert f"results: results/{results.name}" in lines
    assert lines[-1] == "report: results/report/index.html"
    skipped = 2 * 5 * len(own_backends()) - 2 * CASES
    assert lines[lines.index(f"results: results/{results.name}") + 1].startswith(
        f"{2 * CASES} cases timed, {skipped} skipped"
    )
    assert len(lines) - lines.index(f"results: results/{results.name}") <= 13
    assert {path.name for path in folder.iterdir()} == {"tiny.txt", "results"}
    page = (folder / "results" / "report" / "index.html").read_text()
    assert "tiny:conv" in page
    assert (folder / "results" / "report" / "results.csv").exists()


def test_bench_says_when_blas_runs_lesser_kernels(tmp_path):
    """Before the run, which takes long; here it finds nothing to do."""
    (tmp_path / "tiny.txt").write_text(SUITE)
    (tmp_path / "told.py").write_text(
        "import convbench, benchmarks.system, benchmarks.watching\n"
        "benchmarks.system.lesser_family = lambda: 'Haswell'\n"
        "benchmarks.watching.ARGUMENTS = ('--version',)\n"
        "convbench.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "told.py", "bench", "--suite", "tiny.txt"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    line = done.stdout.splitlines()[0]
    assert line.startswith("Timings may be off: OpenBLAS runs its Haswell kernels, but this CPU has AVX-512")
    assert line.endswith(". `convbench doctor` says what to do.")
    assert done.returncode == 2
    assert done.stderr == (
        "convbench: the process ended with exit code 0 without a case under way; "
        "no case was finished: nothing is kept\n"
    )
    assert not list((tmp_path / "results").iterdir())


def test_roofline_shows_what_is_attainable_and_what_was_reached(tmp_path):
    (tmp_path / "tiny.txt").write_text(SUITE)
    done = convbench_run(tmp_path, "roofline", "--suite", "tiny.txt", "--backends", "im2col,numba")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    ceilings, blank, head, *rows = lines[-8:]
    assert re.match(r"Ceilings in float32 on \d+ threads?: [\d.e+]+ GFLOP/s \(matrix product\), ", ceilings)
    assert blank == ""
    assert head.split() == [
        "layer",
        "op",
        "batch",
        "FLOP/byte",
        "bound",
        "by",
        "attainable",
        "im2col",
        "numba",
    ]
    assert [row.split()[:3] for row in rows] == [
        ["tiny:conv", "forward", "32"], ["tiny:conv", "dx", "32"], ["tiny:conv", "dw", "32"],
        ["tiny:pool", "forward", "32"], ["tiny:pool", "dx", "32"],
    ]  # fmt: skip
    assert all(
        re.search(r"(arithmetic|memory) +[\d.]+ [mu]?s( +[\d.]+ [mu]?s [\d.]+%){2}$", row.rstrip())
        for row in rows
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "tiny.txt"]


def test_report_takes_the_newest_results_or_those_it_is_given(benched, tmp_path):
    folder, _ = benched
    (results,) = (folder / "results").glob("*.json")
    newest = convbench_run(folder, "report", "--out", "again")
    assert newest.returncode == 0, newest.stderr
    given = convbench_run(tmp_path, "report", str(results), "--out", "given", "--baseline", "im2col")
    assert given.returncode == 0, given.stderr
    assert "over im2col" in given.stdout
    assert (folder / "again" / "index.html").exists()
    assert (tmp_path / "given" / "index.html").exists()


FOREIGN = {"machine_info": {}, "commit_info": {}, "benchmarks": [], "datetime": "2026-01-01", "version": "5"}
BAD_FILES = {"empty.json": "", "half.json": '{"benchmarks": [', "foreign.json": json.dumps(FOREIGN),
             "bad.txt": "\nic1ih8oc2kh9\n", "noise.txt": "hello world again"}  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "--suite", "nope"], "suite is 'nope'; expected one of default, alexnet"),
        (["check", "--suite", "bad.txt"], "bad.txt:2: descriptor 'ic1ih8oc2kh9': kernel 9x9 (dilation"),
        (["bench", "--suite", "noise.txt"], "noise.txt:1: cannot read 'hello world again'; expected"),
        (["check", "--backends", "nope"], "backend is 'nope'; expected one of loops"),
        (["bench", "--batch-sizes", "0"], "--batch-sizes is '0'; expected positive ints"),
        (["bench", "--ops", "up"], "--ops is 'up'; expected some of forward"),
        (["bench", "--dtype", "int8"], "--dtype is 'int8'; expected float32 or float64"),
        (["bench", "--threads", "0"], "--threads is 0; expected 1 to"),
        (["bench", "--baseline", "nope"], "--baseline is 'nope'; expected one of loops, window"),
        (["roofline", "--suite", "nope"], "suite is 'nope'; expected one of default, alexnet"),
        (["roofline", "--backends", "nope"], "backend is 'nope'; expected one of loops"),
        (["roofline", "--dtype", "int8"], "--dtype is 'int8'; expected float32 or float64"),
        (["check", "--budget", "-1"], "--budget is -1.0; expected seconds, more than 0"),
        (["report"], "no results in results/; expected files, or a run of `convbench bench` before"),
        (["report", "missing.json"], "missing.json does not exist; expected"),
        (["report", "empty.json"], "empty.json is empty; expected"),
        (["report", "half.json"], "half.json is not JSON"),
        (["report", "foreign.json"], "foreign.json holds no convbench results"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, arguments, message):
    for name, content in BAD_FILES.items():
        (tmp_path / name).write_text(content)
    before = sorted(tmp_path.rglob("*"))
    done = convbench_run(tmp_path, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith(f"convbench: {message}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_unknown_commands_and_options_are_usage_errors(tmp_path):
    for arguments in (["nope"], ["check", "--nope"]):
        done = convbench_run(tmp_path, *arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
