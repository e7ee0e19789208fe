"""Two saved runs, or two sets of runs, case by case: what has become slower, and what is noise.

The ratio of a case is its time in new over that in base, so that above 1 new is slower. The machine's drift
is taken off it (`reports.drift`), and what the ratios scatter around their backend's and op's makes the error
of a single case (`reports.noise.fit_noise`). A backend is judged by the geometric mean over its cases, over
all ops and for each op. The tests of backends, those of their ops, and those of cases each keep the rate of
false discoveries. Where the probes tell of a machine that was disturbed, or far slower in one of the runs,
nothing is called a regression.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from reports import tables
from reports.drift import Drift, disturbed, find_drift
from reports.loading import Results, Run
from reports.noise import LEAST_GROUP, LEVEL, Estimate, Noise, adjusted, fit_noise, median_error, typical
from reports.pairing import LEAST_RUNS, pair
from reports.wording import count, listing, times

FAIL_ON = 0.1
MOST_DRIFT = 1.5
"""Of the probe; beyond, some backends slow down by a few per cent and others tenfold."""
FAR = 4.0
"""Times the scale of the noise."""
MOST_FREEDOM = 2.0
"""Of a case's time in few runs, which one burst can spoil: a few dozen cases do not tell how often."""
SLOWER, FASTER, TOO_FEW = "slower", "faster", "too few cases"
_FACTS = ("cores", "memory_bytes", "caches", "python", "versions", "blas", "numba", "coretype")
_YARDSTICK = ("blas", "coretype", "versions numpy")
_IGNORED = ("threads",)
"""What BLAS's facts say of the moment rather than of the library."""


