"""Whole benchmark runs, in a process of their own, on a small suite."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import benchmarks
from benchmarks.blas_family import CORETYPE, MARK, NEEDED
from benchmarks.ceiling import Ceiling

SUITE = """\
mb1ic1ih28oc2oh28kh3ph1n"tiny:conv"
max_pool2d mb1ic2ih28oh14kh2sh2n"tiny:pool"
"""
FACTS = {
    "schema", "suite", "layer", "kind", "op", "backend", "batch", "dtype", "threads", "descriptor", "flops",
    "least_bytes", "im2col_bytes",
}  # fmt: skip
BROKEN = """\
import sys, types
from dataclasses import replace
from kernels import im2col, registry

broken = types.ModuleType("broken_backend")
broken.__dict__.update({name: getattr(im2col, name) for name in dir(im2col)})
def conv_forward(spec, x, w, b, y):
    im2col.conv_forward(spec, x, w, b, y)
    y[0, 0, 0, 0] += 0.01
def conv_dw(spec, dy, x, dw):
    raise RuntimeError("out of luck")
broken.conv_forward, broken.conv_dw = conv_forward, conv_dw
sys.modules["broken_backend"] = broken
backend = replace(registry._BACKENDS["im2col"], name="broken", module="broken_backend")
registry._BACKENDS["broken"] = backend
"""


def pytest_run(
    folder: Path, *arguments: str, change: dict[str, str | None] | None = None
) -> subprocess.CompletedProcess[str]:
    """pytest on the benchmarks in `folder`, in an environment with `change`; None removes."""
    (folder / "tiny.txt").write_text(SUITE)
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(Path(benchmarks.__file__).parent),
        "-p",
        "no:cacheprovider",
    ]
    changed = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), **(change or {})}
    environment = {name: value for name, value in changed.items() if value is not None}
    return subprocess.run(
        [*command, "--suite", "tiny.txt", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def only_result(folder: Path) -> dict[str, Any]:
    (path,) = (folder / "results").iterdir()
    assert path.suffix == ".json"
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("run")
    done = pytest_run(
        folder, "--benchmark-only", "--backends=loops,im2col,numba", "--batch-sizes=1,500", "--budget=1"
    )
    assert done.returncode == 0, done.stdout
    return only_result(folder)


def test_every_case_is_timed_or_skipped(saved):
    cases = [entry["extra_info"] for entry in saved["benchmarks"]] + saved["convbench"]["skipped"]
    keys = [(case["layer"], case["op"], case["batch"], case["backend"]) for case in cases]
    assert len(keys) == len(set(keys)) == (3 + 2) * 2 * 3
    assert saved["convbench"]["failed"] == []


def test_results_carry_what_a_report_needs(saved):
    for entry in saved["benchmarks"]:
        info = entry["extra_info"]
        assert set(info) == FACTS | {
            "peak_bytes", "error", "compile_s", "fingerprint", "attainable_s", "probe_s"
        }  # fmt: skip
        assert 0 <= info["error"] < 1e-5
        assert info["flops"] > 0
        assert (info["compile_s"] is None) == (info["backend"] != "numba")
        assert entry["stats"]["median"] > 0
        assert "data" not in entry["stats"]
        assert entry["group"] == f"{info['layer']} {info['op']} batch {info['batch']}"


def test_probes_are_saved_from_the_start_to_the_end(saved):
    probes = saved["convbench"]["probes"]
    assert len(probes) >= 2
    assert [probe["at_s"] for probe in probes] == sorted(probe["at_s"] for probe in probes)
    assert {entry["extra_info"]["probe_s"] for entry in saved["benchmarks"]} <= {
        probe["seconds"] for probe in probes
    }


def test_the_ceiling_is_saved_and_cases_are_held_against_it(saved):
    found = Ceiling(**saved["machine_info"]["convbench"]["ceiling"])
    assert found.dtype == "float32"
    assert found.threads == saved["convbench"]["options"]["threads"]
    for entry in saved["benchmarks"]:
        info = entry["extra_info"]
        least_s = max(info["flops"] / found.gemm_gflops / 1e9, info["least_bytes"] / found.copy_gbs / 1e9)
        assert info["attainable_s"] == pytest.approx(least_s)


def test_slow_cases_are_skipped_with_their_predicted_time(saved):
    skipped = saved["convbench"]["skipped"]
    assert skipped
    for case in skipped:
        assert set(case) == FACTS | {"predicted_s", "reason"}
        assert case["backend"] == "loops"
        assert case["predicted_s"] > 0.25
        assert case["reason"].startswith("predicted ")


def test_the_machine_and_the_options_are_recorded(saved):
    machine = saved["machine_info"]["convbench"]
    assert machine["threads"] == saved["convbench"]["options"]["threads"] >= 1
    assert {"numpy", "numba", "scipy"} <= set(machine["versions"])
    assert {pool["library"] for pool in machine["blas"]} != set()
    for key in (
        "cpu",
        "cores",
        "isa",
        "caches",
        "memory_bytes",
        "governor",
        "load_start",
        "load_end",
        "numba",
        "coretype",
        "lesser_blas",
    ):
        assert key in machine
    for finding in saved["convbench"]["findings"]:
        assert set(finding) == {"check", "level", "what", "remedy"}
    assert {"noise", "load", "blas"} <= {finding["check"] for finding in saved["convbench"]["findings"]}
    assert saved["convbench"]["options"]["batch_sizes"] == [1, 500]
    assert 0 < saved["convbench"]["noise"] < 10


@pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux", reason="nothing is chosen elsewhere"
)
def test_pytest_chooses_blas_kernels_itself_or_advises(tmp_path):
    """Without `convbench`; where NumPy is loaded too early, only the advice is left."""
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    if not set(flags.split()) >= NEEDED:
        pytest.skip("this CPU has no AVX-512")
    arguments = ("--benchmark-only", "--backends=im2col", "--batch-sizes=1", "--ops=forward")
    free = {CORETYPE: None, MARK: None}
    assert pytest_run(tmp_path, *arguments, change=free).returncode == 0
    chosen = only_result(tmp_path)["machine_info"]["convbench"]
    assert chosen["coretype"] == {"name": "SkylakeX", "set_by": "convbench"}
    late = pytest_run(
        tmp_path, "-p", "numpy", "--collect-only", "--backends=im2col", change=free | {CORETYPE: "Haswell"}
    )
    advised = "OpenBLAS runs its Haswell kernels, but this CPU has AVX-512" in late.stdout
    assert advised == any(pool["library"] == "openblas" for pool in chosen["blas"])


def test_a_wrong_result_gets_no_time(tmp_path):
    (tmp_path / "broken_plugin.py").write_text(BROKEN)
    done = pytest_run(
        tmp_path, "-p", "broken_plugin", "--benchmark-only", "--backends=broken,im2col", "--batch-sizes=1"
    )
    assert done.returncode == 1
    saved = only_result(tmp_path)
    wrong, crashed = saved["convbench"]["failed"]
    assert (wrong["backend"], wrong["op"]) == ("broken", "forward")
    assert "more than rounding explains" in wrong["reason"]
    assert (crashed["backend"], crashed["op"]) == ("broken", "dw")
    assert crashed["reason"] == "RuntimeError: out of luck"
    timed = {(entry["extra_info"]["backend"], entry["extra_info"]["op"]) for entry in saved["benchmarks"]
             if entry["extra_info"]["layer"] == "tiny:conv"}  # fmt: skip
    assert timed == {
        ("broken", "dx"),
        ("im2col", "forward"),
        ("im2col", "dx"),
        ("im2col", "dw"),
    }


def test_without_the_flag_the_same_files_are_a_quick_test(tmp_path):
    done = pytest_run(tmp_path, "-q", "--backends=im2col")
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite=nope"], "suite is 'nope'; expected one of default"),
        (["--backends=nope"], "backend is 'nope'; expected one of loops"),
        (["--batch-sizes=-1"], "--batch-sizes is '-1'; expected positive ints"),
        (["--threads=0"], "--threads is 0; expected 1 to"),
        (["--budget=0"], "--budget is 0.0; expected seconds, more than 0"),
    ],
)
def test_bad_options_are_usage_errors(tmp_path, arguments, message):
    done = pytest_run(tmp_path, "--benchmark-only", *arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()
