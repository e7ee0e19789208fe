"""Regret: choices without what was measured, judged by it; figures from hand-made measurements."""

from __future__ import annotations

import pytest

from benchmarks.regret import COST_MODEL, FALLBACK, OTHER_BATCH, regrets
from kernels import ConvSpec, Selection
from kernels.policy import Measured
from kernels.selection import Key


def key(spec: ConvSpec) -> Key:
    return Key(spec, "forward", "float32", 2)


def times(**seconds: float) -> dict[str, Measured]:
    return {name: Measured((value,) * 9, None, 0, 0.0, None, "code") for name, value in seconds.items()}


LAYER = ConvSpec(1, 4, 10, 10, 8, 3, 3)


def test_other_batch_and_fallback():
    """At batch 1 im2col is best, at 8 tiled; each batch size is chosen for as at the other."""
    small, large = key(LAYER), key(LAYER.with_batch(8))
    known = Selection({}, {small: times(tiled=3.0, im2col=1.0), large: times(tiled=2.0, im2col=5.0)})
    found = {(row.way, row.key): row for row in regrets(known, {"net": [small, large]})}
    assert found[OTHER_BATCH, small].regret == pytest.approx(3.0)
    assert found[OTHER_BATCH, large].regret == pytest.approx(2.5)
    assert (found[OTHER_BATCH, large].chosen, found[OTHER_BATCH, large].best) == ("im2col", "tiled")
    assert found[FALLBACK, small].regret == pytest.approx(3.0)
    assert found[FALLBACK, large].regret == 1.0


def test_the_cost_model_learns_from_the_other_networks_only():
    def cost(spec: ConvSpec) -> dict[str, Measured]:
        return times(numba=1e-6 + 2e-9 * spec.flops, im2col=1e-4 + 1e-9 * spec.flops)

    others = [key(ConvSpec(n, 4, size, size, 8, 3, 3)) for n in (1, 4, 16) for size in (8, 16, 32)]
    own = key(ConvSpec(64, 8, 28, 28, 8, 3, 3))
    known = Selection({}, {each: cost(each.spec) for each in others})
    known.entries[own] = times(numba=1.0, im2col=2.0)
    known = Selection({}, known.entries)
    (row,) = (row for row in regrets(known, {"net": [own]}) if row.way == COST_MODEL)
    assert (row.chosen, row.regret) == ("im2col", 2.0)


def test_what_was_not_measured_is_left_out():
    """The operation, or only what would be chosen for it."""
    known = Selection({}, {key(LAYER): times(im2col=1.0, einsum=2.0)})
    assert list(regrets(known, {"net": [key(LAYER)]})) == []
    assert list(regrets(Selection({}), {"net": [key(LAYER)]})) == []
