"""The closed loop around "auto": tune, let whole steps settle choices, prove them, settle what has lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import kernels
from kernels import selection
from kernels.policy import NOISE
from kernels.selection import Key, Selection
from kernels.spec import Spec
from trainer import build_model
from trainer.data import Data
from trainer.stepping import Proof, prove, settle, settled

SETTLED_S, PROVED_S = 0.7, 1.5
"""Seconds of steps that each way of training gets where steps settle choices, and in a proof."""
PROOFS = 3
"""Proofs at most, where each finds that the choice has lost."""


def proven(
    name: str, data: Data, batch_size: int, path: Path, tune: Callable[[Iterable[Spec]], Selection]
) -> Proof:
    """A proof of what "auto" chooses for the network, once `tune` has measured its layers.

    Choices go to the file at `path`. A proof that loses settles them anew and, where that changes any, is
    repeated: its steps are evidence, too.
    """
    known = tune(build_model(name).specs(batch_size).values())
    if not settled(name, known, batch_size):
        known = _settled_as(known, settle(name, known, batch_size, SETTLED_S), path)
    proof = prove(name, known, data, batch_size, PROVED_S)
    for _ in range(PROOFS - 1):
        if proof.regret <= 1 + NOISE or proof.alone == proof.chosen:
            break
        known = _settled_as(known, proof.alone, path)
        proof = prove(name, known, data, batch_size, PROVED_S)
    return proof


def _settled_as(known: Selection, choices: dict[Key, str], path: Path) -> Selection:
    """The selection with these choices settled, in its file and in use."""
    changed = selection.update(path, Selection(known.machine, settled=choices))
    kernels.use_selection(changed)
    return changed
