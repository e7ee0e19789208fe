"""SGD and Adam against their formulas, written out in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from trainer import SGD, Adam
from trainer.optimizers import Optimizer

STEPS = 8
SIZE = 50
START = np.random.default_rng(0).standard_normal(SIZE)
SLOPES = np.random.default_rng(1).standard_normal((STEPS, SIZE)) * np.logspace(-6, 3, SIZE)


def sgd(lr: float, momentum: float) -> Iterator[np.ndarray]:
    value, velocity = START.copy(), 0.0
    for slope in SLOPES:
        velocity = momentum * velocity + slope
        value = value - lr * velocity
        yield value


def adam(lr: float) -> Iterator[np.ndarray]:
    """Algorithm 1 of the paper, its lines in order."""
    theta, m, v = START.copy(), 0.0, 0.0
    for t, g in enumerate(SLOPES, 1):
        m = 0.9 * m + (1 - 0.9) * g
        v = 0.999 * v + (1 - 0.999) * g**2
        m_hat = m / (1 - 0.9**t)
        v_hat = v / (1 - 0.999**t)
        theta = theta - lr * m_hat / (np.sqrt(v_hat) + 1e-8)
        yield theta


Make = Callable[[np.ndarray, np.ndarray], Optimizer]
CASES: dict[str, tuple[Make, Callable[[], Iterator[np.ndarray]]]] = {
    "plain": (lambda values, slopes: SGD(values, slopes, 0.05), lambda: sgd(0.05, 0)),
    "momentum 0": (lambda values, slopes: SGD(values, slopes, 0.05, 0.0), lambda: sgd(0.05, 0)),
    "momentum 0.9": (lambda values, slopes: SGD(values, slopes, 0.05, 0.9), lambda: sgd(0.05, 0.9)),
    "momentum 0.5": (lambda values, slopes: SGD(values, slopes, 1.5, momentum=0.5), lambda: sgd(1.5, 0.5)),
    "adam": (lambda values, slopes: Adam(values, slopes, 0.001), lambda: adam(0.001)),
    "adam, large steps": (lambda values, slopes: Adam(values, slopes, 0.5), lambda: adam(0.5)),
}
every = pytest.mark.parametrize(("make", "formula"), CASES.values(), ids=CASES)


@every
# Each of 8 steps rounds a handful of times, by half of 1e-7 or 2e-16 of numbers that are summed.
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-14)])
def test_formula(make: Make, formula, dtype: type, tolerance: float) -> None:
    values, slopes = START.astype(dtype), np.empty(SIZE, dtype)
    optimizer = make(values, slopes)
    reach = np.abs(START)
    for number, expected in enumerate(formula(), 1):
        slopes[...] = SLOPES[number - 1]
        optimizer.step()
        reach = np.maximum(reach, np.abs(expected))  # what was large once has left its rounding error
        error = np.abs(values - expected) / reach
        assert error.max() <= tolerance, number
    assert number == STEPS


@every
@pytest.mark.parametrize("number", [float, np.float64])
def test_float32_stays_float32(make: Make, formula, number: type) -> None:
    """The arrays stay where and what they are; the slopes are only read."""
    values, slopes = START.astype(np.float32), SLOPES[0].astype(np.float32)
    optimizer = make(values, slopes)
    optimizer.lr = number(optimizer.lr)
    state = dict(optimizer.state)
    for _ in range(3):
        optimizer.step()
    assert optimizer.values is values
    assert optimizer.slopes is slopes
    np.testing.assert_array_equal(slopes, SLOPES[0].astype(np.float32))
    assert values.dtype == np.float32
    assert optimizer.state.keys() == state.keys()
    for name, array in optimizer.state.items():
        assert array is state[name] or name == "steps"
        assert array.dtype == (np.int64 if name == "steps" else np.float32)
        assert array.shape == (() if name == "steps" else (SIZE,))


@every
def test_no_slope_no_step(make: Make, formula) -> None:
    values, slopes = START.copy(), np.zeros(SIZE)
    optimizer = make(values, slopes)
    optimizer.step()
    np.testing.assert_array_equal(values, START)


@every
def test_the_state_is_all_there_is(make: Make, formula) -> None:
    """Another optimizer with the same state and values goes on to the same numbers."""
    values, slopes = START.astype(np.float32), np.empty(SIZE, np.float32)
    first = make(values, slopes)
    for number, slope in enumerate(SLOPES):
        if number == 3:
            others, state = values.copy(), {name: array.copy() for name, array in first.state.items()}
        slopes[...] = slope
        first.step()
    second = make(others, slopes)
    second.state.update(state)
    for slope in SLOPES[3:]:
        slopes[...] = slope
        second.step()
    np.testing.assert_array_equal(others, values)
    for name, array in first.state.items():
        np.testing.assert_array_equal(second.state[name], array)


def test_state_of_sgd() -> None:
    """None without momentum: its memory is that of all parameters."""
    values = np.zeros(3, np.float32)
    assert SGD(values, values, 0.1).state == {}
    assert list(SGD(values, values, 0.1, 0.9).state) == ["velocity"]


def test_lr_may_change_between_steps() -> None:
    values, slopes = np.zeros(2), np.array([1.0, -2.0])
    optimizer = SGD(values, slopes, 0.5)
    optimizer.step()
    optimizer.lr = 0.25
    optimizer.step()
    np.testing.assert_array_equal(values, [-0.75, 1.5])


def test_first_step_of_adam_is_lr() -> None:
    """Whatever the size of the slope, as long as it is far above 1e-8."""
    slopes = np.array([1e-3, -1.0, 1e4, -1e-3])
    values = np.zeros(4)
    Adam(values, slopes, 0.01).step()
    np.testing.assert_allclose(values, -0.01 * np.sign(slopes), rtol=2e-5)
