"""Every layer of every suite on every backend, made small enough for the slowest."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.check import check
from benchmarks.options import Options
from benchmarks.suites import load_suite, suites
from kernels import get_backend, own_backends
from kernels.forecast import shrink
from kernels.registry import ops_of

FLOPS = 30_000


@pytest.mark.parametrize("suite", suites())
def test_backends_agree_on_the_layers_of_a_suite(suite, tmp_path):
    small = [shrink(layer.with_batch(2), FLOPS) for layer in load_suite(suite)]
    path = tmp_path / f"{suite}.txt"
    path.write_text("".join(f"{layer.kind} {layer.descriptor}\n" for layer in small))
    outcomes = list(check(Options.read([str(path)], batch_sizes="2", budget_s=100.0)))
    assert len(outcomes) == sum(len(ops_of(layer)) for layer in small) * len(own_backends())
    for checked in outcomes:
        assert checked.wrong is None, f"{checked.case.id}: {checked.wrong}"
        case = checked.case
        declared = get_backend(case.backend).unsupported(case.layer, case.op, np.dtype(case.dtype))
        assert checked.skipped == declared
        assert checked.smaller is None
        assert declared or checked.error < 1e-5
