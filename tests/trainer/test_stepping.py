"""The closed loop: predicted steps, timed steps, and those of each backend alone."""

from __future__ import annotations

import numpy as np
import pytest

import kernels
from kernels import own_backends, tuning
from trainer import build_model, load_data, stepping

BATCH = 2


@pytest.fixture(scope="module")
def data():
    return load_data("digits", limit=8)


@pytest.fixture
def known(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "PROBLEM_S", 0.02)
    return kernels.tune(build_model("scratch").specs(BATCH).values(), path=tmp_path / "s.json")


def test_every_needed_operation_is_predicted_and_timed(known, data):
    proof = stepping.prove("scratch", known, data, BATCH, seconds=0.05)
    assert [(each.layer, each.direction, len(each.backends)) for each in proof.layers] == [
        ("conv1", "forward", 1), ("pool1", "forward", 1), ("conv1", "backward", 1), ("pool1", "backward", 1)
    ]  # fmt: skip
    for each in proof.layers:
        assert each.predicted_s > 0
        assert each.realised_s > 0
        assert set(each.backends) <= set(own_backends())
    by_hand = 0.0
    for key, candidates in known.entries.items():
        if not (key.spec.kind == "conv2d" and key.op == "dx"):  # the first layer has none
            by_hand += candidates[known.choose(key).backend].median_s
    assert sum(each.measured_s for each in proof.layers) == pytest.approx(by_hand)
    assert proof.drift == pytest.approx(proof.predicted_s / by_hand)
    assert proof.realised_s < sum(proof.steps["auto"].totals)
    # winograd does not pool: no network is of it alone.
    assert {*proof.steps, *proof.predicted_only} == {"auto", *own_backends()} - {"winograd"}
    assert proof.best_single in own_backends()
    assert proof.chosen == {key: known.choose(key).backend for key in proof.chosen}
    assert proof.alone == dict.fromkeys(proof.chosen, proof.best_single)
    single = proof.steps[proof.best_single].totals
    assert proof.regret == np.median(
        np.divide(proof.steps["auto"].totals[: len(single)], single[: len(proof.steps["auto"].totals)])
    )


def test_slow_backends_are_not_waited_for(known, data, monkeypatch):
    monkeypatch.setattr(stepping, "HOPELESS", 1.5)
    proof = stepping.prove("scratch", known, data, BATCH, seconds=0.0)
    assert "loops" in proof.predicted_only
    assert "loops" not in proof.steps
    assert proof.predicted_only["loops"] > 0.01


def fake_steps(seconds_of):
    """In place of `time_steps`: each model's steps take what `seconds_of` says."""

    def times(models, x, labels, seconds):
        assert x.shape == (len(labels), 1, 28, 28)
        return {name: stepping.StepTimes([seconds_of.get(name, 9.0)]) for name in models}

    return times


def test_one_backend_settles_what_it_wins_by_whole_steps(known, monkeypatch):
    monkeypatch.setattr(stepping, "HOPELESS", float("inf"))
    monkeypatch.setattr(stepping, "time_steps", fake_steps({"auto": 1.0, "im2col": 0.9}))
    choices = stepping.settle("scratch", known, BATCH, 1.0)
    assert set(choices.values()) == {"im2col"}
    needed = {key for key in known.entries if not (key.spec.kind == "conv2d" and key.op == "dx")}
    assert set(choices) == needed


@pytest.mark.parametrize("alone_s", [0.995, 1.5])
def test_the_choices_stay_where_no_backend_wins_by_much(known, monkeypatch, alone_s):
    monkeypatch.setattr(stepping, "time_steps", fake_steps({"auto": 1.0, "im2col": alone_s}))
    choices = stepping.settle("scratch", known, BATCH, 1.0)
    assert choices == {key: known.choose(key).backend for key in choices}


def test_settled_until_measured_again(known):
    assert not stepping.settled("scratch", known, BATCH)
    choices = stepping.settle("scratch", known, BATCH, 0.0)
    after = known.merged(kernels.Selection(known.machine, settled=choices))
    assert stepping.settled("scratch", after, BATCH)
    assert not stepping.settled("scratch", after, BATCH + 1)
    assert not stepping.settled("scratch", after.merged(known), BATCH)


def test_what_is_not_measured_is_named(data):
    empty = kernels.Selection({})
    with pytest.raises(ValueError, match=r"forward of mb2ic1ih28oc8.* is not measured; expected"):
        stepping.prove("scratch", empty, data, BATCH, seconds=0.0)


def test_each_round_begins_with_another_model(data, monkeypatch):
    models = {name: build_model("scratch", "im2col") for name in "abc"}
    names = {id(model): name for name, model in models.items()}
    order = []

    def step(model, optimizer, x, labels, times):
        order.append(names[id(model)])
        times.totals.append(1.0)

    monkeypatch.setattr(stepping, "_step", step)
    monkeypatch.setattr(stepping, "WARM_UP", 0)
    stepping.time_steps(models, data.train_images[:1], data.train_labels[:1], 0.0, lambda: order.append(" "))
    assert "".join(order).split() == ["aabbcc", "bbccaa", "ccaabb", "aabbcc", "bbccaa"]


def test_timed_steps_are_those_of_training(data):
    """The model has learnt as from the same steps of its own."""
    timed, plain = build_model("scratch", "im2col"), build_model("scratch", "im2col")
    times = stepping.time_steps(
        {"one": timed}, data.train_images[:BATCH], data.train_labels[:BATCH], seconds=0.0
    )["one"]
    steps = stepping.WARM_UP + 2 * stepping.LEAST_STEPS  # each timed one follows an untimed one
    assert len(times.totals) == stepping.LEAST_STEPS
    assert set(times.forward) == set(plain.layers)
    optimizer = stepping.SGD(plain.values, plain.slopes, 0.01, 0.9)
    for _ in range(steps):
        _, dlogits = stepping.softmax_cross_entropy(
            plain.forward(data.train_images[:BATCH]), data.train_labels[:BATCH]
        )
        plain.backward(dlogits)
        optimizer.step()
    assert (timed.values == plain.values).all()
