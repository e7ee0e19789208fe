"""Measuring candidates: what is measured, what is kept, what is spared."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

import kernels
from kernels import ConvSpec, PoolSpec, own_backends, selection, tuning
from kernels.fingerprint import fingerprint
from kernels.selection import Key

CONV = ConvSpec(2, 2, 8, 8, 3, 3, 3, padding=1)
POOL = PoolSpec("max", 2, 3, 8, 8, 2, 2)
THREADS = kernels.threads.active()


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(tuning, "PROBLEM_S", 0.02)


def test_every_operation_gets_every_backend(tmp_path):
    told = []
    known = kernels.tune([CONV, POOL], path=tmp_path / "s.json", progress=lambda *args: told.append(args))
    ops = [(CONV, "forward"), (CONV, "dx"), (CONV, "dw"), (POOL, "forward"), (POOL, "dx")]
    assert list(known.entries) == [Key(spec, op, "float32", THREADS) for spec, op in ops]
    for key, candidates in known.entries.items():
        able = {
            name
            for name in own_backends()
            if kernels.get_backend(name).unsupported(key.spec, key.op, np.dtype(key.dtype)) is None
        }
        assert set(candidates) == able
        for name, measured in candidates.items():
            assert measured.fingerprint == fingerprint(name)
            assert measured.wrong is None
            if measured.samples_s:
                assert min(measured.samples_s) > 0
                assert 0 <= measured.error < 1e-5
            else:
                assert measured.predicted_s > tuning.HOPELESS * min(
                    other.median_s for other in candidates.values()
                )
        assert any(len(measured.samples_s) >= tuning.MIN_ROUNDS for measured in candidates.values())
    assert [done for done, _, _ in told] == [0, 1, 2, 3, 4, 5]
    assert {total for _, total, _ in told} == {5}
    assert selection.load(tmp_path / "s.json").entries == known.entries


def test_auto_uses_it_at_once(tmp_path):
    known = kernels.tune([CONV], ops=["forward"], path=tmp_path / "s.json")
    (key,) = known.entries
    assert kernels.explain(CONV, "forward", "float32").why == "measured"
    assert kernels.choose(CONV, "forward", "float32") == known.decision(key).choice
    assert kernels.explain(CONV.with_batch(3), "forward", "float32").why == "measured at batch 2"


def test_what_is_known_is_kept_unless_asked_again(tmp_path):
    path = tmp_path / "s.json"
    first = kernels.tune([CONV], ops=["dx"], path=path)
    assert kernels.tune([CONV], ops=["dx"], path=path).entries == first.entries
    assert kernels.tune([CONV], ops=["dx"], path=path, again=True).entries != first.entries


def test_a_new_or_changed_backend_is_measured_alone(tmp_path, monkeypatch):
    path = tmp_path / "s.json"
    before = kernels.tune([CONV], ops=["dw"], backends=["im2col", "numba"], path=path)
    (key,) = before.entries
    assert set(before.entries[key]) == {"im2col", "numba"}
    more = kernels.tune([CONV], ops=["dw"], backends=["im2col", "numba", "einsum"], path=path)
    assert {**more.entries[key], "einsum": None} == {**before.entries[key], "einsum": None}
    changed = lambda name: "new" if name == "numba" else fingerprint(name)  # noqa: E731
    monkeypatch.setattr(tuning, "fingerprint", changed)
    last = kernels.tune([CONV], ops=["dw"], path=path, backends=["im2col", "numba", "einsum"])
    assert last.entries[key]["numba"].fingerprint == "new"
    assert last.entries[key]["im2col"] == before.entries[key]["im2col"]
    assert last.entries[key]["einsum"] == more.entries[key]["einsum"]


def test_a_wrong_backend_gets_no_time_and_is_never_chosen(tmp_path, monkeypatch):
    from kernels import numba_loops

    right = numba_loops.conv_forward

    def wrong(spec, x, w, b, y):
        right(spec, x, w, b, y)
        y[0, 0, 0, 0] += 1

    monkeypatch.setattr(numba_loops, "conv_forward", wrong)
    known = kernels.tune([CONV], ops=["forward"], path=tmp_path / "s.json")
    (key,) = known.entries
    assert "off by" in known.entries[key]["numba"].wrong
    assert len(known.entries[key]["numba"].samples_s) == 1
    assert "numba" in known.decision(key).dropped
    assert kernels.choose(CONV, "forward", "float32") != "numba"


def test_a_hopeless_backend_is_spared(tmp_path):
    """The loops would take minutes here; that is predicted, not waited for."""
    large = ConvSpec(16, 16, 28, 28, 32, 3, 3, padding=1)
    known = kernels.tune([large], ops=["forward"], backends=["im2col", "loops"], path=tmp_path / "s.json")
    (candidates,) = known.entries.values()
    assert candidates["loops"].samples_s == ()
    assert candidates["loops"].predicted_s > 1
    assert candidates["im2col"].samples_s


def test_who_is_behind_leaves_the_race():
    """By little once it has had its rounds; before that, by so much that it cannot win."""
    rounds = tuning.FIRST_ROUNDS
    samples_s = {"best": [1.0] * rounds, "near": [1.4] * rounds, "behind": [1.6] * rounds}
    entry = tuning._Entry(None, (), {**samples_s, "late": [1.6] * (rounds - 1), "lost": [20.0], "new": []})
    assert [name for name in entry.samples_s if entry.hopeless(name)] == ["behind", "lost"]


def test_time_is_bounded(tmp_path):
    known = kernels.tune([CONV], path=tmp_path / "s.json", max_seconds=0.0)
    assert known.entries == {}
    assert not (tmp_path / "s.json").exists()
    assert kernels.tune([CONV], path=tmp_path / "s.json", max_seconds=100.0).entries


def test_no_lap_begins_after_the_time(tmp_path, monkeypatch):
    """Nor is the file written for it."""
    late_s = 0.0

    def progress(done, total, what):
        nonlocal late_s
        late_s = 1000.0

    clock = SimpleNamespace(perf_counter=lambda: time.perf_counter() + late_s)
    monkeypatch.setattr(tuning, "time", clock)
    monkeypatch.setattr(tuning, "LAP_BYTES", 0)  # an operation a lap
    written = []
    update = selection.update
    monkeypatch.setattr(selection, "update", lambda *given: written.append(given) or update(*given))
    path = tmp_path / "s.json"
    known = kernels.tune([CONV], path=path, backends=["im2col"], max_seconds=500.0, progress=progress)
    assert len(known.entries) == len(written) == 1


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="backend is 'nope'; expected one of loops"):
        kernels.tune([CONV], backends=["nope"], path=tmp_path / "s.json")
    with pytest.raises(ValueError, match="--threads is 99"):
        kernels.tune([CONV], threads=99, path=tmp_path / "s.json")
    assert not (tmp_path / "s.json").exists()


def test_float64(tmp_path):
    known = kernels.tune([POOL], dtype="float64", path=tmp_path / "s.json")
    assert {key.dtype for key in known.entries} == {"float64"}
    assert kernels.explain(POOL, "dx", np.float64).why == "measured"
    assert kernels.explain(POOL, "dx", np.float32).why != "measured"
