"""The answer in words, worked out on paper from the hand-made results."""

import pytest

import reports
from reports import headline, tables
from reports.headline import Verdict


@pytest.fixture
def frame(golden_path):
    return tables.latest(reports.load(golden_path))


def test_verdicts(frame):
    forward, dw = headline.verdicts(frame)
    assert forward.saving == pytest.approx(1 - (0.004 + 0.1 + 0.01 + 0.012) / (0.008 + 0.1 + 0.0101 + 0.012))
    assert (forward.op, forward.batch, forward.wins) == ("forward", 8, (("im2col", 2), ("numba", 2)))
    assert (forward.close, forward.single) == (1, "numba")  # c:conv: 10 against 10.1 ms, 20 % noise
    assert dw == Verdict("dw", 8, (("im2col", 1),), 0, "im2col", 0.0)


def test_the_headline(frame):
    assert headline.sentences(frame) == [
        "On this machine, at batch 8, forward: im2col is fastest on 2 of 4 layers, numba on 2 (1 of these "
        "within the noise); choosing per layer saves 3.2 % over numba alone.",
        "dw: im2col is fastest on 1 of 1 layer.",
    ]


def test_without_a_backend_for_everything(save, make):
    timed = [make.timed("a", "im2col", 8, 0.1), make.timed("b", "numba", 8, 0.2)]
    frame = tables.latest(reports.load(save("x.json", make.document(timed))))
    (verdict,) = headline.verdicts(frame)
    assert (verdict.single, verdict.saving, verdict.close) == (None, None, 0)
    assert verdict.sentence() == (
        "forward: im2col is fastest on 1 of 2 layers, numba on 1; no single backend does them all."
    )
