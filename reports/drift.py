"""The machine's part in a difference: what the probe says, and what all cases have in common."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from reports.loading import Run
from reports.noise import MEDIAN_ERROR, Estimate, Noise, median_error, spread, typical

LEAST_UNITS = 3
"""Backends of which a minority may change without being taken for the machine."""
LEAST_GROUPS = 5
"""Groups (a backend's op) of which the scatter can be told."""
LEAST_PROBES = 2
UNKNOWN = 0.25
"""Standard error of the logarithm of a drift of which nothing tells."""
UNEVEN, UNEVEN_UNPROBED = 0.02, 0.05
"""Standard error, at least, of what one backend feels of a drift more than others; larger without probes."""
_OF_SCATTER = 0.5
"""Standard error of what all cases feel beside the probe, of the scatter of a single one."""
BURST, DISTURBED = 1.5, 0.2
"""A run was disturbed if this share of its probes took that many times as long as the middle one."""


@dataclass(frozen=True)
class Drift:
    """The machine in new over base, as a logarithm: `log`, its standard error, and where it is from.

    - cases: what most of the backends have in common, and the probe does not contradict
    - probe: what the probe says, because there are too few backends, or all have changed against it
    - unknown: there is neither; 0

    `probe` is the drift of the probe itself, or None. `uneven` is the standard error of what a single backend
    feels of the machine more or less than the others do.
    """

    log: float
    error: float
    source: Literal["cases", "probe", "unknown"]
    probe: Estimate | None
    uneven: float


def find_drift(pairs: pd.DataFrame, base: Iterable[Run], new: Iterable[Run], noise: Noise) -> Drift:
    """The drift between two sides, of pairs with times, and of the probes of both sides' runs."""
    probe = _probe_drift(_probes(base), _probes(new))
    felt = _felt(probe, noise) if probe else None
    uneven = _uneven(pairs, noise, probe)
    common = _common(pairs, noise, uneven)
    if common and (felt is None or _agree(felt, common)):
        return Drift(common.log, common.error, "cases", probe, uneven)
    if felt:
        return Drift(felt.log, felt.error, "probe", probe, uneven)
    return Drift(0.0, UNKNOWN, "unknown", probe, uneven)


def disturbed(run: Run) -> bool:
    """Whether the probes of a run tell of something else that had the machine at times."""
    seconds = np.array([seconds for _, seconds in run.probes])
    return len(seconds) > LEAST_PROBES and bool((seconds > BURST * np.median(seconds)).mean() >= DISTURBED)


def _agree(felt: Estimate, common: Estimate) -> bool:
    difference = felt.shifted(common.log, common.error)
    return abs(difference.log) <= difference.margin


def _probes(runs: Iterable[Run]) -> np.ndarray:
    return np.log([seconds for run in runs for _, seconds in run.probes])


def _probe_drift(base: np.ndarray, new: np.ndarray) -> Estimate | None:
    if min(len(base), len(new)) < LEAST_PROBES:
        return None
    error = np.hypot(median_error(base), median_error(new))
    freedom = min(len(base), len(new)) - 1.0
    return Estimate(float(np.median(new) - np.median(base)), max(float(error), UNEVEN), freedom)


def _felt(probe: Estimate, noise: Noise) -> Estimate:
    """What cases feel of the probe's drift: anything between nothing and all of it, with equal right.

    On a machine with neighbours, all cases became 1.1 to 1.3 times as slow where the probe did by 1.2 to 3.5.
    Where single cases scatter by 0.3, it also was by 1.05 only: two threads feel what one does not.
    """
    error = math.hypot(probe.error, probe.log / math.sqrt(12), _OF_SCATTER * noise.scale)
    return Estimate(probe.log / 2, error, probe.freedom)


def _common(pairs: pd.DataFrame, noise: Noise, uneven: float) -> Estimate | None:
    """The median over backends of their typical changes; of other projects' benchmarks, over benchmarks."""
    units = pairs["backend"].where(pairs["backend"] != "", pairs["layer"])
    found = [typical(rows, noise) for _, rows in pairs.groupby(units)]
    if len(found) < LEAST_UNITS:
        return None
    error = math.sqrt((sum(each.error**2 for each in found) / len(found) + uneven**2) / len(found))
    return Estimate(float(np.median([each.log for each in found])), MEDIAN_ERROR * error, noise.count)


def _uneven(pairs: pd.DataFrame, noise: Noise, probe: Estimate | None) -> float:
    """As much as the probe allows (`_felt`), or as a backend's ops differ by more than their cases explain.

    A change of a whole backend, which is to be found, does not part its ops.
    """
    least = UNEVEN_UNPROBED if probe is None else max(UNEVEN, abs(probe.log) / math.sqrt(12))
    apart, within = [], []
    for _, rows in pairs.groupby("backend"):
        ops = [typical(own, noise) for _, own in rows.groupby("op")]
        middle = np.mean([op.log for op in ops])
        if len(ops) > 1:
            apart += [(op.log - middle) * math.sqrt(len(ops) / (len(ops) - 1)) for op in ops]
            within += [op.error**2 for op in ops]
    if len(apart) < LEAST_GROUPS:
        return least
    return max(least, math.sqrt(max(spread(np.array(apart)) ** 2 - sum(within) / len(within), 0.0)))
