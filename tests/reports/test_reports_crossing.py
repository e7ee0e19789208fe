"""Crossovers and their reasons, each made by hand."""

import pytest

import reports
from reports import crossing, tables
from reports.machines import Ceiling, Machine

MIB = 2**20


@pytest.fixture
def crossings(save, make):
    """The crossings in results made of (backend, batch, seconds, peak bytes), noise 2 %."""

    def found(*cases, machine=None, **facts):
        timed = []
        for backend, batch, seconds, peak in cases:
            item = make.timed("a:conv", backend, batch, seconds, noise=0.02, peak=peak)
            item["extra_info"] |= {name: values[batch] for name, values in facts.items()}
            timed.append(item)
        frame = tables.latest(reports.load(save("x.json", make.document(timed))))
        return crossing.crossings(frame, machine or Machine())

    return found


def test_the_golden_one(golden_path):
    frame = tables.latest(reports.load(golden_path))
    (one,) = crossing.crossings(frame, Machine())
    assert (one.op, one.layer, one.before, one.last, one.after, one.first) == (
        "forward", "a:conv", "im2col", 8, "numba", 32,
    )  # fmt: skip
    # The line through 8 ms at 8 and 16 ms at 32 meets batch 0 at 16/3 ms.
    assert one.why == (
        "numba pays about 5.33 ms a call whatever the batch, 67 % of its time at batch 8 (im2col: 0 ns)."
    )


def test_a_working_set_that_outgrows_a_cache(crossings):
    machine = Machine(caches={"L1d": 2**15, "L2": 2 * MIB, "L3": 100 * MIB})
    (one,) = crossings(
        ("im2col", 8, 0.008, 40 * MIB),
        ("im2col", 32, 0.064, 160 * MIB),
        ("numba", 8, 0.012, 0),
        ("numba", 32, 0.048, 0),
        machine=machine,
    )
    assert one.why == (
        "im2col's working set grows from 40.0 MiB to 160 MiB, past the 100 MiB of L3, and an image costs it "
        "2.00 ms instead of 1.00 ms."
    )


def test_an_intensity_past_the_balance(crossings):
    (one,) = crossings(
        ("window", 8, 0.010, 0),
        ("window", 32, 0.040, 0),
        ("numba", 8, 0.012, 0),
        ("numba", 32, 0.030, 0),
        machine=Machine(Ceiling(gemm_gflops=100.0, copy_gbs=10.0)),
        flops={8: 5 * 8 * MIB, 32: 20 * 32 * MIB},
    )
    assert one.why.endswith(
        "the layer's intensity goes from 5.00 to 20.0 FLOP/byte, past the 10.0 at which the limit turns from "
        "memory to arithmetic."
    )


def test_without_a_reason_the_figures_are_given(crossings):
    (one,) = crossings(
        ("window", 8, 0.008, 0), ("window", 32, 0.032, 0), ("numba", 8, 0.012, 0), ("numba", 32, 0.024, 0)
    )
    assert "numba pays about" in one.why
    (other,) = crossings(
        ("window", 8, 0.008, 0), ("window", 32, 0.064, 0), ("numba", 8, 0.012, 0), ("numba", 32, 0.048, 0)
    )
    assert other.why == (
        "An image costs window 1.00 ms at batch 8 and 2.00 ms at 32, numba 1.50 ms at batch 8 and 1.50 ms at "
        "32; neither the price of a call, nor the caches, nor the intensity explains it."
    )


def test_leads_within_the_noise_do_not_cross(crossings):
    assert not crossings(
        ("window", 8, 0.0100, 0), ("window", 32, 0.0404, 0), ("numba", 8, 0.0101, 0), ("numba", 32, 0.0400, 0)
    )


def test_who_was_not_timed_later_has_not_lost(crossings):
    assert not crossings(("window", 8, 0.01, 0), ("numba", 8, 0.02, 0), ("numba", 32, 0.04, 0))
