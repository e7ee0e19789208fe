"""What noise allows to say: estimates on logarithms of times, with their standard errors.

A saved case has the median and the quartiles of one burst of rounds, some 0.1 s long. How much these rounds
scatter says little of what the next run will show: neighbours, clock and the layout of memory are other ones
then. That part can only be seen between runs, so it is estimated from all cases of a comparison together,
with estimators that single bursts, up to twenty times too slow, do not carry away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special, stats

LEVEL = 0.95
"""Of confidence, of all intervals; 1 - LEVEL is the rate of false discoveries."""
LEAST_GROUP = 3
"""Cases of which the scatter around their middle can be told."""
_STEPS = 40
LEAST_RESIDUALS = 10
LEAST_SCALE = 0.01
"""Two builds of the same code differ by that much: the layout of code and memory alone does it (T. Mytkowicz
et al., "Producing wrong data without doing anything obviously wrong!", ASPLOS 2009)."""
_FREEDOMS = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_MAD = 1.4826
"""The standard deviation over the median absolute deviation, of normal numbers."""
MEDIAN_ERROR = math.sqrt(math.pi / 2)
"""The standard error of a median over that of a mean, of normal numbers."""


@dataclass(frozen=True)
class Estimate:
    """A logarithm of a ratio, its standard error, and the degrees of freedom of that."""

    log: float
    error: float
    freedom: float

    @property
    def p(self) -> float:
        """How probable an estimate at least as far from 0 is where nothing has changed (Student's t)."""
        return float(2 * stats.t.sf(abs(self.log) / self.error, self.freedom))

    @property
    def margin(self) -> float:
        """Half the width of the interval."""
        return float(stats.t.ppf((1 + LEVEL) / 2, self.freedom) * self.error)

    def shifted(self, log: float, *errors: float) -> Estimate:
        """With `log` taken off, which is as uncertain as `errors` say."""
        return Estimate(self.log - log, math.hypot(self.error, *errors), self.freedom)


@dataclass(frozen=True)
class Noise:
    """How logarithms of a single case's ratio scatter where nothing has changed: Student's t.

    `count` is the number of residuals that tell it; `assumed` says that there were too few.
    """

    scale: float
    freedom: float
    count: int
    assumed: bool = False


ASSUMED = Noise(0.1, 3.0, 10, assumed=True)


def burst_error(median: pd.Series, iqr: pd.Series, rounds: pd.Series) -> pd.Series:
    """The standard error of the logarithm of a median, from the quartiles of its own rounds.

    That is 1.25 IQR / (1.35 sqrt(n)) of the median (R. McGill, J. W. Tukey, W. A. Larsen, "Variations of box
    plots", The American Statistician 32, 1978). Rounds of one burst are alike, so it is a lower bound.
    """
    return iqr / median / rounds**0.5 * (MEDIAN_ERROR / (2 * float(stats.norm.ppf(0.75))))


def median_error(values: Sequence[float] | np.ndarray) -> float:
    """The standard error of the median of `values`, from their median absolute deviation."""
    return MEDIAN_ERROR * spread(np.asarray(values, float)) / math.sqrt(len(values))


def typical(cases: pd.DataFrame, noise: Noise) -> Estimate:
    """The location of the cases' `log` that `noise`, with each one's own `error`, makes most likely.

    Of logarithms of ratios it is a geometric mean, from which cases that lie far off are weighed down the
    more, the fewer degrees of freedom the noise has. Iterated weights, and the error from the Fisher
    information of the t distribution (K. L. Lange, R. J. A. Little, J. M. G. Taylor, "Robust statistical
    modeling using the t distribution", JASA 84, 1989, section 3 and appendix).
    """
    logs, f = cases["log"].to_numpy(), noise.freedom
    variances = noise.scale**2 + cases["error"].to_numpy() ** 2
    centre = float(np.median(logs))
    for _ in range(_STEPS):
        weights = (f + 1) / (f + (logs - centre) ** 2 / variances) / variances
        centre = float((logs * weights).sum() / weights.sum())
    information = (f + 1) / (f + 3) * (1 / variances).sum()
    return Estimate(centre, float(1 / np.sqrt(information)), noise.count)


def fit_noise(residuals: np.ndarray, error: float = 0.0) -> Noise:
    """The t distribution around 0 that makes `residuals` most likely; `ASSUMED` where they are too few.

    `error` is what the cases know of their own errors, the middle one: its square is taken off the scale's,
    as it will be added again for each case (as for random effects: R. DerSimonian, N. Laird, "Meta-analysis
    in clinical trials", Controlled Clinical Trials 7, 1986).

    Few degrees of freedom stand for a machine on which single cases are far off now and then: there, only
    what many cases show together can be told from noise.
    """
    if len(residuals) < LEAST_RESIDUALS:
        return ASSUMED
    f = np.array(_FREEDOMS)[:, None]
    squares = residuals**2 + LEAST_SCALE**2 / 4  # a likelihood has no maximum where many are exactly 0
    variances = np.full_like(f, np.median(squares))
    for _ in range(_STEPS):  # EM: the fixed point of s² = mean((f + 1) r² / (f + r² / s²))
        variances = ((f + 1) * squares / (f + squares / variances)).mean(axis=1, keepdims=True)
    constants = special.gammaln((f + 1) / 2) - special.gammaln(f / 2) - np.log(f * variances) / 2
    likelihoods = (constants - (f + 1) / 2 * np.log1p(squares / variances / f)).sum(axis=1)
    best = int(np.argmax(likelihoods))
    between = max(float(variances[best, 0]) - error**2, LEAST_SCALE**2)
    return Noise(math.sqrt(between), _FREEDOMS[best], len(residuals))


def adjusted(p: pd.Series) -> np.ndarray:
    """p values for many tests at once: of what is below 1 - LEVEL, at most that share is false.

    Y. Benjamini, Y. Hochberg, "Controlling the false discovery rate", J. R. Stat. Soc. B 57, 1995. A NaN
    stays one, and does not count.
    """
    values = p.to_numpy(float, copy=True)
    known = ~np.isnan(values)
    if known.any():
        values[known] = stats.false_discovery_control(values[known])
    return values


def spread(values: np.ndarray) -> float:
    """The standard deviation that the median absolute deviation stands for."""
    return float(_MAD * np.median(np.abs(values - np.median(values))))
