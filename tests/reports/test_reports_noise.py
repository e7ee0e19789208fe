"""Estimates on hand-made numbers, and on simulated ones with a known truth."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports.noise import (
    ASSUMED,
    LEAST_SCALE,
    Estimate,
    Noise,
    adjusted,
    burst_error,
    fit_noise,
    median_error,
    typical,
)


def cases(logs, error=0.0):
    return pd.DataFrame({"log": np.asarray(logs, float), "error": error})


def test_an_estimate_is_students_t():
    estimate = Estimate(0.3, 0.1, 9.0)
    assert estimate.p == pytest.approx(stats.ttest_1samp([0.3 + d for d in _with_error(0.1)], 0.0).pvalue)
    assert estimate.margin == pytest.approx(0.1 * 2.262157)


def _with_error(error):
    """Ten numbers around 0 whose mean has this standard error."""
    values = np.arange(10) - 4.5
    return values / values.std(ddof=1) * error * np.sqrt(10)


def test_what_is_taken_off_adds_its_error():
    shifted = Estimate(0.5, 0.3, 9.0).shifted(0.1, 0.4, 1.2)
    assert (shifted.log, shifted.error, shifted.freedom) == pytest.approx((0.4, 1.3, 9.0))


def test_the_error_of_a_burst_is_that_of_mcgill_tukey_and_larsen():
    error = burst_error(pd.Series([2.0]), pd.Series([0.2]), pd.Series([25.0]))
    assert error[0] == pytest.approx(1.25 * 0.2 / (1.35 * 5) / 2.0, rel=0.01)


def test_the_error_of_a_median_is_that_of_repeated_medians():
    rng = np.random.default_rng(0)
    found = [median_error(rng.normal(0, 2, 400)) for _ in range(50)]
    medians = [np.median(rng.normal(0, 2, 400)) for _ in range(2000)]
    assert np.mean(found) == pytest.approx(np.std(medians), rel=0.05)


@pytest.mark.parametrize(("freedom", "scale"), [(1.0, 0.05), (3.0, 0.2), (30.0, 0.1)])
def test_noise_is_found_again(freedom, scale):
    rng = np.random.default_rng(1)
    found = fit_noise(stats.t.rvs(freedom, scale=scale, size=2000, random_state=rng))
    assert found.scale == pytest.approx(scale, rel=0.1)
    assert found.freedom == pytest.approx(freedom, rel=0.7)
    assert found.count == 2000
    assert not found.assumed


def test_the_scale_is_scipys_most_likely_one():
    residuals = stats.t.rvs(2.0, scale=0.3, size=60, random_state=np.random.default_rng(2))
    found = fit_noise(residuals)
    assert found.scale == pytest.approx(stats.t.fit(residuals, fdf=found.freedom, floc=0)[2], rel=1e-3)


def test_what_cases_know_of_their_errors_is_not_counted_twice():
    residuals = np.random.default_rng(4).normal(0, 0.05, 4000)
    assert fit_noise(residuals, 0.03).scale == pytest.approx(0.04, rel=0.1)
    assert fit_noise(residuals, 1.0).scale == LEAST_SCALE


def test_of_few_residuals_noise_is_assumed():
    assert fit_noise(np.full(9, 0.01)) is ASSUMED
    assert ASSUMED.assumed


def test_noise_is_never_less_than_what_layout_does():
    assert fit_noise(np.zeros(40)).scale == LEAST_SCALE


def test_typical_is_the_mean_where_noise_is_nearly_normal():
    estimate = typical(cases([0.1, 0.2, 0.3, 0.2]), Noise(0.1, 1e6, 100))
    assert estimate.log == pytest.approx(0.2)
    assert estimate.error == pytest.approx(0.1 / 2, rel=1e-4)
    assert estimate.freedom == 100


def test_typical_passes_over_a_case_that_is_far_off():
    quiet = [0.09, 0.1, 0.1, 0.11, 0.1]
    assert typical(cases([*quiet, 3.0]), Noise(0.02, 1.0, 36)).log == pytest.approx(0.1, abs=0.003)


def test_typical_weighs_cases_by_their_own_error():
    uneven = cases([0.0, 0.3], [0.0, 0.2])
    assert typical(uneven, Noise(0.1, 1e6, 36)).log == pytest.approx(0.3 * (1 / 0.05) / (1 / 0.05 + 1 / 0.01))


def test_intervals_of_typical_hold_the_truth():
    rng, held = np.random.default_rng(3), 0
    for _ in range(300):
        logs = 0.1 + stats.t.rvs(2.0, scale=0.1, size=15, random_state=rng)
        found = typical(cases(logs), Noise(0.1, 2.0, 60))
        held += abs(found.log - 0.1) < found.margin
    assert 0.9 <= held / 300 <= 0.99


def test_p_values_are_adjusted_as_by_benjamini_and_hochberg():
    p = pd.Series([0.01, np.nan, 0.04, 0.03])
    assert adjusted(p) == pytest.approx([0.03, np.nan, 0.04, 0.04], nan_ok=True)
    assert p.tolist()[0] == 0.01
    assert np.isnan(adjusted(pd.Series([np.nan]))).all()
