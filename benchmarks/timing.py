"""The life of one case: forecast, compile, check, memory, and only then its time."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.run import Case, Run, problem_of
from kernels.fingerprint import fingerprint
from kernels.measure import rounds_for, warm_up_rounds_for


def time_case(case: Case, run: Run, benchmark: Any) -> None:
    """Check `case` and time it with pytest-benchmark's fixture; skip or fail it visibly.

    Each outcome is in the run's journal when this returns.
    """
    run.start(case)
    try:
        _time(case, run, benchmark)
    except (Exception, SystemExit) as error:
        run.fail(case, f"{type(error).__name__}: {error}".removesuffix(": "))
        raise
    except KeyboardInterrupt:
        benchmark.skipped = True  # else pytest-benchmark warns that nothing was timed
        raise


def _time(case: Case, run: Run, benchmark: Any) -> None:
    reason = run.reason_to_skip(case)
    if reason:
        # As a smoke test, only that much is said, so that pytest shows the cases in one line.
        pytest.skip(f"{case.backend}: {reason if benchmark.enabled else 'slow'}")
    first_calls = run.forecaster.first_calls
    problem = problem_of(case.layer, case.op, case.dtype)
    call_s, results = first_calls.run(problem, case.backend)
    verdict = problem.judge(case.backend, results)
    if verdict.wrong:
        run.fail(case, verdict.wrong)
        pytest.fail(f"{case.id}: {verdict.wrong}", pytrace=False)
    del results
    benchmark.group = case.group
    benchmark.extra_info = {
        **case.facts(run.options.threads),
        "attainable_s": run.ceiling and run.ceiling.attainable_s(case.layer),
        "peak_bytes": run.memory.peak_bytes(problem, case.backend, call_s),
        "error": verdict.error,
        "fingerprint": fingerprint(case.backend),
        "compile_s": first_calls.take_s(case.backend),
        "probe_s": run.probe and run.probe.recent_s(),
    }
    benchmark.pedantic(
        problem.run,
        args=(case.backend,),
        rounds=rounds_for(call_s),
        warmup_rounds=warm_up_rounds_for(call_s),
    )
    if benchmark.enabled:
        run.forecaster.record(case.layer, case.op, case.backend, case.dtype, benchmark.stats.stats.median)
        run.keep(benchmark.stats.as_dict(include_data=run.keeps_data))
