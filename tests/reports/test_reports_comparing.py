"""Two runs of known ratios, and simulated noise: what is called a regression, and what is not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from reports.comparing import compare
from reports.comparing_text import show
from reports.drift import disturbed, find_drift
from reports.loading import Results, load_results
from reports.noise import fit_noise
from reports.wording import times

BACKENDS = ("im2col", "numba", "tiled")
LAYERS = tuple(f"net:conv{number}" for number in range(6))
TIMES = ["min_s", "q1_s", "median_s", "q3_s", "max_s", "mean_s", "iqr_s"]
STEADY = tuple((3.0 * number, 1e-4 * (1 + 0.01 * (-1) ** number)) for number in range(10))


@pytest.fixture
def results(make, save):
    """Thirty-six cases (six layers, two ops, three backends), quiet, with ten probes."""
    benchmarks = [
        make.timed(layer, backend, 8, 0.01 * (1 + number), op=op, noise=0.01)
        for number, layer in enumerate(LAYERS)
        for op in ("forward", "dw")
        for backend in BACKENDS
    ]
    found = load_results(save("run.json", make.document(benchmarks)))
    return Results(found.frame, (replace(found.runs[0], probes=STEADY),))


def scaled(results, factors, probe=1.0):
    """The same run with its times multiplied, and its probes."""
    frame = results.frame.copy()
    frame[TIMES] = frame[TIMES].mul(np.broadcast_to(factors, len(frame)), axis=0)
    probes = tuple((at_s, seconds * probe) for at_s, seconds in results.runs[0].probes)
    return Results(frame, (replace(results.runs[0], probes=probes),))


def factor(results, value, **columns):
    """`value` for the rows with these values in their columns, 1 for the others."""
    chosen = np.logical_and.reduce([results.frame[name] == wanted for name, wanted in columns.items()])
    return np.where(chosen, value, 1.0)


def row(frame, **columns):
    (found,) = frame[
        np.logical_and.reduce([frame[name] == wanted for name, wanted in columns.items()])
    ].itertuples()
    return found


def test_a_run_is_no_slower_than_itself(results):
    (comparison,) = compare(results, results)
    assert not comparison.regressed
    assert comparison.cases["ratio"].tolist() == pytest.approx([1.0] * 36)
    assert set(comparison.cases["verdict"]) | set(comparison.groups["verdict"]) == {"no change seen"}
    assert (comparison.notes, comparison.unsteady, comparison.drift.source) == ((), (), "cases")
    assert comparison.unpaired.empty


def test_one_backend_slower_by_fifteen_per_cent(results):
    (comparison,) = compare(results, scaled(results, factor(results, 1.15, backend="numba")))
    assert comparison.regressed
    groups, cases = comparison.slower
    assert groups[["backend", "op"]].to_numpy().tolist() == [
        ["numba", ""], ["numba", "forward"], ["numba", "dw"]
    ]  # fmt: skip
    assert groups["ratio"].tolist() == pytest.approx([1.15] * 3)
    assert (groups["low"] > 1.05).all()
    assert (groups["high"] < 1.26).all()
    assert set(cases["backend"]) <= {"numba"}
    assert row(comparison.groups, backend="tiled", op="").ratio == pytest.approx(1.0)
    assert row(comparison.groups, backend="numba", op="")[3:5] == (12, 6)


def test_the_interval_is_that_of_the_formula(results):
    """All ratios alike: the floors and the probe are left, 1 % a case, 2 % a backend; 6 layers, 2 ops."""
    comparison = compare(results, results)[0]
    own = row(comparison.groups, backend="tiled", op="")
    case_error = np.hypot(0.01, comparison.cases["error"].iloc[0])
    freedom = comparison.noise.freedom
    group_error = case_error / np.sqrt(12 * (freedom + 1) / (freedom + 3))
    drift_error = np.sqrt(np.pi / 2) * np.hypot(group_error, 0.02) / np.sqrt(3)
    error = np.sqrt(group_error**2 + drift_error**2 + 0.02**2)
    assert np.log(own.high) == pytest.approx(stats.t.ppf(0.975, 6 * 2 - 1) * error)
    assert np.log(own.low) == pytest.approx(-np.log(own.high))
    assert own.limits == pytest.approx(own.high - 1)


def test_a_slowdown_within_the_limit_is_no_regression(results):
    slower = scaled(results, factor(results, 1.15, backend="numba"))
    assert compare(results, slower, fail_on=0.2)[0].regressed is False
    assert (
        row(compare(results, slower, fail_on=0.2)[0].groups, backend="numba", op="").verdict
        == "a little slower"
    )


def test_a_backend_that_became_faster(results):
    (comparison,) = compare(results, scaled(results, factor(results, 0.8, backend="tiled")))
    assert not comparison.regressed
    assert row(comparison.groups, backend="tiled", op="").verdict == "faster"


def test_one_op_of_one_backend(results):
    (comparison,) = compare(results, scaled(results, factor(results, 1.3, backend="tiled", op="dw")))
    assert row(comparison.groups, backend="tiled", op="dw").verdict == "slower"
    assert row(comparison.groups, backend="tiled", op="dw").ratio == pytest.approx(1.3, rel=0.01)
    assert row(comparison.groups, backend="tiled", op="forward").verdict == "no change seen"
    assert set(comparison.slower[0]["backend"]) == {"tiled"}


CASE = {"backend": "tiled", "op": "dw", "layer": "net:conv3"}


def test_a_single_case_has_to_be_far_off_in_single_runs(results):
    assert not compare(results, scaled(results, factor(results, 1.5, **CASE)))[0].regressed
    groups, cases = compare(results, scaled(results, factor(results, 10.0, **CASE)))[0].slower
    assert groups.empty
    assert cases[list(CASE)].to_numpy().tolist() == [list(CASE.values())]
    assert cases["ratio"].tolist() == pytest.approx([10.0])


def test_a_single_case_is_told_by_three_runs(results):
    base, slower = several(*[results] * 3), several(*[scaled(results, factor(results, 2.0, **CASE))] * 3)
    assert compare(base, slower)[0].slower[1][list(CASE)].to_numpy().tolist() == [list(CASE.values())]


def test_the_machine_is_taken_off(results):
    (comparison,) = compare(results, scaled(results, 1.2, probe=1.2))
    assert not comparison.regressed
    assert np.exp(comparison.drift.log) == pytest.approx(1.2)
    assert np.exp(comparison.drift.probe.log) == pytest.approx(1.2)
    assert comparison.cases["ratio"].tolist() == pytest.approx([1.0] * 36)


def test_all_slower_while_the_probe_is_not(results):
    (comparison,) = compare(results, scaled(results, 1.3))
    assert comparison.drift.source == "probe"
    assert comparison.regressed
    assert set(comparison.slower[0]["backend"]) == set(BACKENDS)


@pytest.mark.parametrize(("scatter", "source"), [(0.05, "probe"), (0.3, "cases")])
def test_what_scatters_may_feel_more_than_the_probe(results, scatter, source):
    """Bursts that take two threads take less from the probe, which has one."""
    logs = np.log(1.25) + np.random.default_rng(0).normal(0, scatter, 300)
    pairs = pd.DataFrame({"backend": [*"abcde"] * 60, "layer": "x", "op": "dx", "log": logs, "error": 0.005})
    runs = [(replace(results.runs[0], probes=tuple((at_s, seconds * each) for at_s, seconds in STEADY)),)
            for each in (1.0, 1.05)]  # fmt: skip
    drift = find_drift(pairs, *runs, fit_noise(logs - np.median(logs)))
    assert drift.source == source
    assert np.exp(drift.log) == pytest.approx(1.25 if source == "cases" else 1.025, rel=0.02)


def alone(results, probes=STEADY):
    """One backend, of which the others cannot tell the machine."""
    return Results(
        results.frame[results.frame["backend"] == "numba"], (replace(results.runs[0], probes=probes),)
    )


def test_of_one_backend_the_probe_tells(results):
    base = alone(results)
    assert compare(base, base)[0].drift.source == "probe"
    assert compare(base, scaled(base, 1.3))[0].regressed
    assert not compare(base, scaled(base, 1.15, probe=1.2))[0].regressed


def test_of_one_backend_without_a_probe_only_much_is_told(results):
    base = alone(results, ())
    assert compare(base, base)[0].drift.source == "unknown"
    assert not compare(base, scaled(base, 1.3))[0].regressed
    assert compare(base, scaled(base, 3.0))[0].regressed


def test_a_machine_of_another_speed_gets_no_verdict(results):
    slower = scaled(results, 2.0 * factor(results, 1.5, backend="numba"), probe=2.0)
    (comparison,) = compare(results, slower)
    assert comparison.unsteady == (f"the machine was {times(2)} as slow during new",)
    assert not comparison.regressed


def bursts(results):
    """The run with a third of its probes ten times as slow."""
    run = results.runs[0]
    probes = tuple(
        (at_s, seconds * (10 if number % 3 == 0 else 1)) for number, (at_s, seconds) in enumerate(run.probes)
    )
    return Results(results.frame, (replace(run, probes=probes),))


def test_a_disturbed_machine_gets_no_verdict(results):
    slower = bursts(scaled(results, factor(results, 1.5, backend="numba")))
    assert disturbed(slower.runs[0])
    assert not disturbed(results.runs[0])
    (comparison,) = compare(results, slower)
    assert comparison.unsteady == ("something else had the machine at times during new",)
    assert not comparison.regressed


def several(*sides):
    """Results of several runs, with names of their own."""
    frames = [side.frame.assign(run=str(number)) for number, side in enumerate(sides)]
    runs = tuple(replace(side.runs[0], name=str(number)) for number, side in enumerate(sides))
    return Results(pd.concat(frames, ignore_index=True), runs)


def test_disturbed_runs_are_left_out_where_there_are_others(results):
    base = several(results, bursts(scaled(results, 3.0)), scaled(results, 1.02))
    (comparison,) = compare(base, results)
    assert comparison.notes == ("1 run of base left out: the machine was disturbed",)
    assert set(comparison.cases["base_runs"]) == {2}
    assert comparison.unsteady == ()


def test_several_runs_are_their_median(results):
    base = several(*(scaled(results, drift) for drift in (1.0, 1.1, 0.9)))
    (comparison,) = compare(base, scaled(results, factor(results, 1.2, backend="numba")))
    assert comparison.cases["base_s"].tolist() == pytest.approx(results.frame["median_s"].tolist())
    assert comparison.cases["base_runs"].tolist() == [3] * 36
    assert set(comparison.slower[0]["backend"]) == {"numba"}


def simulated(results, seed, planted=1.0):
    """Another run of the same code: drift, which the probe feels, too, each backend's share, heavy tails."""
    rng = np.random.default_rng(seed)
    drift = rng.normal(0, 0.05)
    shares = dict(zip(BACKENDS, rng.normal(0, 0.01, len(BACKENDS)), strict=True))
    tails = stats.t.rvs(2.0, scale=0.03, size=len(results.frame), random_state=rng)
    logs = drift + results.frame["backend"].map(shares) + tails
    probed = Results(results.frame, (replace(results.runs[0], probes=tuple(
        (at_s, seconds * float(np.exp(rng.normal(0, 0.03)))) for at_s, seconds in STEADY)),))  # fmt: skip
    return scaled(probed, np.exp(logs) * factor(results, planted, backend="tiled"), float(np.exp(drift)))


