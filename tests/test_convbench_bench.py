"""Runs that are broken off, in processes of their own: what is kept, and how they go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from cli import ROOT, environment

import reports

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")

DEADLINE_S = 600
SUITE = 'mb1ic1ih12oc2oh12kh3ph1n"tiny:conv"\nmax_pool2d mb1ic2ih12oh6kh2sh2n"tiny:pool"\n'
PLANTED = """\
import os, signal, sys, time, types
from dataclasses import replace
from pathlib import Path
from kernels import im2col, registry

def plant(name, **changes):
    module = sys.modules[f"{name}_backend"] = types.ModuleType(f"{name}_backend")
    module.__dict__.update({each: getattr(im2col, each) for each in dir(im2col)} | changes)
    registry._BACKENDS[name] = replace(registry._BACKENDS["im2col"], name=name, module=f"{name}_backend")

def fault(*arrays):
    os.kill(os.getpid(), signal.SIGSEGV)
def leave(*arrays):
    os._exit(7)
def run_out(*arrays):
    raise MemoryError
def leave_python(*arrays):
    sys.exit("enough")
def wait(*arrays):
    while Path("wait").exists():
        time.sleep(0.02)
    im2col.conv_dx(*arrays)

plant("faulty", conv_dx=fault)
plant("leaving", conv_forward=leave)
plant("greedy", conv_dw=run_out, max_pool_dx=leave_python)
plant("waiting", conv_dx=wait)
"""
TOLD = "import planted, convbench\nconvbench.main()\n"
WAITING = ("--suite", "tiny.txt", "--batch-sizes", "1,2", "--backends", "im2col,waiting")
BENCH = (sys.executable, "told.py", "bench", "--timeout", "1000")
PYTEST = (
    sys.executable,
    "-m",
    "pytest",
    str(ROOT / "benchmarks"),
    "-p",
    "no:cacheprovider",
    "--benchmark-only",
)
WAITS = ("tiny:conv", "dx", 1, "waiting")
"""The case in the middle of whose run `start_waiting` leaves off."""


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a suite, and with backends that do what none should."""
    (tmp_path / "tiny.txt").write_text(SUITE)
    (tmp_path / "planted.py").write_text(PLANTED)
    (tmp_path / "told.py").write_text(TOLD)
    return tmp_path


def start(folder: Path, *command: str) -> subprocess.Popen[str]:
    """`command` in `folder`, in a process group of its own."""
    paths = os.pathsep.join([str(folder), environment()["PYTHONPATH"]])
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**environment(), "PYTHONPATH": paths, "PYTEST_PLUGINS": "planted"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return ended(start(folder, *command))


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """What came of a process that ends by itself; one that does not is ended with all of its group."""
    try:
        said, errors = process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        kill(process)
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, said, errors)


def kill(process: subprocess.Popen[str]) -> None:
    """End a process, and those that it started, as nothing could keep them from; none is left then."""
    started = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    _, left = psutil.wait_procs(started, timeout=DEADLINE_S)
    assert not left


def start_waiting(folder: Path, *command: str) -> subprocess.Popen[str]:
    """`command`, which has come to a case that does not end while there is a file `wait`."""
    (folder / "wait").touch()
    process = start(folder, *command, *WAITING)
    deadline = time.monotonic() + DEADLINE_S
    while not any(under_way(path) == WAITS for path in folder.glob("results/*.partial")):
        assert process.poll() is None, process.communicate()
        if time.monotonic() > deadline:
            kill(process)
            pytest.fail(f"{WAITS} did not begin")
        time.sleep(0.05)
    return process


def lines(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text().splitlines(keepends=True) if line.endswith("\n")]


def under_way(journal: Path) -> tuple[str, str, int, str] | None:
    last = (lines(journal) or [{}])[-1]
    return case(last["start"]) if "start" in last else None


def case(outcome: dict[str, Any]) -> tuple[str, str, int, str]:
    facts = outcome.get("extra_info", outcome)
    return facts["layer"], facts["op"], facts["batch"], facts["backend"]


def timed(journal: Path) -> list[dict[str, Any]]:
    return [line["timed"] for line in lines(journal) if "timed" in line]


def only(folder: Path, pattern: str) -> Path:
    (path,) = (folder / "results").glob(pattern)
    return path


