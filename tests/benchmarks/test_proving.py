"""The loop of tuning, settling and proving: how often it goes round, and what it leaves in the file."""

from __future__ import annotations

import pytest

import kernels
from benchmarks import proving
from kernels.machine import identity
from kernels.selection import Key, Selection, load
from trainer import build_model
from trainer.stepping import Proof, StepTimes

BATCH = 2
KEYS = [Key(spec, "forward", "float32", 1) for spec in build_model("scratch").specs(BATCH).values()]


def proof_of(auto_s: float, chosen: str) -> Proof:
    """A proof in which every operation is by `chosen`, and im2col alone takes a second."""
    steps = {"auto": StepTimes(totals=[auto_s]), "im2col": StepTimes(totals=[1.0])}
    return Proof((), dict.fromkeys(KEYS, chosen), steps, {})


@pytest.fixture
def prove_with(tmp_path, monkeypatch):
    """Runs the loop on proofs that are given; returns the last one and how often a choice was settled."""

    def run(proofs: list[Proof]) -> tuple[Proof, int]:
        left, updates = iter(proofs), []
        update = kernels.selection.update
        monkeypatch.setattr(proving, "prove", lambda *given: next(left))
        monkeypatch.setattr(proving, "settled", lambda *given: True)
        monkeypatch.setattr(
            proving.selection, "update", lambda *given: updates.append(given) or update(*given)
        )
        path = tmp_path / "s.json"
        proof = proving.proven("scratch", None, BATCH, path, lambda specs: Selection(identity()))
        assert next(left, None) is None, "a proof was not asked for"
        return proof, len(updates)

    yield run
    kernels.use_selection()


def test_a_proof_that_holds_is_the_last(prove_with):
    good = proof_of(1.0, "tiled")
    assert prove_with([good]) == (good, 0)


def test_a_proof_that_loses_settles_and_is_repeated(prove_with, tmp_path):
    good = proof_of(1.0, "im2col")
    assert prove_with([proof_of(1.5, "tiled"), good]) == (good, 1)
    assert load(tmp_path / "s.json").settled == dict.fromkeys(KEYS, "im2col")


def test_what_settling_would_not_change_is_not_repeated(prove_with):
    """What is left is noise: the winner is what was chosen."""
    noisy = proof_of(1.5, "im2col")
    assert prove_with([noisy]) == (noisy, 0)


def test_nothing_is_settled_without_a_proof_after_it(prove_with):
    proofs = [proof_of(1.5, "tiled") for _ in range(proving.PROOFS)]
    assert prove_with(proofs) == (proofs[-1], proving.PROOFS - 1)


def test_choices_are_settled_by_whole_steps_first(tmp_path, monkeypatch):
    good = proof_of(1.0, "tiled")
    monkeypatch.setattr(proving, "prove", lambda *given: good)
    monkeypatch.setattr(proving, "settle", lambda *given: dict.fromkeys(KEYS, "numba"))
    path = tmp_path / "s.json"
    assert proving.proven("scratch", None, BATCH, path, lambda specs: Selection(identity())) is good
    assert load(path).settled == dict.fromkeys(KEYS, "numba")
    kernels.use_selection()