def regressions(results, count):
    """How many pairs of runs of the same code are called a regression."""
    return sum(
        compare(simulated(results, seed), simulated(results, 1000 + seed))[0].regressed
        for seed in range(count)
    )


def test_noise_alone_is_hardly_ever_a_regression(results):
    assert regressions(results, 30) <= 2


@pytest.mark.long
def test_noise_alone_is_hardly_ever_a_regression_in_many_pairs(results):
    assert regressions(results, 200) <= 10


def test_a_planted_slowdown_is_nearly_always_found(results):
    found = [compare(simulated(results, seed), simulated(results, 1000 + seed, 1.3))[0] for seed in range(20)]
    assert sum("tiled" in set(each.slower[0]["backend"]) for each in found) >= 18


def test_fifteen_per_cent_are_found_with_several_runs(results):
    found = 0
    for seed in range(10):
        base = several(*(simulated(results, 100 * seed + run) for run in range(5)))
        new = several(*(simulated(results, 100 * seed + 50 + run, 1.15) for run in range(5)))
        found += "tiled" in set(compare(base, new)[0].slower[0]["backend"])
    assert found >= 8


def test_cases_of_one_side_and_failures(make, save):
    def saved(name, timed, skipped=(), failed=()):
        return load_results(save(name, make.document(
            [make.timed(layer, "numba", 8, 0.01) for layer in timed],
            [make.untimed(layer, "numba", 8, 2.0, "slow") for layer in skipped],
            [make.untimed(layer, "numba", 8, reason="wrong") for layer in failed],
        )))  # fmt: skip

    base = saved("base.json", ["a", "b", "gone"], failed=["ever"])
    new = saved("new.json", ["a", "extra"], skipped=["slow"], failed=["b", "ever"])
    (comparison,) = compare(base, new)
    assert comparison.cases["layer"].tolist() == ["a"]
    states = comparison.unpaired.set_index("layer")[["base_status", "new_status"]].T.to_dict("list")
    assert states == {
        "b": ["timed", "failed"], "gone": ["timed", "missing"], "ever": ["failed", "failed"],
        "extra": ["missing", "timed"], "slow": ["missing", "skipped"],
    }  # fmt: skip
    assert comparison.failing["layer"].tolist() == ["b"]
    assert comparison.failing["new_reason"].tolist() == ["wrong"]
    assert comparison.regressed