def saved(folder: Path) -> dict[str, Any]:
    return json.loads(only(folder, "*.json").read_text())


def cases(document: dict[str, Any]) -> list[tuple[str, str, int, str]]:
    own = document["convbench"]
    return [case(each) for each in (*document["benchmarks"], *own["skipped"], *own["failed"])]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[tuple[str, str, int, str]]:
    """The cases of a run without a break, in their order."""
    folder = tmp_path_factory.mktemp("whole")
    for name, content in (("tiny.txt", SUITE), ("planted.py", PLANTED), ("told.py", TOLD)):
        (folder / name).write_text(content)
    done = run(folder, *BENCH, *WAITING)
    assert done.returncode == 0, done.stdout + done.stderr
    document = saved(folder)
    assert document["convbench"]["resumed"] == []
    assert document["convbench"]["cases"] == len(cases(document)) == (3 + 2) * 2 * 2
    assert not list((folder / "results").glob("*.partial"))
    return [case(each) for each in document["benchmarks"]]


@pytest.mark.parametrize(("command", "words"), [(BENCH, ()), (PYTEST, ("--benchmark-quiet",))])
def test_after_kill_the_rest_is_run_and_nothing_twice(folder, whole, command, words):
    process = start_waiting(folder, *command)
    kill(process)
    journal = only(folder, "*.partial")
    kept = timed(journal)
    assert kept
    assert not list((folder / "results").glob("*.json"))
    (folder / "wait").unlink()
    with journal.open("a") as file:
        file.write('{"at_s": 9.9, "timed": {"extra')  # killed while it wrote

    done = run(folder, *command, *words, "--resume")

    assert done.returncode == 1, done.stdout + done.stderr
    document = saved(folder)
    assert document["benchmarks"][: len(kept)] == kept
    (failed,) = document["convbench"]["failed"]
    assert case(failed) == WAITS
    assert failed["reason"] == "the process ended while this case ran: it crashed, or was killed"
    assert [case(each) for each in document["benchmarks"]] == [each for each in whole if each != WAITS]
    assert len(document["convbench"]["resumed"]) == 1
    frame = reports.load(only(folder, "*.json"))
    assert list(frame["status"]).count("failed") == 1
    assert len(frame) == len(whole)
    assert not list((folder / "results").glob("*.partial"))


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(folder, whole):
    process = start_waiting(folder, *BENCH)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all
    stopped = ended(process)
    assert (stopped.returncode, stopped.stderr) == (130, ""), stopped.stdout
    journal = only(folder, "*.partial")
    kept, place = timed(journal), journal.relative_to(folder)
    assert (
        f"{len(kept)} of {len(whole)} cases are finished; `convbench bench --resume {place}` goes on"
        in stopped.stdout
    )
    assert stopped.stdout.splitlines()[-1] == "report: results/report/index.html"
    document = saved(folder)
    assert document["benchmarks"] == kept
    assert document["convbench"]["failed"] == []
    assert len(reports.load(only(folder, "*.json"))) == len(kept) < len(whole)
    (folder / "wait").unlink()

    done = run(folder, *BENCH, "--resume", str(place))

    assert done.returncode == 0, done.stdout + done.stderr
    document = saved(folder)
    assert document["benchmarks"][: len(kept)] == kept
    assert [case(each) for each in document["benchmarks"]] == whole
    assert not journal.exists()


