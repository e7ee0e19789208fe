"""compare and history, as their user meets them: in a process of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from cli import convbench_run

MACHINE = {"node": "host", "convbench": {"cpu": "Testor 9000"}}


def saved(path: Path, medians: dict[str, float], failed: tuple[str, ...] = (), day: int = 1) -> Path:
    """A saved run of three layers, in which a backend takes so many times a second."""
    facts = {"suite": "s", "kind": "conv2d", "op": "forward", "batch": 8, "dtype": "float32", "threads": 2,
             "flops": 10**6}  # fmt: skip
    cases = [
        {**facts, "layer": f"net:conv{number}", "backend": backend, "descriptor": f"mb8ic{number}"}
        for backend in medians
        for number in range(1, 6)
    ]
    extra = {
        "schema": 1,
        "least_bytes": 1,
        "im2col_bytes": 1,
        "peak_bytes": 1,
        "error": 0.0,
        "compile_s": None,
    }
    keys = ("min", "q1", "median", "q3", "max", "mean")
    benchmarks = [
        {
            "name": f"test[{case['layer']}]",
            "extra_info": {**case, **extra, "probe_s": 1e-4},
            "stats": {
                **dict.fromkeys(keys, medians[case["backend"]]),
                "stddev": 0.0,
                "iqr": 0.0,
                "rounds": 9,
            },
        }
        for case in cases
        if case["backend"] not in failed
    ]
    content = {
        "machine_info": MACHINE,
        "commit_info": {"id": "0123456789", "dirty": False},
        "benchmarks": benchmarks,
        "datetime": f"2025-03-0{day}T12:00:00+00:00",
        "version": "5.1.0",
        "convbench": {
            "schema": 1,
            "failed": [{**case, "reason": "wrong"} for case in cases if case["backend"] in failed],
            "probes": [{"at_s": float(number), "seconds": 1e-4} for number in range(8)],
        },
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


TIMES = {"im2col": 0.1, "numba": 0.05, "tiled": 0.01}


@pytest.fixture
def base(tmp_path) -> Path:
    return saved(tmp_path / "base.json", TIMES)


def test_the_same_is_no_regression(tmp_path, base):
    done = convbench_run(tmp_path, "compare", "base.json", "base.json")
    assert done.returncode == 0, done.stderr
    assert "No regression beyond 10 %." in done.stdout


def test_a_regression_ends_with_1_and_is_markdown_where_piped(tmp_path, base):
    saved(tmp_path / "new.json", TIMES | {"numba": 0.0575})
    done = convbench_run(tmp_path, "compare", "base.json", "new.json", "--csv", "out.csv")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith(
        "### Testor 9000, float32, 2 threads\n\nSlower by more than 10 %: numba forward by 15 %."
    )
    assert "| numba | forward | 5 | 5 | 1.15 |" in done.stdout
    assert "<details><summary>By case, the largest changes first: 15</summary>" in done.stdout
    table = pd.read_csv(tmp_path / "out.csv")
    assert len(table) == 15
    assert table.loc[table["backend"] == "numba", "ratio"].tolist() == pytest.approx([1.15] * 5)


def test_the_limit_can_be_set(tmp_path, base):
    saved(tmp_path / "new.json", TIMES | {"numba": 0.0575})
    assert convbench_run(tmp_path, "compare", "base.json", "new.json", "--fail-on", "20").returncode == 0


def test_what_newly_fails_is_a_regression(tmp_path, base):
    saved(tmp_path / "new.json", TIMES, failed=("numba",))
    done = convbench_run(tmp_path, "compare", "base.json", "new.json", "--markdown")
    assert done.returncode == 1
    assert "5 cases newly failing." in done.stdout
    assert "| net:conv1 | numba | forward | 8 | timed | failed | wrong |" in done.stdout


def test_folders_are_several_runs(tmp_path):
    for day in (1, 2, 3):
        saved(tmp_path / "before" / f"{day}.json", TIMES, day=day)
        saved(tmp_path / "after" / f"{day}.json", TIMES, day=day)
    done = convbench_run(tmp_path, "compare", "before", "after", "--csv", "out.csv")
    assert done.returncode == 0, done.stderr
    assert set(pd.read_csv(tmp_path / "out.csv")["base_runs"]) == {3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.json", "base.json"), "none.json does not exist"),
        (("base.json", "base.json", "--fail-on", "much"), "--fail-on is 'much'; expected per cent"),
        (("base.json", "base.json", "--fail-on", "0%"), "--fail-on is '0%'; expected per cent"),
        (
            ("base.json", "base.json", "--csv", "out.txt"),
            "--csv is 'out.txt'; expected a file whose name ends",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path, base, arguments, message):
    done = convbench_run(tmp_path, "compare", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"convbench: {message}")
    assert len(done.stderr.splitlines()) == 1


def test_two_machines_are_refused(tmp_path, base):
    content = json.loads(base.read_text())
    content["machine_info"] = {"node": "host", "convbench": {"cpu": "Other 1"}}
    (tmp_path / "new.json").write_text(json.dumps(content))
    done = convbench_run(tmp_path, "compare", "base.json", "new.json")
    assert done.returncode == 2
    assert "base has Testor 9000, float32, 2 threads but new has Other 1" in done.stderr


def test_history_of_the_results_folder(tmp_path):
    for day in (1, 2):
        saved(tmp_path / "results" / f"{day}.json", TIMES | {"tiled": 0.01 / day}, day=day)
    done = convbench_run(tmp_path, "history")
    assert done.returncode == 0, done.stderr
    assert "Testor 9000, float32, 2 threads: 2 runs, 2025-03-01 to 2025-03-02" in done.stdout
    assert "tiled forward net:conv1 batch 8: 10.0 ms to 5.00 ms" in done.stdout
    slug = "testor-9000-float32-2-threads-batch-8"
    names = {path.name for path in (tmp_path / "results" / "history").iterdir()}
    assert names == {f"{slug}.png", f"{slug}.svg", "history.csv"}
    assert len(pd.read_csv(tmp_path / "results" / "history" / "history.csv")) == 30


def test_history_of_nothing(tmp_path):
    done = convbench_run(tmp_path, "history")
    assert done.returncode == 2
    assert "no results in results/" in done.stderr