@pytest.mark.parametrize(("column", "value", "words"), [
    ("machine", "Other 1", "base has Testor 9000, float32, 2 threads but new has Other 1, float32, 2"),
    ("dtype", "float64", "new has Testor 9000, float64, 2 threads"),
    ("threads", 1, "new has Testor 9000, float32, 1 thread:"),
])  # fmt: skip
def test_two_settings_are_never_compared(results, column, value, words):
    other = Results(results.frame.assign(**{column: value}), results.runs)
    with pytest.raises(ValueError, match="expected both to have a machine") as caught:
        compare(results, other)
    assert words in str(caught.value)


def test_of_several_settings_the_common_ones_are_compared(results):
    both = pd.concat([results.frame, results.frame.assign(machine="Other 1")], ignore_index=True)
    (comparison,) = compare(Results(both, results.runs), results)
    assert comparison.setting.machine == "Testor 9000"
    assert comparison.notes == ("only base has Other 1, float32, 2 threads",)


def test_runs_without_a_common_case_are_refused(results):
    first, last = (
        Results(results.frame[results.frame["layer"] == layer], results.runs)
        for layer in (LAYERS[0], LAYERS[-1])
    )
    with pytest.raises(ValueError, match="no case in common"):
        compare(first, last)


@pytest.mark.parametrize("limit", [0.0, -0.1, float("nan")])
def test_a_limit_of_nothing_is_refused(results, limit):
    with pytest.raises(ValueError, match=r"fail_on is .*; expected a share of more than 0"):
        compare(results, results, limit)


