"""tune, choices and prove, as their user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli import convbench_run

from kernels import own_backends

SUITE = 'mb1ic1ih8oc2kh3ph1n"tiny:conv"\nmax_pool2d mb1ic2ih8oh4kh2sh2n"tiny:pool"\n'


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> Path:
    """A folder with a suite, and a selection that it was tuned into."""
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "tiny.txt").write_text(SUITE)
    done = convbench_run(
        folder, "tune", "--suite", "tiny.txt", "--batch-sizes", "1,4", "--selection", "s.json"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "10 operations are measured in s.json",
        "`convbench choices tiny.txt` shows what is chosen",
    ]
    return folder


def rows(done) -> list[list[str]]:
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_choices_shows_what_was_measured(tuned):
    head, *table = rows(
        convbench_run(tuned, "choices", "tiny.txt", "--batch-sizes", "4", "--selection", "s.json")
    )
    assert head == [
        "layer",
        "op",
        "batch",
        "choice",
        "why",
        "time",
        "runner-up",
        "margin",
        "P(best)",
        "memory",
        "error",
    ]
    assert [row[:3] for row in table] == [
        ["tiny:conv", "forward", "4"], ["tiny:conv", "dx", "4"], ["tiny:conv", "dw", "4"],
        ["tiny:pool", "forward", "4"], ["tiny:pool", "dx", "4"],
    ]  # fmt: skip
    for row in table:
        assert row[3] in own_backends()
        assert row[4] == "measured"
        assert row[6] in ("us", "ms")
        assert row[8].endswith("x")


def test_choices_explains_every_candidate(tuned):
    table = rows(convbench_run(tuned, "choices", "tiny.txt", "--batch-sizes", "1", "--ops", "dw",
                               "--selection", "s.json", "--explain"))  # fmt: skip
    assert {row[0] for row in table[2:]} == set(own_backends())


def test_another_batch_takes_the_nearest(tuned):
    table = rows(convbench_run(tuned, "choices", "tiny.txt", "--batch-sizes", "9", "--selection", "s.json"))
    assert all(row[4:8] == ["measured", "at", "batch", "4"] for row in table[1:])


def test_choices_are_forced_and_freed_and_cleared(tuned, tmp_path):
    path = tmp_path / "s.json"
    path.write_bytes((tuned / "s.json").read_bytes())
    ask = ("choices", "tiny.txt", "--batch-sizes", "4", "--selection", str(path))
    forced = rows(convbench_run(tuned, *ask, "--force", "conv.dx=window", "--force", "pool=loops"))
    assert [row[3:5] for row in forced[2:3]] == [["window", "forced"]]
    assert [row[3:5] for row in forced[4:]] == [["loops", "forced"]] * 2
    assert rows(convbench_run(tuned, *ask)) == forced
    freed = rows(convbench_run(tuned, *ask, "--unforce"))
    assert {row[4] for row in freed[1:]} == {"measured"}
    cleared = rows(convbench_run(tuned, *ask, "--clear"))
    assert all(row[4:8] == ["measured", "at", "batch", "1"] for row in cleared[1:])
    assert len(json.loads(path.read_text())["entries"]) == 5


def test_a_memory_limit_changes_choices_and_measures_nothing(tuned):
    before = (tuned / "s.json").read_bytes()
    limited = rows(convbench_run(tuned, "choices", "tiny.txt", "--batch-sizes", "4", "--selection", "s.json",
                                 "--memory", "0", "--explain"))  # fmt: skip
    assert any("over" in row for row in limited)
    assert (tuned / "s.json").read_bytes() == before


def test_a_selection_from_benchmark_results(tuned, tmp_path):
    (tmp_path / "tiny.txt").write_text(SUITE)
    done = convbench_run(tmp_path, "bench", "--suite", "tiny.txt", "--batch-sizes", "4")
    assert done.returncode == 0, done.stderr
    (results,) = (tmp_path / "results").glob("*.json")
    done = convbench_run(tmp_path, "tune", "--from", str(results), "--selection", "s.json")
    assert done.stdout == f"5 operations of {results} are in s.json\n", done.stderr
    table = rows(
        convbench_run(tmp_path, "choices", "tiny.txt", "--batch-sizes", "4", "--selection", "s.json")
    )
    assert {row[4] for row in table[1:]} == {"measured"}
    saved = json.loads(results.read_text())
    saved["machine_info"]["convbench"]["identity"]["cpu"] = "other"
    results.write_text(json.dumps(saved))
    done = convbench_run(tmp_path, "tune", "--from", str(results), "--selection", "s.json")
    assert done.returncode == 2
    assert "was measured with cpu 'other' (here:" in done.stderr


def test_prove_and_train_close_the_loop(tuned, tmp_path):
    done = convbench_run(
        tmp_path, "train", "scratch", "--limit", "8", "--batch-size", "2", "--epochs", "1", "--tune",
        "--selection", "s.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["layer", "batch", "choice", "predicted", "realised"] in lines
    assert any(line[:3] == ["scratch:conv1", "2", "backward"] for line in lines)
    assert any(line[:2] == ["scratch", "2"] for line in lines)
    assert "test accuracy" in done.stdout
    again = convbench_run(tmp_path, "prove", "scratch", "--batch-sizes", "2", "--selection", "s.json")
    assert again.returncode == 0, again.stderr
    assert "auto / best" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tune"], "nothing to tune; expected networks, or --suite"),
        (["tune", "nope"], "suite is 'nope'; expected one of default, alexnet"),
        (["tune", "lenet", "--backends", "nope"], "backend is 'nope'; expected one of loops"),
        (["tune", "--from", "none.json"], "none.json holds no results of convbench; expected a file of"),
        (["choices", "lenet", "--force", "conv9=im2col"], "--force is 'conv9=im2col'; expected LAYER[.OP]="),
        (["choices", "lenet", "--force", "conv1=nope"], "backend is 'nope'; expected one of loops"),
        (["prove", "nope"], "model is 'nope'; expected one of mnist3"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, arguments, message):
    done = convbench_run(tmp_path, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith(f"convbench: {message}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_regret_judges_what_was_not_tuned(tmp_path):
    done = convbench_run(tmp_path, "regret", "scratch", "--batch-sizes", "1,2", "--selection", "s.json")
    table = rows(done)
    assert [row[:3] for row in table[1:]] == [
        ["as", "at", "the"],
        ["as", "the", "cost"],
        ["the", "fallback,", "without"],
    ]
    assert "batch 1: " in done.stdout or "batch 2: " in done.stdout
