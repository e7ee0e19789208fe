"""`out` of backward functions and of pooling with indices: filled whole, wherever it lies, and returned."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from kernel_cases import DTYPES, Calls, integers

Call = Callable[..., Any]
# The call with `out`, and the shapes of the arrays that it is given; all geometry is uneven on purpose.
CASES: dict[str, tuple[Callable[[Calls], Call], tuple[tuple[int, ...], ...]]] = {
    "conv2d_backward": (
        lambda on: (
            lambda dy, x, w, **out: on.conv2d_backward(dy, x, w, groups=2, padding=(1, 0), stride=2, **out)
        ),
        ((3, 6, 3, 2), (3, 4, 6, 5), (6, 2, 3, 2)),
    ),
    "conv2d_backward, one image": (
        lambda on: lambda dy, x, w, **out: on.conv2d_backward(dy, x, w, **out),
        ((3, 4, 4), (2, 5, 6), (3, 2, 2, 3)),
    ),
    "conv1d_backward": (
        lambda on: lambda dy, x, w, **out: on.conv1d_backward(dy, x, w, padding=(2, 1), dilation=2, **out),
        ((2, 3, 6), (2, 2, 7), (3, 2, 3)),
    ),
    "conv1d_backward, one signal": (
        lambda on: lambda dy, x, w, **out: on.conv1d_backward(dy, x, w, stride=2, groups=2, **out),
        ((4, 3), (2, 7), (4, 1, 3)),
    ),
    "max_pool2d": (
        lambda on: lambda x, **out: on.max_pool2d(x, (2, 3), padding=1, return_indices=True, **out),
        ((3, 2, 4, 7),),
    ),
    "max_pool2d, one image": (
        lambda on: lambda x, **out: on.max_pool2d(x, 3, stride=1, return_indices=True, **out),
        ((2, 5, 4),),
    ),
    "max_pool2d_backward": (
        lambda on: lambda dy, x, **out: on.max_pool2d_backward(dy, x, (2, 3), padding=1, **out),
        ((3, 2, 3, 3), (3, 2, 4, 7)),
    ),
    "max_pool2d_backward, indices": (
        lambda on: (
            lambda dy, x, **out: on.max_pool2d_backward(
                dy, x, 3, stride=1, indices=on.max_pool2d(x, 3, stride=1, return_indices=True)[1], **out
            )
        ),
        ((2, 2, 3, 2), (2, 2, 5, 4)),
    ),
    "max_pool2d_backward, one image": (
        lambda on: lambda dy, x, **out: on.max_pool2d_backward(dy, x, 2, **out),
        ((2, 2, 3), (2, 5, 6)),
    ),
    "avg_pool2d_backward": (
        lambda on: lambda dy, **out: on.avg_pool2d_backward(dy, (3, 2, 4, 7), 3, stride=2, padding=1, **out),
        ((3, 2, 2, 4),),
    ),
    "avg_pool2d_backward, one image": (
        lambda on: lambda dy, **out: on.avg_pool2d_backward(dy, (2, 4, 5), (2, 3), stride=1, **out),
        ((2, 3, 3),),
    ),
}
every = pytest.mark.parametrize("case", CASES)


def tuples(case: str) -> bool:
    """Whether the call has several results, and takes a tuple for them."""
    return case.startswith("conv") or case.partition(",")[0] == "max_pool2d"


severals = pytest.mark.parametrize("case", [case for case in CASES if tuples(case)])


def prepared(on: Calls, case: str, dtype: Any = np.float32) -> tuple[Call, list[np.ndarray]]:
    make, shapes = CASES[case]
    return make(on), [integers(shape, dtype, seed) for seed, shape in enumerate(shapes)]


def listed(results: Any) -> list[np.ndarray]:
    return list(results) if isinstance(results, tuple) else [results]


def packed(case: str, outs: Sequence[np.ndarray | None]) -> Any:
    return tuple(outs) if tuples(case) else outs[0]


def garbage(like: np.ndarray) -> np.ndarray:
    """What no result may show: NaN, or an impossible position."""
    return np.full(like.shape, np.nan if like.dtype.kind == "f" else -(2**40), like.dtype)


def assert_equal(results: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    for result, other in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, other)
        assert result.dtype == other.dtype


def every_second(array: np.ndarray) -> np.ndarray:
    wide = np.zeros([2 * size for size in array.shape], array.dtype)
    part = wide[tuple(slice(1, None, 2) for _ in array.shape)]
    part[...] = array
    return part


def backwards(array: np.ndarray) -> np.ndarray:
    reverse = tuple(slice(None, None, -1) for _ in array.shape)
    return array[reverse].copy()[reverse]


def unaligned(array: np.ndarray) -> np.ndarray:
    buffer = np.zeros(array.nbytes + 1, np.uint8)
    shifted = buffer[1:].view(array.dtype).reshape(array.shape)
    shifted[...] = array
    return shifted


LAYOUTS = [np.ascontiguousarray, np.asfortranarray, every_second, backwards, unaligned]


@every
class TestResults:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
    def test_any_layout(self, on: Calls, case: str, dtype: type, layout: Callable[..., np.ndarray]) -> None:
        """The arrays given are those that come back, with the results that there are without them."""
        call, arrays = prepared(on, case, dtype)
        before = [array.copy() for array in arrays]
        expected = listed(call(*arrays))
        outs = [layout(garbage(array)) for array in expected]
        results = listed(call(*arrays, out=packed(case, outs)))
        assert all(result is out for result, out in zip(results, outs, strict=True))
        assert_equal(outs, expected)
        assert_equal(arrays, before)

    def test_again_and_again(self, on: Calls, case: str) -> None:
        """What the call before has left counts for nothing: results are set, not added up."""
        call, arrays = prepared(on, case)
        outs = [garbage(array) for array in listed(call(*arrays))]
        for factor in (1, -3, 2):
            changed = [factor * array for array in arrays]
            call(*changed, out=packed(case, outs))
            assert_equal(outs, listed(call(*changed)))

    def test_nothing_around_it_is_touched(self, on: Calls, case: str) -> None:
        call, arrays = prepared(on, case)
        expected = listed(call(*arrays))
        wides = [np.full([size + 2 for size in array.shape], 99, array.dtype) for array in expected]
        insides = [wide[tuple(slice(1, -1) for _ in wide.shape)] for wide in wides]
        call(*arrays, out=packed(case, insides))
        assert_equal(insides, expected)
        for wide, inside in zip(wides, insides, strict=True):
            inside[...] = 99
            assert (wide == 99).all()

    def test_overlap_with_an_input(self, on: Calls, case: str) -> None:
        """As if the inputs had been copied first, whichever of them an `out` lies across."""
        call, arrays = prepared(on, case)
        expected = listed(call(*arrays))
        for (given, array), (wanted, result) in itertools.product(enumerate(arrays), enumerate(expected)):
            for start in {0, 8, array.nbytes // 16 * 8}:
                memory = np.zeros(array.nbytes + result.nbytes, np.uint8)
                shared = memory[: array.nbytes].view(array.dtype).reshape(array.shape)
                shared[...] = array
                out = memory[start : start + result.nbytes].view(result.dtype).reshape(result.shape)
                assert np.shares_memory(shared, out)
                outs = [out if at == wanted else None for at in range(len(expected))]
                inputs = [shared if at == given else other for at, other in enumerate(arrays)]
                results = listed(call(*inputs, out=packed(case, outs)))
                assert results[wanted] is out
                assert_equal(results, expected)

    def test_wrong_arrays(self, on: Calls, case: str) -> None:
        call, arrays = prepared(on, case)
        expected = listed(call(*arrays))
        for at, right in enumerate(expected):
            shape, dtype = right.shape, right.dtype
            read_only = right.copy()
            read_only.flags.writeable = False
            wanted = f"expected {shape} of {dtype}"
            for wrong, kind, words in (
                (right.astype(np.int32), ValueError, f"out is {shape} of int32; {wanted}"),
                (right.astype(">f4"), ValueError, f"out is {shape} of >f4; {wanted}"),
                (right[..., :-1], ValueError, f"out is {(*shape[:-1], shape[-1] - 1)} of {dtype}; {wanted}"),
                (right[None], ValueError, f"out is {(1, *shape)} of {dtype}; {wanted}"),
                (right.ravel()[:1], ValueError, f"out is (1,) of {dtype}; {wanted}"),
                (read_only, ValueError, "out is read-only; expected an array that can be written to"),
                (right.tolist(), TypeError, f"out is list; expected a NumPy array {shape} of {dtype}"),
                (0, TypeError, f"out is int; expected a NumPy array {shape} of {dtype}"),
            ):
                outs = [garbage(array) for array in expected]
                outs[at] = wrong
                with pytest.raises(kind, match=f"^{re.escape(words)}$"):
                    call(*arrays, out=packed(case, outs))
                for number, out in enumerate(outs):
                    if number != at:  # nothing is computed before all is well
                        np.testing.assert_array_equal(out, garbage(expected[number]))


@severals
class TestSeveral:
    def test_some_given(self, on: Calls, case: str) -> None:
        """Each by itself may be left to be made."""
        call, arrays = prepared(on, case)
        expected = listed(call(*arrays))
        for given in itertools.product([True, False], repeat=len(expected)):
            outs = [garbage(array) if there else None for there, array in zip(given, expected, strict=True)]
            results = listed(call(*arrays, out=tuple(outs)))
            assert_equal(results, expected)
            for out, result in zip(outs, results, strict=True):
                assert out is None or out is result

    def test_a_list_will_do(self, on: Calls, case: str) -> None:
        call, arrays = prepared(on, case)
        expected = listed(call(*arrays))
        outs = [garbage(array) for array in expected]
        results = call(*arrays, out=outs)
        assert all(result is out for result, out in zip(results, outs, strict=True))
        assert_equal(outs, expected)

    def test_wrong_tuples(self, on: Calls, case: str) -> None:
        call, arrays = prepared(on, case)
        names = ("dx", "dw", "db") if case.startswith("conv") else ("y", "indices")
        wanted = f"expected a tuple ({', '.join(names)}) of arrays or None"
        results = listed(call(*arrays))
        alone = [] if names[0] == "y" else [(results[0], "ndarray")]  # y alone is taken for what it is
        for wrong, what in (
            *alone,
            ((), "0 of them"),
            ((results[0],), "1 of them"),
            ((*results, None), f"{len(names) + 1} of them"),
            ([None] * 7, "7 of them"),
            (dict(zip(names, results, strict=True)), "dict"),
            (iter(results), "list_iterator"),
            ("dx", "str"),
            (0, "int"),
        ):
            with pytest.raises(TypeError, match=f"^{re.escape(f'out is {what}; {wanted}')}$"):
                call(*arrays, out=wrong)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
class TestEmptyBatch:
    """Nothing to fill but dw and db, with zeros."""

    @pytest.mark.parametrize("case", ["conv2d_backward", "conv1d_backward"])
    def test_convolutions(self, on: Calls, case: str, layout: Callable[..., np.ndarray]) -> None:
        call, (dy, x, w) = prepared(on, case)
        outs = [layout(garbage(array)) for array in (x[:0], w, np.empty(len(w), np.float32))]
        results = call(dy[:0], x[:0], w, out=tuple(outs))
        assert all(result is out for result, out in zip(results, outs, strict=True))
        for out in outs[1:]:
            np.testing.assert_array_equal(out, np.zeros_like(out))

    def test_pools(self, on: Calls, layout: Callable[..., np.ndarray]) -> None:
        x, dy = np.empty((0, 2, 4, 6), np.float32), np.empty((0, 2, 2, 3), np.float32)
        outs = layout(dy), layout(dy.astype(np.int64))
        results = on.max_pool2d(x, 2, return_indices=True, out=outs)
        assert all(result is out for result, out in zip(results, outs, strict=True))
        dx = layout(x)
        assert on.max_pool2d_backward(dy, x, 2, out=dx) is dx
        assert on.max_pool2d_backward(dy, x, 2, indices=outs[1], out=dx) is dx
        assert on.avg_pool2d_backward(dy, x.shape, 2, out=dx) is dx


CONVOLUTIONS = [case for case in CASES if case.startswith("conv")]
GRADIENTS = ("dx", "dw", "db")


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("need", [(), ("dx",), ("dw",), ("db",), ("dx", "db"), ("dw", "db")], ids=str)
def test_an_array_for_what_is_not_needed(on: Calls, case: str, need: tuple[str, ...]) -> None:
    """It stays as it is, and None comes back."""
    call, arrays = prepared(on, case)
    expected = listed(call(*arrays))
    outs = [garbage(array) for array in expected]
    results = call(*arrays, need=need, out=tuple(outs))
    for name, result, out, wanted in zip(GRADIENTS, results, outs, expected, strict=True):
        if name in need:
            assert result is out
            np.testing.assert_array_equal(out, wanted)
        else:
            assert result is None
            np.testing.assert_array_equal(out, garbage(out))


def test_everything_over_the_inputs(on: Calls) -> None:
    """A step that needs no memory of its own: dx in place of dy or x, dw of w, db of some of dy."""
    dy, x, w = integers((2, 3, 4, 5)), integers((2, 3, 4, 5), seed=1), integers((3, 3, 3, 3), seed=2)
    expected = listed(on.conv2d_backward(dy, x, w, padding=1))
    for place in (0, 1):
        arrays = [dy.copy(), x.copy(), w.copy()]
        outs = arrays[place], arrays[2], arrays[1 - place].ravel()[4:7]
        results = on.conv2d_backward(*arrays, padding=1, out=outs)
        assert all(result is out for result, out in zip(results, outs, strict=True))
        assert_equal(outs, expected)


def test_over_the_indices(on: Calls) -> None:
    """dx where the positions stood that it follows."""
    x, dy = integers((2, 2, 4, 6)), integers((2, 2, 2, 3), seed=1)
    _, indices = on.max_pool2d(x, 2, return_indices=True)
    expected = on.max_pool2d_backward(dy, x, 2)
    memory = np.zeros(x.size, np.int64)
    shared = memory[: indices.size].reshape(indices.shape)
    shared[...] = indices
    out = memory.view(np.float64).reshape(x.shape)
    assert on.max_pool2d_backward(dy, x, 2, indices=shared, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_gradients_by_name(on: Calls) -> None:
    """The results have their names, whether they are the caller's arrays or not."""
    call, arrays = prepared(on, "conv2d_backward")
    dw = np.empty((6, 2, 3, 2), np.float32)
    gradients = call(*arrays, need=("dw", "dx"), out=(None, dw, None))
    assert gradients.dw is dw
    assert gradients.dx.shape == arrays[1].shape
    assert gradients.db is None


@pytest.mark.parametrize("case", [case for case in CASES if not tuples(case)])
def test_a_tuple_for_one_result(on: Calls, case: str) -> None:
    call, arrays = prepared(on, case)
    result = call(*arrays)
    with pytest.raises(TypeError, match=r"^out is tuple; expected a NumPy array \(.*\) of float32$"):
        call(*arrays, out=(result,))


def test_a_tuple_without_indices(on: Calls) -> None:
    x = integers((2, 2, 4, 4), np.float32)
    outs = on.max_pool2d(x, 2, return_indices=True)
    with pytest.raises(TypeError, match=r"^out is tuple; expected a NumPy array \(2, 2, 2, 2\) of float32$"):
        on.max_pool2d(x, 2, out=outs)
