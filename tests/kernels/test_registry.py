"""The registry: what every backend offers, what is answered to a name that is none, what is missing."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import typing

import numpy as np
import pytest
from kernel_cases import CONVS, POOLS, run_python

import kernels
from kernels import Backend, ConvSpec, registry
from kernels.policy import Measured
from kernels.problem import Problem
from kernels.selection import Key, Selection

FUNCTIONS = tuple(typing.get_type_hints(registry.Operations))


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Backend:
    """A backend whose library nobody has, registered for one test."""
    peer = dataclasses.replace(
        kernels.get_backend("loops"), name="peer", module="kernels.no_such_module", requires="no_such_library"
    )
    monkeypatch.setitem(registry._BACKENDS, "peer", peer)
    return peer


def test_names() -> None:
    names = kernels.backends()
    assert names[:5] == ("loops", "window", "im2col", "einsum", "numba"), "from the plainest on"
    assert len(set(names)) == len(names)
    assert "auto" not in names
    assert set(kernels.available_backends()) <= set(names)
    for name in names:
        backend = kernels.get_backend(name)
        assert backend.name == name
        assert backend.summary
        assert "\n" not in backend.summary
        assert backend.tolerance >= registry.EXACT


def test_those_that_need_nothing_are_available() -> None:
    for name in ("loops", "window", "im2col", "einsum"):
        assert kernels.get_backend(name).unavailable is None
        assert name in kernels.available_backends()


def test_operations_are_those_of_the_interface(backend: str) -> None:
    """Each function of the interface, taking as many arguments as it says."""
    assert len(FUNCTIONS) == 9
    operations = kernels.get_backend(backend).operations
    assert operations is importlib.import_module(kernels.get_backend(backend).module)
    for name in FUNCTIONS:
        function = getattr(operations, name)
        signature = typing.get_type_hints(registry.Operations)[name]
        inspect.signature(function).bind(*typing.get_args(signature)[0])


def test_what_a_library_does_not_have_says_so() -> None:
    with pytest.raises(ValueError, match=r"^scipy.signal does not have this operation; expected one that "):
        kernels.get_backend("scipy").operations.avg_pool_dx(POOLS["avg 3x3 s1"], *np.empty((2, 1)))


def test_every_backend_says_what_it_is(backend: str) -> None:
    """The module opens with what the method is, for whoever reads on from the registry's summary."""
    assert (importlib.import_module(kernels.get_backend(backend).module).__doc__ or "").strip()


def test_backends_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        kernels.get_backend("loops").tolerance = 1.0


@pytest.mark.parametrize("name", ["nope", "", "LOOPS", "loops "])
def test_unknown_names_are_answered_with_the_valid_ones(name: str) -> None:
    with pytest.raises(ValueError, match=r"^backend is '.*'; expected one of ") as caught:
        kernels.get_backend(name)
    assert repr(name) in str(caught.value)
    assert str(caught.value).endswith(", ".join(kernels.backends()))


def test_a_missing_library_is_a_reason_not_an_error(peer: Backend) -> None:
    assert peer.unavailable == "no_such_library is not installed"
    assert "peer" in kernels.backends()
    assert "peer" not in kernels.available_backends()
    assert kernels.get_backend("peer") is peer


def test_a_missing_library_changes_no_default(monkeypatch: pytest.MonkeyPatch, request) -> None:
    specs = [CONVS["dense"], CONVS["1-D"], POOLS["max"], POOLS["avg"]]
    available = kernels.available_backends()
    chosen = [kernels.choose(spec, "forward", np.float32) for spec in specs]
    request.getfixturevalue("peer")
    assert kernels.available_backends() == available
    assert [kernels.choose(spec, "forward", np.float32) for spec in specs] == chosen


