"""The benchmark run as pytest sees it: options, cases, and what goes into the saved file."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from benchmarks.blas_family import choose_blas_family

choose_blas_family()  # before NumPy, which all of these import

from benchmarks.ceiling import measure_ceiling
from benchmarks.doctor import examine, in_brief
from benchmarks.options import BATCH_SIZES, BUDGET_S, Options
from benchmarks.probe import Probe
from benchmarks.run import Run, cases
from kernels.machine import lesser_blas, load, machine_facts
from kernels.threads import pinned_threads

RUN = pytest.StashKey[Run]()
PARTIAL = pytest.StashKey[Path]()
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


def pytest_configure(config: pytest.Config) -> None:
    option = config.option
    timed = option.benchmark_only
    if not timed:
        option.batch_sizes = option.batch_sizes or SMOKE_BATCH_SIZES
        option.budget = SMOKE_BUDGET_S if option.budget is None else option.budget
    if not (timed or option.benchmark_enable):
        option.benchmark_disable = True
    try:
        options = Options.read(
            suites=option.suite,
            backends=option.backends,
            batch_sizes=option.batch_sizes,
            ops=option.ops,
            dtype=option.dtype,
            threads=option.threads,
            budget_s=option.budget,
        )
        options.layers()
    except (ValueError, TypeError) as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[RUN] = Run(options)
    option.benchmark_disable_gc = True
    if timed and option.benchmark_storage == "file://./.benchmarks":  # pytest-benchmark's default
        option.benchmark_storage = "file://./results"
    if timed and not (option.benchmark_json or option.benchmark_save or option.benchmark_autosave):
        folder = Path("results")
        folder.mkdir(exist_ok=True)
        # Written under another name and renamed when whole, so that a broken-off run leaves no half file.
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
        config.stash[PARTIAL] = folder / f"{stamp}.json.partial"
        option.benchmark_json = str(config.stash[PARTIAL])


def pytest_report_header(config: pytest.Config) -> str | None:
    if config.option.benchmark_only:
        return in_brief(examine(config.stash[RUN].options.threads))
    return lesser_blas()


def pytest_unconfigure(config: pytest.Config) -> None:
    partial = config.stash.get(PARTIAL, None)
    if partial is not None and partial.exists():
        partial.replace(partial.with_suffix(""))


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
            run.probe = Probe()
            run.probe.measure()
            run.findings = [finding.as_dict() for finding in examine(run.options.threads)]
            run.ceiling = measure_ceiling(run.options.dtype)
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
