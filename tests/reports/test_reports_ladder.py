"""The ladder: rungs, factors, and which layer is shown first."""

import math

import pandas as pd
import pytest

import reports
from reports import ladder, tables
from reports.ladder import Place


@pytest.fixture
def frame(golden_path):
    return tables.latest(reports.load(golden_path))


def test_rungs_from_the_slowest_on_with_their_factors(frame):
    steps = ladder.rungs(frame, Place("forward", "a:conv", 8))
    assert steps["backend"].tolist() == ["loops", "numba", "im2col"]
    assert steps["seconds"].tolist() == [0.8, 0.008, 0.004]
    assert math.isnan(steps["step"][0])
    assert steps["step"][1:].tolist() == pytest.approx([100, 2])
    assert steps["total"].tolist() == pytest.approx([1, 100, 200])
    assert not steps["predicted"].any()


def test_a_skipped_backend_stands_with_its_predicted_time(frame):
    steps = ladder.rungs(frame, Place("forward", "a:conv", 32))
    assert steps["backend"].tolist() == ["loops", "im2col", "numba"]
    assert steps["predicted"].tolist() == [True, False, False]
    assert steps["total"].tolist() == pytest.approx([1, 100, 200])


def test_every_place_with_two_rungs(frame):
    found = dict(ladder.all_rungs(frame))
    assert list(found) == [
        Place("forward", "a:conv", 8),
        Place("forward", "a:conv", 32),
        Place("forward", "b:conv", 8),
        Place("forward", "c:conv", 8),
        Place("forward", "d:pool", 8),
    ]  # a:conv dw, and b:conv at 32, have one backend
    for place, steps in found.items():
        rungs = ladder.rungs(frame, place)
        assert pd.DataFrame(steps)[list(rungs)].equals(rungs)


def test_the_example_has_the_most_rungs_and_work(frame):
    assert ladder.example(frame) == Place("forward", "a:conv", 32)
    assert ladder.example(frame, "d:pool") == Place("forward", "d:pool", 8)
    assert ladder.example(frame[frame["op"] == "dw"]) is None