def test_a_missing_backend_cannot_be_used(peer: Backend) -> None:
    message = r"^backend 'peer' is unavailable: no_such_library is not installed$"
    x = np.ones((1, 1, 4, 4), np.float32)
    for call in (
        lambda: peer.operations,
        lambda: kernels.conv2d(x, x[..., :2, :2], backend="peer"),
        lambda: kernels.conv2d_backward(x[..., :3, :3], x, x[..., :2, :2], backend="peer"),
        lambda: kernels.max_pool2d(x, 2, backend="peer"),
        lambda: kernels.max_pool2d_backward(x[..., :2, :2], x, 2, backend="peer"),
        lambda: kernels.avg_pool2d(x, 2, backend="peer"),
        lambda: kernels.avg_pool2d_backward(x[..., :2, :2], x.shape, 2, backend="peer"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("unavailable", ["numba", "im2col"])
def test_auto_does_without(monkeypatch: pytest.MonkeyPatch, unavailable: str) -> None:
    """Where one library is missing, "auto" is another backend, with the same result."""
    without = dataclasses.replace(kernels.get_backend(unavailable), requires="no_such_library")
    monkeypatch.setitem(registry._BACKENDS, unavailable, without)
    problem = Problem.integers(CONVS["dense"], "forward")
    assert kernels.choose(problem.spec, "forward", np.float32) != unavailable
    np.testing.assert_array_equal(problem.run("auto")[0], problem.reference[0])


@pytest.mark.parametrize(
    ("op", "dtype", "message"),
    [
        ("sideways", "float32", "op is 'sideways'; expected one of forward, dx, dw"),
        ("forward", "int8", "dtype is int8; expected float32 or float64"),
    ],
)
def test_choose_names_what_it_cannot_choose_for(op: str, dtype: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernels.choose(ConvSpec(1, 1, 4, 4, 1, 2, 2), op, dtype)


def test_choose_needs_some_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in kernels.backends():
        missing = dataclasses.replace(kernels.get_backend(name), requires="no_such_library")
        monkeypatch.setitem(registry._BACKENDS, name, missing)
    with pytest.raises(ValueError, match=r"^no backend supports forward of mb2ic3ih6oc4oh4kh3 in float32$"):
        kernels.choose(CONVS["dense"], "forward", np.float32)


def test_auto_never_picks_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend of another library, even one that is installed, has to be asked for."""
    installed = dataclasses.replace(kernels.get_backend("loops"), name="peer", requires="numpy")
    monkeypatch.setitem(registry._BACKENDS, "peer", installed)
    assert "peer" in kernels.available_backends()
    for spec in (CONVS["dense"], POOLS["max"]):
        assert kernels.choose(spec, "forward", np.float32) != "peer"


def test_own_backends_are_no_peers() -> None:
    own = kernels.own_backends()
    assert own == tuple(name for name in kernels.available_backends() if not kernels.get_backend(name).peer)
    assert own[:4] == ("loops", "window", "im2col", "einsum")
    peers = {name for name in kernels.backends() if kernels.get_backend(name).peer}
    assert peers == {"torch", "jax", "onnxruntime", "openvino", "scipy"}


def test_each_of_several_libraries_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    needy = dataclasses.replace(kernels.get_backend("loops"), requires="numpy no_such_library")
    monkeypatch.setitem(registry._BACKENDS, "loops", needy)
    assert needy.unavailable == "no_such_library is not installed"
    assert "loops" not in kernels.own_backends()


def test_a_measured_peer_is_not_chosen() -> None:
    """Not even one that is the fastest by far, unless it is forced."""
    key = Key(CONVS["dense"], "forward", "float32", 1)
    measured = {
        name: Measured((seconds,) * 5, None, None, 0.0, None, "")
        for name, seconds in (("scipy", 1e-9), ("loops", 1.0))
    }
    selection = Selection({}, {key: measured})
    assert selection.choose(key).backend == "loops"
    selection.forced[key.layer] = "scipy"
    assert selection.choose(key).backend == "scipy"


def test_importing_the_package_imports_no_library() -> None:
    """A backend, and what it needs, is imported at first use: not even listing them does."""
    printed = run_python("""
        import sys
        import kernels
        kernels.backends(), kernels.available_backends()
        heavy = ("numba", "scipy", "pandas", "matplotlib", "sklearn", "torch", "jax", "onnxruntime", "onnx",
                 "openvino", "pytest")
        ours = [name for name in sys.modules if name.split(".")[0] in ("benchmarks", "reports", "trainer")]
        print([name for name in heavy if name in sys.modules] + ours)
    """)
    assert printed.strip() == "[]"