@dataclass(frozen=True)
class Comparison:
    """New against base in one setting (machine, dtype, threads); a ratio above 1 + `fail_on` is a regression.

    `cases` has a row for each case that both have times for: what `reports.pairing.pair` returns, and `ratio`
    with `low` and `high`, without the machine's drift, `p`, adjusted, and `verdict`. `groups` has the same
    for each backend, over all ops (`op` is "") and for each, with `cases`, `layers` and `limits`, by how much
    it would have to change at least to be noticed. `unpaired` holds the other cases, and `failing` those of
    them that fail in new, but did not in base. `notes` says what else differs between the runs, and
    `unsteady` why the machine was too unsteady for a verdict, if it was.
    """

    setting: Any
    fail_on: float
    drift: Drift
    noise: Noise
    cases: pd.DataFrame
    groups: pd.DataFrame
    unpaired: pd.DataFrame
    failing: pd.DataFrame
    notes: tuple[str, ...]
    unsteady: tuple[str, ...]

    @property
    def slower(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The groups, and the cases, that are slower beyond the limit."""
        return (
            self.groups[self.groups["verdict"] == SLOWER],
            self.cases[self.cases["verdict"] == SLOWER],
        )

    @property
    def regressed(self) -> bool:
        """Whether anything newly fails or, on a steady machine, is slower beyond the limit."""
        return bool(len(self.failing)) or (not self.unsteady and any(len(rows) for rows in self.slower))


def compare(base: Results, new: Results, fail_on: float = FAIL_ON) -> list[Comparison]:
    """A comparison for each setting that `base` and `new` have both.

    `fail_on` is the share by which a time may grow, 0.1 for 10 %. Raises ValueError where no setting, or no
    case, is in both: times of two machines, dtypes or numbers of threads are never compared.
    """
    if not fail_on > 0:
        raise ValueError(f"fail_on is {fail_on}; expected a share of more than 0, such as 0.1")
    sides = {"base": dict(_by_setting(base)), "new": dict(_by_setting(new))}
    common = [setting for setting in sides["base"] if setting in sides["new"]]
    if not common:
        there = " but ".join(
            f"{side} has {'; '.join(map(tables.describe, found))}" for side, found in sides.items()
        )
        raise ValueError(f"{there}: expected both to have a machine, dtype and number of threads in common")
    left = [f"only {side} has {tables.describe(setting)}" for side, found in sides.items()
            for setting in found if setting not in common]  # fmt: skip
    return [_compare(setting, sides["base"][setting], sides["new"][setting], fail_on, left)
            for setting in common]  # fmt: skip


def _by_setting(results: Results) -> Iterator[tuple[Any, Results]]:
    for setting, rows in tables.settings(results.frame):
        names = set(rows["run"])
        yield setting, Results(rows, tuple(run for run in results.runs if run.name in names))


def _compare(setting: Any, base: Results, new: Results, fail_on: float, notes: list[str]) -> Comparison:
    for side, results in (("base", base), ("new", new)):
        out = len(results.runs) - len(_calm(results).runs)
        if out:
            notes = [*notes, f"{count(out, 'run')} of {side} left out: the machine was disturbed"]
    base, new = _calm(base), _calm(new)
    pairs = pair(base.frame, new.frame)
    both = pairs["base_status"].eq("timed") & pairs["new_status"].eq("timed")
    cases, unpaired = pairs[both].reset_index(drop=True), pairs[~both].reset_index(drop=True)
    if (pairs["base_status"].eq("missing") | pairs["new_status"].eq("missing")).all():
        raise ValueError(f"base and new have no case in common ({tables.describe(setting)}); expected some")
    fails = unpaired["new_status"].eq("failed") & unpaired["base_status"].ne("failed")
    residuals = _residuals(cases)
    noise = _noise(cases, residuals)
    differences = list(_differences(base.runs, new.runs))
    if any(words.startswith(_YARDSTICK) for words in differences):
        differences.append("the probe is left out: BLAS, which it uses, is another one")
        drift = find_drift(cases, (), (), noise)
    else:
        drift = find_drift(cases, base.runs, new.runs, noise)
    groups, cases = _groups(cases, drift, noise), _judged(cases, drift, noise, residuals)
    whole = groups["op"].eq("")
    groups = groups.assign(p=groups["p"].groupby(whole).transform(adjusted))
    cases = cases.assign(p=adjusted(cases["p"]))
    return Comparison(
        setting, fail_on, drift, noise,
        cases.assign(verdict=_verdicts(cases, fail_on)), groups.assign(verdict=_verdicts(groups, fail_on)),
        unpaired, unpaired[fails], (*notes, *differences), tuple(_unsteady(drift, base.runs, new.runs)),
    )  # fmt: skip


def _calm(results: Results) -> Results:
    """Without the times of disturbed runs, unless there are no others."""
    runs = tuple(run for run in results.runs if not disturbed(run))
    if not runs:
        return results
    frame = results.frame
    return Results(frame[frame["run"].isin([run.name for run in runs]) | frame["status"].ne("timed")], runs)


def _unsteady(drift: Drift, base: tuple[Run, ...], new: tuple[Run, ...]) -> Iterator[str]:
    for side, runs in (("base", base), ("new", new)):
        if any(map(disturbed, runs)):
            yield f"something else had the machine at times during {side}"
    if drift.probe and abs(drift.probe.log) > np.log(MOST_DRIFT):
        ratio, side = np.exp(abs(drift.probe.log)), "new" if drift.probe.log > 0 else "base"
        yield f"the machine was {times(ratio)} as slow during {side}"


def _residuals(cases: pd.DataFrame) -> pd.Series:
    """How far each logarithm is from the middle one of its backend and op; NaN in groups that are too small.

    Of n values, one is about the middle by definition: the others stand for it.
    """
    groups = cases.groupby(["backend", "op"])["log"]
    size = groups.transform("size").where(lambda number: number >= LEAST_GROUP)
    return (cases["log"] - groups.transform("median")) * (size / (size - 1)) ** 0.5


def _noise(cases: pd.DataFrame, residuals: pd.Series) -> Noise:
    return fit_noise(residuals.dropna().to_numpy(), float(cases["error"].median()))


def _judged(cases: pd.DataFrame, drift: Drift, noise: Noise, residuals: pd.Series) -> pd.DataFrame:
    """Each case by itself; one that is far off, by the noise of the others, which it is not to explain."""
    estimates = []
    for case, residual in zip(tables.records(cases), residuals, strict=True):
        own = noise
        if abs(residual) > FAR * noise.scale:
            own = _noise(cases, residuals[residuals != residual])
        several = min(case.base_runs, case.new_runs) >= LEAST_RUNS
        freedom = own.freedom if several else min(own.freedom, MOST_FREEDOM)
        estimate = Estimate(case.log, float(np.hypot(own.scale, case.error)), freedom)
        estimates.append(estimate.shifted(drift.log, drift.error, drift.uneven))
    return cases.assign(**_columns(estimates))


def _groups(cases: pd.DataFrame, drift: Drift, noise: Noise) -> pd.DataFrame:
    """A row for each backend over all ops, followed by its ops where it has several."""
    rows: list[dict[str, Any]] = []
    estimates: list[Estimate | None] = []
    for backend in tables.backends(cases):
        own = cases[cases["backend"] == backend]
        ops = tables.ops(own)
        for op in ("", *ops) if len(ops) > 1 else ops:
            part = own[own["op"] == op] if op else own
            estimate = None
            if backend and len(part) >= LEAST_GROUP:
                estimate = _together(part, noise).shifted(drift.log, drift.error, drift.uneven)
            estimates.append(estimate)
            rows.append({"backend": backend, "op": op, "cases": len(part), "layers": part["layer"].nunique(),
                         "limits": np.expm1(estimate.margin) if estimate else np.nan})  # fmt: skip
    frame = pd.DataFrame(rows, columns=["backend", "op", "cases", "layers", "limits"])
    return frame.assign(**_columns(estimates))


def _together(cases: pd.DataFrame, noise: Noise) -> Estimate:
    """What a group's cases have in common, no surer than they agree: some backends are noisier.

    Its degrees of freedom are those of its layers' ops: a burst takes all batch sizes of one, timed in turn.
    """
    found = typical(cases, noise)
    units = cases.groupby(["layer", "op"]).ngroups
    return Estimate(
        found.log,
        max(found.error, median_error(cases["log"].to_numpy())),
        min(found.freedom, units - 1) if units >= LEAST_GROUP else found.freedom,
    )


def _columns(estimates: list[Estimate] | list[Estimate | None]) -> dict[str, list[float]]:
    """Ratio, interval and p of each estimate; NaN of none."""
    known = [each or Estimate(np.nan, np.nan, 1.0) for each in estimates]
    return {
        "ratio": [float(np.exp(each.log)) for each in known],
        "low": [float(np.exp(each.log - each.margin)) for each in known],
        "high": [float(np.exp(each.log + each.margin)) for each in known],
        "p": [each.p for each in known],
    }


def _verdicts(rows: pd.DataFrame, fail_on: float) -> np.ndarray:
    """Slower or faster: beyond the limit, and more than noise explains."""
    told = rows["p"] < 1 - LEVEL
    slower, faster = rows["ratio"] > 1 + fail_on, rows["ratio"] < 1 / (1 + fail_on)
    words = [TOO_FEW, SLOWER, FASTER, "a little slower", "a little faster"]
    chosen = [
        rows["p"].isna(), told & slower, told & faster, told & rows["ratio"].gt(1), told & rows["ratio"].lt(1)
    ]  # fmt: skip
    return np.select(chosen, words, default="no change seen")


def _differences(base: tuple[Run, ...], new: tuple[Run, ...]) -> Iterator[str]:
    """What the runs recorded differently of their machine and libraries, in words."""
    before, after = ({key: sorted({flat[key] for flat in flats if key in flat}) for key in _keys(flats)}
                     for flats in ([_flat(run.facts) for run in runs] for runs in (base, new)))  # fmt: skip
    for key in sorted(before.keys() & after.keys()):
        if before[key] != after[key]:
            yield f"{key} is {listing(before[key])} in base, {listing(after[key])} in new"


def _keys(flats: list[dict[str, str]]) -> set[str]:
    return {key for flat in flats for key in flat}


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """The facts that matter as texts, by their path: `versions numpy`, `blas 1 architecture`."""
    if isinstance(value, Mapping):
        keys = _FACTS if not name else value
        parts = [(str(key), value[key]) for key in keys if key in value and key not in _IGNORED]
    elif isinstance(value, list):  # BLAS libraries stand in the order in which they were loaded
        return {name: "; ".join(sorted(" ".join(_flat(part, name).values()) for part in value))}
    else:
        return {name: str(value)}
    return {path: text for key, part in parts for path, text in _flat(part, f"{name} {key}".strip()).items()}
