"""The loss: against SciPy in float64, its gradient against central differences, and the ends of the range."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from trainer import softmax, softmax_cross_entropy

LABELS = np.array([1, 0, 4, 4, 2])
# Logits that lie 0.1 to 100 apart.
SCALES = [0.1, 1.0, 10.0, 100.0]


def logits_of(scale: float, dtype: type = np.float64) -> np.ndarray:
    return (scale * np.random.default_rng(0).standard_normal((len(LABELS), 6))).astype(dtype)


def expected_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    return -float(log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("scale", SCALES)
class TestValues:
    # Shifted logits up to some 500 are rounded to 6e-8 of themselves in float32, 1e-16 in float64.
    @pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-14)])
    def test_loss(self, scale: float, dtype: type, tolerance: float) -> None:
        logits = logits_of(scale, dtype)
        loss, gradient = softmax_cross_entropy(logits, LABELS)
        assert isinstance(loss, float)
        assert (gradient.shape, gradient.dtype) == (logits.shape, dtype)
        assert loss == pytest.approx(expected_loss(logits, LABELS), rel=tolerance, abs=tolerance)

    def test_gradient_is_the_slope(self, scale: float) -> None:
        """The third derivative, below 1, makes STEP^2 / 6 of error; rounding some 1e-16 * scale / STEP."""
        logits, step = logits_of(scale), 1e-4
        _, gradient = softmax_cross_entropy(logits, LABELS)
        for index in np.ndindex(*logits.shape):
            ends = []
            for move in (step, -step):
                moved = logits.copy()
                moved[index] += move
                ends.append(softmax_cross_entropy(moved, LABELS)[0])
            assert gradient[index] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)

    def test_gradient_is_softmax_minus_the_label(self, scale: float) -> None:
        logits = logits_of(scale)
        _, gradient = softmax_cross_entropy(logits, LABELS)
        one_hot = np.eye(6)[LABELS]
        np.testing.assert_allclose(gradient, (softmax(logits) - one_hot) / len(LABELS), rtol=0, atol=1e-15)
        np.testing.assert_allclose(gradient.sum(axis=1), 0, rtol=0, atol=1e-15)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-15)])
    def test_rows_of_softmax_sum_to_one(self, scale: float, dtype: type, tolerance: float) -> None:
        logits = logits_of(scale, dtype)
        probabilities = softmax(logits)
        assert (probabilities.shape, probabilities.dtype) == (logits.shape, dtype)
        assert (probabilities >= 0).all()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=tolerance)
        expected = np.exp(log_softmax(logits.astype(np.float64), axis=1))
        # exp turns the rounding of its argument, up to 500 * 6e-8, into that much of the result.
        np.testing.assert_allclose(probabilities, expected, rtol=500 * tolerance, atol=1e-30)


def test_on_paper() -> None:
    """Odds of 1 to 3: log 4 and log 4/3, and a quarter against three."""
    logits = np.log([[1.0, 3.0], [1.0, 3.0]])
    loss, gradient = softmax_cross_entropy(logits, np.array([0, 1]))
    assert loss == pytest.approx((np.log(4) + np.log(4 / 3)) / 2, abs=1e-15)
    np.testing.assert_allclose(gradient, [[-0.375, 0.375], [0.125, -0.125]], rtol=0, atol=1e-15)
    np.testing.assert_allclose(softmax(logits), [[0.25, 0.75], [0.25, 0.75]], rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
class TestEnds:
    @pytest.mark.parametrize("huge", [100.0, 1e4, 1e37])
    def test_huge_logits_do_not_overflow(self, dtype: type, huge: float) -> None:
        """A warning would be an error here. exp(100) is already too much for float32."""
        logits = np.array([[huge, -huge, 0], [-huge, -huge, -huge]], dtype)
        loss, gradient = softmax_cross_entropy(logits, np.array([0, 2]))
        assert loss == pytest.approx(np.log(3) / 2)
        np.testing.assert_allclose(gradient, [[0, 0, 0], [1 / 6, 1 / 6, -1 / 3]], rtol=0, atol=1e-7)
        np.testing.assert_allclose(softmax(logits), [[1, 0, 0], [1 / 3] * 3], rtol=0, atol=1e-7)

    @pytest.mark.parametrize("huge", [100.0, 1e4, 1e37])
    def test_sure_and_wrong(self, dtype: type, huge: float) -> None:
        """The loss is the distance: it never becomes log(0)."""
        loss, gradient = softmax_cross_entropy(np.array([[huge, -huge]], dtype), np.array([1]))
        assert loss == pytest.approx(2 * huge)
        np.testing.assert_array_equal(gradient, [[1, -1]])

    @pytest.mark.parametrize("labels", [np.uint8, np.int32, np.int64])
    def test_dtypes_of_labels(self, dtype: type, labels: type) -> None:
        logits = logits_of(1.0, dtype)
        expected_value, expected_gradient = softmax_cross_entropy(logits, LABELS)
        loss, gradient = softmax_cross_entropy(logits, LABELS.astype(labels))
        assert loss == expected_value
        np.testing.assert_array_equal(gradient, expected_gradient)

    def test_inputs_stay(self, dtype: type) -> None:
        logits, labels = logits_of(1.0, dtype), LABELS.copy()
        for array in (logits, labels):
            array.flags.writeable = False
        _, gradient = softmax_cross_entropy(logits, labels)
        assert not np.shares_memory(gradient, logits)
        assert not np.shares_memory(softmax(logits), logits)

    def test_softmax_of_no_rows(self, dtype: type) -> None:
        assert softmax(np.empty((0, 10), dtype)).shape == (0, 10)

    def test_nan_is_seen(self, dtype: type) -> None:
        logits = logits_of(1.0, dtype)
        logits[2, 3] = np.nan
        assert np.isnan(softmax_cross_entropy(logits, LABELS)[0])


LOGITS = np.zeros((5, 6), np.float32)


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (LOGITS, LABELS[:4], "logits has shape (5, 6) and labels (4,); expected (N, classes) and (N,)"),
        (LOGITS, LABELS[:, None], "logits has shape (5, 6) and labels (5, 1); expected (N, classes)"),
        (LOGITS[0], LABELS, "logits has shape (6,) and labels (5,); expected (N, classes) and (N,)"),
        (LOGITS[None], LABELS[:1], "logits has shape (1, 5, 6) and labels (1,); expected (N, classes)"),
        (LOGITS[:0], LABELS[:0], "logits has shape (0, 6) and labels (0,); expected (N, classes) and (N,)"),
        (LOGITS, LABELS + 2, "labels lie in 2..6; expected classes, 0..5"),
        (LOGITS, LABELS - 1, "labels lie in -1..3; expected classes, 0..5"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_words(logits: np.ndarray, labels: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  (the words follow)
        softmax_cross_entropy(logits, labels)
    assert str(raised.value).startswith(words)
