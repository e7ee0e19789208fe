"""What a run is asked to do."""

from __future__ import annotations

import pytest

from benchmarks.options import BATCH_SIZES, Options
from kernels import own_backends
from kernels.threads import usable_cores


def test_defaults():
    options = Options.read()
    assert options.suites == ("default",)
    assert options.backends == own_backends()
    assert options.batch_sizes == BATCH_SIZES
    assert options.ops == ("forward", "dx", "dw")
    assert (options.dtype, options.threads) == ("float32", usable_cores())
    assert len(options.layers()) == 16


def test_words_are_read():
    options = Options.read(
        ["alexnet", "default", "alexnet"], "numba, loops", "32,1,8,8", "backward,forward", "float64", 1, 2.5
    )
    assert options.suites == ("alexnet", "default")
    assert options.backends == ("numba", "loops")
    assert options.batch_sizes == (1, 8, 32)
    assert options.ops == ("forward", "dx", "dw")
    assert (options.dtype, options.threads, options.budget_s) == ("float64", 1, 2.5)
    assert [suite for suite, _ in options.layers()] == ["alexnet"] * 8 + ["default"] * 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backends": "nope"}, "backend is 'nope'; expected one of loops, window, im2col, einsum, numba"),
        ({"backends": ","}, "--backends is empty; expected some of loops"),
        ({"batch_sizes": "8,x"}, "--batch-sizes is '8,x'; expected positive ints such as 1,8,32"),
        ({"batch_sizes": "0"}, "--batch-sizes is '0'; expected positive ints"),
        ({"batch_sizes": ""}, "--batch-sizes is ''; expected positive ints"),
        ({"ops": "sideways"}, "--ops is 'sideways'; expected some of forward, dx, dw, backward"),
        ({"dtype": "int8"}, "--dtype is 'int8'; expected float32 or float64"),
        ({"threads": 0}, "--threads is 0; expected 1 to"),
        ({"threads": 4096}, "--threads is 4096; expected 1 to"),
        ({"budget_s": 0.0}, "--budget is 0.0; expected seconds, more than 0"),
        ({"budget_s": float("nan")}, "--budget is nan; expected seconds, more than 0"),
    ],
)
def test_bad_words_are_answered(arguments, message):
    with pytest.raises(ValueError, match="expected") as error:
        Options.read(**arguments)
    assert str(error.value).startswith(message)