def test_other_libraries_are_noted_and_another_blas_is_no_yardstick(results):
    facts = results.runs[0].facts
    blas = [{**facts["blas"][0], "version": "0.3.31"}]
    other = replace(results.runs[0], facts={**facts, "versions": {"numpy": "2.5.0"}, "blas": blas})
    (comparison,) = compare(results, Results(results.frame, (other,)))
    assert comparison.notes == (
        "blas is openblas 0.3.30 SkylakeX in base, openblas 0.3.31 SkylakeX in new",
        "versions numpy is 2.4.6 in base, 2.5.0 in new",
        "the probe is left out: BLAS, which it uses, is another one",
    )
    assert comparison.drift.probe is None


def test_foreign_benchmarks_are_compared(make, save):
    def saved(name, change):
        benchmarks = [make.timed("", "", 8, 0.01 * (1 + number), noise=0.01) for number in range(12)]
        for number, benchmark in enumerate(benchmarks):
            benchmark |= {"extra_info": {}, "fullname": f"test_x.py::test_{number}", "params": None}
        for key in ("median", "q1", "q3"):
            benchmarks[3]["stats"][key] *= change
        return load_results(save(name, make.document(benchmarks)), foreign=True)

    (comparison,) = compare(saved("base.json", 1.0), saved("new.json", 10.0))
    assert comparison.drift.source == "cases"
    assert comparison.slower[0].empty
    assert comparison.slower[1]["layer"].tolist() == ["test_x.py::test_3"]


def test_drift_needs_two_probes_on_each_side(results):
    single = (replace(results.runs[0], probes=STEADY[:1]),)
    cases = compare(results, results)[0].cases
    assert find_drift(cases, single, results.runs, fit_noise(np.zeros(36))).probe is None


def test_in_a_terminal_brackets_of_names_stay(results, capsys):
    named = Results(results.frame.assign(layer=results.frame["layer"] + "[a-1]"), results.runs)
    show(Console(width=200), compare(named, named))
    assert "net:conv3[a-1]" in capsys.readouterr().out
