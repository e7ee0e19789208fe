"""The benchmark run as pytest sees it: options, cases, and what goes into the saved file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from benchmarks import environment

environment.prepare()  # before NumPy, which all of these import

from benchmarks import resume
from benchmarks.doctor import in_brief
from benchmarks.journal import Journal
from benchmarks.options import BATCH_SIZES, BUDGET_S, Options
from benchmarks.recording import Recording
from benchmarks.run import Run, cases
from kernels.machine import lesser_blas, load, machine_facts
from kernels.threads import pinned_threads

RUN = pytest.StashKey[Run]()
RESULTS = Path("results")
SMOKE_BATCH_SIZES = "2"
SMOKE_BUDGET_S = 0.1
"""Without --benchmark-only the benchmarks are a quick test: one batch size, and nothing slow."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("convbench", "convbench: what to time")
    group.addoption(
        "--suite",
        action="append",
        default=[],
        metavar="NAME|FILE",
        help="suite of layers; may be given several times (default: default)",
    )
    group.addoption("--backends", metavar="A,B", help="backends to time (default: all that are installed)")
    group.addoption(
        "--batch-sizes",
        metavar="N,N",
        help=f"images a call (default: {','.join(map(str, BATCH_SIZES))})",
    )
    group.addoption("--ops", metavar="OP,OP", help="forward, dx, dw, or backward for both (default: all)")
    group.addoption("--dtype", help="float32 (default) or float64")
    group.addoption("--threads", type=int, metavar="N", help="for BLAS and Numba alike (default: all cores)")
    group.addoption(
        "--budget",
        type=float,
        metavar="SECONDS",
        help=f"skip cases predicted to take longer than this (default: {BUDGET_S})",
    )
    group.addoption(
        "--resume",
        nargs="?",
        const="",
        metavar="FILE",
        help="go on with an unfinished run, with its options: the newest, or --resume=results/....partial",
    )


def pytest_configure(config: pytest.Config) -> None:
    option = config.option
    if not option.benchmark_only:
        option.batch_sizes = option.batch_sizes or SMOKE_BATCH_SIZES
        option.budget = SMOKE_BUDGET_S if option.budget is None else option.budget
    if not (option.benchmark_only or option.benchmark_enable):
        option.benchmark_disable = True
    try:
        config.stash[RUN] = _read_run(option)
    except (ValueError, TypeError) as error:
        raise pytest.UsageError(str(error)) from None
    option.benchmark_disable_gc = True
    if option.benchmark_only and option.benchmark_storage == "file://./.benchmarks":  # the default
        option.benchmark_storage = f"file://./{RESULTS}"
    if option.benchmark_only:
        config.pluginmanager.register(Recording(config, config.stash[RUN]))


def _read_run(option: argparse.Namespace) -> Run:
    """The run that is asked for: a new one, or one to go on with. Raises ValueError."""
    asked = {
        "suites": option.suite,
        "backends": option.backends,
        "batch_sizes": option.batch_sizes,
        "ops": option.ops,
        "dtype": option.dtype,
        "threads": option.threads,
        "budget_s": option.budget,
    }
    saved_elsewhere = option.benchmark_json or option.benchmark_save or option.benchmark_autosave
    journalled = option.benchmark_only and not saved_elsewhere
    if option.resume is None:
        options = Options.read(**asked)
        options.layers()
        journal = Journal(resume.new_path(RESULTS) if journalled else None)
    elif journalled:
        journal = resume.find(option.resume, RESULTS)
        options = resume.options_of(journal, asked)
    else:
        raise ValueError("--resume goes with --benchmark-only, and saves where the run was begun")
    return Run(options, journal=journal, keeps_data=option.benchmark_save_data)


def pytest_report_header(config: pytest.Config) -> str | None:
    if config.option.benchmark_only:
        return in_brief(config.stash[RUN].findings)
    return lesser_blas()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        kinds = metafunc.module.KINDS
        chosen = [case for case in cases(metafunc.config.stash[RUN].options) if case.layer.kind in kinds]
        metafunc.parametrize("case", chosen, ids=[case.id for case in chosen])


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config) -> Iterator[Run]:
    run = pytestconfig.stash[RUN]
    with pinned_threads(run.options.threads):
        if not pytestconfig.option.benchmark_disable:
            run.examine_machine()
        yield run
        if run.probe:
            run.probe.measure()


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    cpu = machine_info.get("cpu", {})
    machine_info["convbench"] = machine_facts(cpu, config.stash[RUN].options.threads)


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    spreads = [bench["stats"]["iqr"] / bench["stats"]["median"] for bench in output_json["benchmarks"]]
    noise = median(spreads) if spreads else None
    run = config.stash[RUN]
    output_json["convbench"] = {**run.as_dict(), "noise": noise}
    output_json["machine_info"]["convbench"] |= {
        "ceiling": run.ceiling and run.ceiling.as_dict(),
        "load_end": load(),
    }
    if not config.option.benchmark_save_data:
        for benchmark in output_json["benchmarks"]:
            benchmark["stats"].pop("data", None)
