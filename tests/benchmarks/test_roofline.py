"""Cases held against the ceilings: timed, skipped or wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.ceiling import Ceiling
from benchmarks.options import Options
from benchmarks.roofline import reached
from kernels import im2col

CEILING = Ceiling(100.0, 10.0, "float32", 1)


@pytest.fixture
def options(tmp_path) -> Options:
    path = tmp_path / "tiny.txt"
    path.write_text('mb1ic1ih12oc2oh12kh3ph1n"conv"\nmax_pool2d mb1ic2ih12oh6kh2sh2n"pool"\n')
    return Options.read([str(path)], "im2col,einsum", "1,2", threads=1)


def test_every_case_is_timed(options):
    found = list(reached(options, CEILING))
    assert len({each.case.id for each in found}) == len(found) == (3 + 2) * 2 * 2
    assert all(each.median_s > 0 and not (each.skipped or each.wrong) for each in found)


def test_the_slow_are_skipped_unless_the_layer_is_as_slow(options):
    hurried = replace(options, budget_s=1e-9)
    assert all(each.skipped.startswith("predicted ") for each in reached(hurried, CEILING))
    slow_machine = Ceiling(1e-9, 1e-9, "float32", 1)
    assert all(each.median_s for each in reached(hurried, slow_machine))


def test_a_wrong_result_gets_no_time_and_an_error_stops_nothing(options, monkeypatch):
    right = im2col.conv_forward

    def conv_forward(spec, x, w, b, y):
        right(spec, x, w, b, y)
        y[0, 0, 0, 0] += 0.1

    def conv_dw(spec, dy, x, dw):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(im2col, "conv_forward", conv_forward)
    monkeypatch.setattr(im2col, "conv_dw", conv_dw)
    found = [each for each in reached(options, CEILING) if each.case.backend == "im2col"]
    for each in found:
        if each.case.layer.name == "conv" and each.case.op != "dx":
            assert each.median_s is None
            assert ("rounding" if each.case.op == "forward" else "RuntimeError: out of luck") in each.wrong
        else:
            assert each.median_s > 0
