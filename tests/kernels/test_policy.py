"""How measurements decide."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.policy import NOISE, Measured, decide, probability_of_best

ORDER = ("numba", "im2col", "einsum")


def measured(
    *samples_s: float, workspace: int | None = 0, error: float | None = 1e-7, wrong: str | None = None
):
    return Measured(samples_s, None, workspace, error, wrong, "code")


def steady(median_s: float, spread: float = 1e-4, **others: object) -> Measured:
    return measured(*(median_s * (1 + spread * step) for step in range(-5, 6)), **others)  # type: ignore[arg-type]


def test_the_fastest_wins():
    decision = decide({"numba": steady(2.0), "im2col": steady(1.0), "einsum": steady(3.0)}, ORDER)
    assert decision.choice == "im2col"
    assert decision.ranked == ("im2col", "numba", "einsum")
    assert decision.tied == ("im2col",)
    assert decision.dropped == {}


def test_within_two_percent_the_order_decides():
    close = {"im2col": steady(1.0), "numba": steady(1 + 0.9 * NOISE), "einsum": steady(1 + 0.5 * NOISE)}
    decision = decide(close, ORDER)
    assert decision.choice == "numba"
    assert decision.tied == ("im2col", "einsum", "numba")
    assert decide({**close, "numba": steady(1 + 1.5 * NOISE)}, ORDER).choice == "im2col"


def test_overlapping_intervals_tie_where_medians_are_apart():
    wide = steady(1.1, spread=0.1)
    assert decide({"im2col": steady(1.0), "numba": wide}, ORDER).choice == "numba"
    assert decide({"im2col": steady(1.0), "numba": steady(1.1)}, ORDER).choice == "im2col"


def test_a_backend_outside_the_order_comes_last_in_a_tie():
    assert decide({"mine": steady(1.0), "einsum": steady(1.01)}, ORDER).choice == "einsum"
    assert decide({"mine": steady(1.0), "einsum": steady(1.2)}, ORDER).choice == "mine"


def test_what_is_wrong_is_dropped_however_fast():
    decision = decide(
        {"numba": steady(1.0, wrong="y is off"), "im2col": steady(1.0, error=2e-4), "einsum": steady(9.0)},
        ORDER,
    )
    assert decision.choice == "einsum"
    assert decision.dropped == {"numba": "y is off", "im2col": "error 2.0e-04, over 0.0001"}
    assert decide({"im2col": steady(1.0, error=2e-4)}, ORDER, error_budget=1e-3).choice == "im2col"


def test_a_memory_limit_needs_no_new_measurement():
    candidates = {"im2col": steady(1.0, workspace=5000), "numba": steady(2.0, workspace=None)}
    assert decide(candidates, ORDER).choice == "im2col"
    assert decide(candidates, ORDER, memory_limit=5000).choice == "im2col"
    limited = decide(candidates, ORDER, memory_limit=4999)
    assert limited.choice == "numba"
    assert limited.dropped == {"im2col": "workspace 5,000 bytes, over 4,999"}


def test_nothing_left_is_no_choice():
    assert decide({"numba": steady(1.0, wrong="NaN")}, ORDER).choice is None
    assert decide({}, ORDER).choice is None


def test_what_was_only_predicted_is_ranked_by_that_and_never_ties():
    slow = Measured((), 1.005, None, None, None, "code")
    decision = decide({"im2col": steady(1.0, spread=0.1), "numba": slow}, ORDER)
    assert decision.ranked == ("numba", "im2col")  # within 2 %: the order decides
    assert (
        decide(
            {"im2col": steady(1.0, spread=0.3), "numba": Measured((), 1.1, None, None, None, "c")}, ORDER
        ).choice
        == "im2col"
    )


def test_samples_taken_in_turn_are_compared_in_turn():
    """Both became slower together: that says nothing about which is faster."""
    drift = np.linspace(1.0, 3.0, 20)
    together = {"im2col": measured(*drift), "numba": measured(*(1.1 * drift))}
    assert decide(together, ORDER).choice == "im2col"
    apart = {"im2col": measured(*drift), "numba": measured(*(1.1 * drift[::-1]))}
    assert decide(apart, ORDER).choice == "numba"


@pytest.mark.parametrize(("median", "tied"), [(1.04, True), (1.06, False)])
def test_a_tie_is_where_a_notched_box_would_reach(median, tied):
    """Ratios between median - 0.1 and median + 0.1, as many of each: half of the interval is 0.05."""
    ratios = np.linspace(median - 0.1, median + 0.1, round((1.57 * 0.1 / 0.05) ** 2))
    candidates = {"im2col": measured(*np.ones(len(ratios))), "numba": measured(*ratios)}
    assert (decide(candidates, ORDER).choice == "numba") == tied


def test_probability_of_best():
    rng = np.random.default_rng(0)
    equal = {name: measured(*rng.normal(1.0, 0.1, 50)) for name in ("a", "b")}
    assert 0.02 < probability_of_best(equal)["a"] < 0.98
    apart = probability_of_best(
        {"a": steady(1.0), "b": steady(1.5), "c": Measured((), 9.0, None, None, None, "c")}
    )
    assert apart == {"a": 1.0, "b": 0.0, "c": 0.0}