def test_ctrl_c_before_the_first_case_leaves_nothing(folder):
    process = start(folder, *BENCH, *WAITING)
    while not list(folder.glob("results/*.partial")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    stopped = ended(process)
    assert (stopped.returncode, stopped.stderr) == (130, "")
    assert stopped.stdout.splitlines()[-1] == "no case was finished: nothing is kept"
    assert not list((folder / "results").iterdir())


def test_a_second_ctrl_c_does_not_wait_and_loses_no_case(folder, whole):
    """A call that does not come back, as in compiled code, keeps the first from having an effect."""
    deaf = PLANTED.replace("time.sleep", "signal.signal(signal.SIGTERM, signal.SIG_IGN), time.sleep")
    (folder / "planted.py").write_text(deaf)
    process = start_waiting(folder, *BENCH)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    stopped = ended(process)
    assert stopped.returncode == 130
    assert f"{len(timed(only(folder, '*.partial')))} of {len(whole)} cases are finished" in stopped.stdout
    assert "end" in lines(only(folder, "*.partial"))[-1]


def test_a_crash_costs_its_case_alone(folder):
    backends = "im2col,faulty,leaving,greedy"
    done = run(folder, *BENCH, "--suite", "tiny.txt", "--batch-sizes", "1", "--backends", backends)
    assert done.returncode == 1, done.stdout + done.stderr
    own = saved(folder)["convbench"]
    assert {case(each): each["reason"] for each in own["failed"]} == {
        ("tiny:conv", "forward", 1, "leaving"): "the process ended with exit code 7",
        ("tiny:conv", "dx", 1, "faulty"): "the process was killed by signal SIGSEGV (segmentation fault)",
        ("tiny:conv", "dw", 1, "greedy"): "MemoryError",
        ("tiny:pool", "dx", 1, "greedy"): "SystemExit: enough",
    }
    assert len(saved(folder)["benchmarks"]) == (3 + 2) * 4 - 4
    assert len(own["resumed"]) == 2
    assert "tiny:conv dx batch 1, faulty, failed: the process was killed by signal SIGSEGV" in done.stdout
    assert "16 cases timed, 0 skipped, 4 failed" in done.stdout
    assert not list((folder / "results").glob("*.partial"))


def test_after_a_crash_pytest_itself_can_go_on(folder):
    words = ("--suite=tiny.txt", "--batch-sizes=1", "--ops=forward,dx", "--backends=im2col,faulty")
    crashed = run(folder, *PYTEST, *words)
    assert crashed.returncode == -signal.SIGSEGV
    done = run(folder, *PYTEST, "--resume")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "failed before: tiny:conv dx batch 1, faulty: the process ended while this case ran" in done.stdout
    assert f"results: results/{only(folder, '*.json').name}" in done.stdout
    assert len(saved(folder)["benchmarks"]) == 7


def test_a_case_that_hangs_is_ended(folder):
    (folder / "wait").touch()
    words = ("--suite", "tiny.txt", "--batch-sizes", "1", "--ops", "dx", "--timeout", "15")
    done = run(folder, *BENCH, *words, "--backends", "im2col,waiting")
    assert done.returncode == 1, done.stdout + done.stderr
    (failed,) = saved(folder)["convbench"]["failed"]
    assert case(failed) == WAITS
    assert failed["reason"] == "took longer than 15 s (--timeout), and was ended"
    assert len(saved(folder)["benchmarks"]) == 3


def test_what_cannot_be_resumed_is_one_line(folder):
    none = run(folder, *BENCH, "--resume")
    assert (none.returncode, none.stdout) == (2, "")
    assert none.stderr == (
        "convbench: no unfinished run in results/; expected one that was stopped, or no --resume\n"
    )
    process = start_waiting(folder, *BENCH)
    name = f"results/{only(folder, '*.partial').name}"
    busy = run(folder, *BENCH, "--resume", name)
    kill(process)
    assert busy.returncode == 2
    assert busy.stderr.startswith(f"convbench: {name} is being written by process ")
    before = only(folder, "*.partial").read_bytes()
    for command, status in ((BENCH, 2), (PYTEST, pytest.ExitCode.USAGE_ERROR)):
        other = run(folder, *command, "--resume", name, "--batch-sizes", "1,8")
        assert other.returncode == status
        message = (
            f"--batch-sizes is 1,8, but {name} was begun with 1,2; expected the same, or no --batch-sizes"
        )
        assert message in other.stderr
        assert other.stderr.count("\n") <= 2
    assert only(folder, "*.partial").read_bytes() == before


def test_unfinished_runs_are_mentioned(folder):
    process = start_waiting(folder, *BENCH)
    kill(process)
    name = only(folder, "*.partial").name
    words = ("--suite", "tiny.txt", "--batch-sizes", "1", "--ops", "forward", "--backends", "im2col")
    done = run(folder, *BENCH, *words, "--baseline", "im2col")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"unfinished: results/{name}; `convbench bench --resume FILE` goes on with one" in done.stdout
    assert only(folder, "*.partial").name == name
