"""Layers: gradients against central differences; what is kept, reused and overwritten from call to call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import kernels
import trainer.layers
from kernels import ConvSpec
from kernels.registry import ops_of
from trainer import AvgPool2d, Conv1d, Conv2d, Flatten, Layer, Linear, MaxPool2d, ReLU, Tanh
from trainer.layers import Windowed

F = np.float64
# How to make the layer, and its x for a batch of 3.
WINDOWED: dict[str, tuple[Callable[[], Windowed], tuple[int, ...]]] = {
    "Conv2d": (lambda: Conv2d(2, 3, (2, 3), dtype=F), (3, 2, 4, 5)),
    "Conv2d, all": (
        lambda: Conv2d(4, 2, 2, stride=(2, 1), padding=((1, 0), (0, 2)), dilation=2, groups=2, dtype=F),
        (3, 4, 4, 3),
    ),
    "Conv2d, same": (lambda: Conv2d(2, 2, (2, 3), padding="same", dtype=F), (3, 2, 3, 4)),
    "Conv2d, no bias": (lambda: Conv2d(1, 2, 3, bias=False, dtype=F), (3, 1, 4, 4)),
    "Conv1d": (lambda: Conv1d(2, 3, 3, stride=2, padding=1, dtype=F), (3, 2, 6)),
    "Conv1d, causal": (
        lambda: Conv1d(2, 2, 2, padding=(3, 0), dilation=3, groups=2, bias=False, dtype=F),
        (3, 2, 5),
    ),
    "MaxPool2d": (lambda: MaxPool2d(2), (3, 2, 4, 5)),
    "MaxPool2d, all": (lambda: MaxPool2d((2, 3), (3, 1), 1, (2, 1), True), (3, 2, 5, 4)),
    "AvgPool2d": (lambda: AvgPool2d(2), (3, 2, 4, 5)),
    "AvgPool2d, all": (lambda: AvgPool2d(3, (2, 1), 1, True, False), (3, 2, 6, 4)),
}
PLAIN: dict[str, tuple[Callable[[], Layer], tuple[int, ...]]] = {
    "Linear": (lambda: Linear(5, 4, dtype=F), (3, 5)),
    "Linear, no bias": (lambda: Linear(5, 4, bias=False, dtype=F), (3, 5)),
    "Flatten": (Flatten, (3, 2, 3, 2)),
    "ReLU": (ReLU, (3, 2, 3, 2)),
    "Tanh": (Tanh, (3, 2, 3, 2)),
}
LAYERS = {**WINDOWED, **PLAIN}
windowed = pytest.mark.parametrize("name", WINDOWED)
every = pytest.mark.parametrize("name", LAYERS)
but_flatten = pytest.mark.parametrize(
    "name", [name for name in LAYERS if name != "Flatten"]
)  # it gives views


def concrete(kind: type[Layer]) -> Iterator[type[Layer]]:
    if not inspect.isabstract(kind) and kind.__module__ == trainer.layers.__name__:
        yield kind
    for lower in kind.__subclasses__():
        yield from concrete(lower)


def test_no_layer_is_left_out() -> None:
    """A new layer belongs in the tables above, and among the public names."""
    assert {type(make()) for make, _ in LAYERS.values()} == set(concrete(Layer))
    assert {kind.__name__ for kind in concrete(Layer)} <= set(trainer.__all__)


@pytest.mark.parametrize("images", [1, 2, 40])
def test_large_linear_layer(images: int) -> None:
    """One image goes another way than several, and few another one than many."""
    layer = Linear(513, 250)
    rng = np.random.default_rng(0)
    for values in layer.parameters.values():
        values[...] = rng.standard_normal(values.shape)
    x, dy = (rng.standard_normal((images, size), np.float32) for size in (513, 250))
    w, b = (values.astype(np.float64) for values in layer.parameters.values())
    np.testing.assert_allclose(layer.forward(x, training=True), x @ w.T + b, atol=1e-4)
    np.testing.assert_allclose(layer.backward(dy), dy @ w, atol=1e-4)
    np.testing.assert_allclose(layer.gradients["weight"], dy.T.astype(np.float64) @ x, atol=1e-5)
    np.testing.assert_allclose(layer.gradients["bias"], dy.sum(axis=0), atol=1e-5)


def layer_of(name: str, backend: str = "auto") -> Layer:
    """The layer of that name with random parameters; what its backend declares unsupported skips the test."""
    make, shape = LAYERS[name]
    layer = make()
    rng = np.random.default_rng(1)
    for values in layer.parameters.values():
        values[...] = rng.standard_normal(values.shape)
    if isinstance(layer, Windowed):
        layer.backend = backend
        spec = layer.spec(shape[1:], shape[0])
        for op in ops_of(spec) if backend != "auto" else ():
            reason = kernels.get_backend(backend).unsupported(spec, op, np.dtype(F))
            if reason:
                pytest.skip(f"{backend}: {reason}")
    return layer


def x_of(name: str, N: int | None = None) -> np.ndarray:
    """Distinct multiples of 0.1, none of them 0: a step changes neither maxima nor signs."""
    shape = LAYERS[name][1]
    shape = shape if N is None else (N, *shape[1:])
    size = int(np.prod(shape))
    values = np.random.default_rng(2).permutation(size) - size // 2 + 0.5
    return (0.1 * values).reshape(shape)


def dy_of(layer: Layer, x: np.ndarray) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((len(x), *layer.output_shape(x.shape[1:])))


def results(layer: Layer, x: np.ndarray) -> dict[str, np.ndarray]:
    """Copies of all that a step computes: y, dx and the gradients."""
    y = layer.forward(x, training=True).copy()
    dx = layer.backward(dy_of(layer, x))
    return {"y": y, "dx": dx.copy()} | {name: array.copy() for name, array in layer.gradients.items()}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Within rounding: BLAS and NumPy may sum in another order over another batch, or in another place."""
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-13, err_msg=name)


STEP = 1e-5


def slope(function: Callable[[], float], moved: np.ndarray) -> np.ndarray:
    """The derivative of `function` for each element of `moved`, by central differences."""
    result = np.empty_like(moved)
    for index in np.ndindex(*moved.shape):
        value, ends = moved[index], []
        for moved[index] in (value + STEP, value - STEP):
            ends.append(function())
        moved[index] = value
        result[index] = (ends[0] - ends[1]) / (2 * STEP)
    return result


def check_gradients(layer: Layer, x: np.ndarray, tolerance: float = 0.0) -> None:
    """`backward` is the slope of sum(dy * y), `forward` in training or not.

    Rounding makes some 1e-16 * sum|dy y| / STEP = 1e-9 of error, tanh's third derivative 1e-10.
    """
    x = x.copy()
    dy = dy_of(layer, x)

    def function() -> float:
        return float((dy * layer.forward(x)).sum())

    trained = layer.forward(x, training=True)
    np.testing.assert_array_equal(trained, layer.forward(x))
    dx = layer.backward(dy)
    assert dx.shape == x.shape
    assert layer.gradients.keys() == layer.parameters.keys()
    moved = {"dx": x, **layer.parameters}
    for name, gradient in {"dx": dx, **layer.gradients}.items():
        expected = slope(function, moved[name])
        allowed = max(1e-8, tolerance * np.abs(expected).max())
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=allowed, err_msg=name)


class TestGradients:
    @windowed
    def test_on_every_backend(self, name: str, backend: str) -> None:
        check_gradients(layer_of(name, backend), x_of(name), kernels.get_backend(backend).tolerance)

    @pytest.mark.parametrize("name", PLAIN)
    def test_of_plain_layers(self, name: str) -> None:
        check_gradients(layer_of(name), x_of(name))

    @every
    def test_float32_stays_float32(self, name: str) -> None:
        """Numbers of float64 would double the time of what comes after."""
        layer, x = layer_of(name), x_of(name).astype(np.float32)
        for arrays in (layer.parameters, layer.gradients):
            arrays.update({part: array.astype(np.float32) for part, array in arrays.items()})
        assert layer.forward(x).dtype == np.float32
        assert layer.forward(x, training=True).dtype == np.float32
        assert layer.backward(dy_of(layer, x).astype(np.float32)).dtype == np.float32
        assert {array.dtype for array in layer.gradients.values()} <= {np.dtype(np.float32)}

    def test_default_dtype(self) -> None:
        for layer in (Conv2d(1, 2, 3), Conv1d(1, 2, 3), Linear(2, 3)):
            for arrays in (layer.parameters, layer.gradients):
                assert {name: array.dtype for name, array in arrays.items()} == {
                    "weight": np.float32,
                    "bias": np.float32,
                }


class TestNeed:
    """What nobody asks for is not computed."""

    @but_flatten
    def test_no_dx(self, name: str) -> None:
        layer, x = layer_of(name), x_of(name)
        whole = results(layer_of(name), x)
        layer.forward(x, training=True)
        assert layer.backward(dy_of(layer, x), need_dx=False) is None
        assert "dx" not in layer._buffers
        for part, gradient in layer.gradients.items():
            np.testing.assert_array_equal(gradient, whole[part])

    @windowed
    def test_backends_are_not_asked_for_dx(self, name: str, backend: str, monkeypatch) -> None:
        def refuse(*arguments: Any) -> None:
            raise AssertionError("dx was computed")

        operations = kernels.get_backend(backend).operations
        layer, x = layer_of(name, backend), x_of(name)
        kind = {"C": "conv", "M": "max_pool", "A": "avg_pool"}[name[0]]
        monkeypatch.setattr(operations, f"{kind}_dx", refuse)
        layer.forward(x, training=True)
        assert layer.backward(dy_of(layer, x), need_dx=False) is None
        layer.forward(x, training=True)
        with pytest.raises(AssertionError, match="dx was computed"):
            layer.backward(dy_of(layer, x))


class TestBuffers:
    @but_flatten
    def test_the_same_memory_from_step_to_step(self, name: str) -> None:
        layer, x = layer_of(name), x_of(name)
        memory = []
        for _ in range(2):
            y = layer.forward(x, training=True)
            memory.append((y, layer.backward(dy_of(layer, x)), *layer.gradients.values()))
        for first, second in zip(*memory, strict=True):
            assert np.shares_memory(first, second)
            assert first.ctypes.data == second.ctypes.data
        assert not np.shares_memory(y, memory[1][1])

    @but_flatten
    def test_a_smaller_batch_takes_the_front(self, name: str) -> None:
        layer = layer_of(name)
        large = layer.forward(x_of(name), training=True)
        small = layer.forward(x_of(name, 2), training=True)
        assert small.base is large.base
        assert small.ctypes.data == large.ctypes.data

    @every
    def test_any_batch_after_any_other(self, name: str) -> None:
        """As if each were the first that the layer ever saw: nothing of those before is left."""
        layer = layer_of(name)
        for N in (3, 2, 5, 1, 3):
            assert_same(results(layer, x_of(name, N)), results(layer_of(name), x_of(name, N)))

    def test_images_of_another_size_or_dtype(self) -> None:
        layer = MaxPool2d(2)
        for shape, dtype in (
            ((2, 1, 4, 4), np.float64),
            ((2, 1, 2, 6), np.float64),
            ((2, 1, 2, 6), np.float32),
        ):
            x = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
            y = layer.forward(x, training=True)
            assert y.dtype == dtype
            np.testing.assert_array_equal(y, kernels.max_pool2d(x, 2))
            assert layer.backward(y).shape == shape

    @windowed
    def test_on_every_backend(self, name: str, backend: str) -> None:
        layer = layer_of(name, backend)
        for N in (3, 1, 3):
            assert_same(results(layer, x_of(name, N)), results(layer_of(name, backend), x_of(name, N)))


class TestInference:
    @every
    def test_nothing_is_kept(self, name: str) -> None:
        layer, x = layer_of(name), x_of(name)
        before = x.copy()
        layer.forward(x)
        assert layer._saved is None
        assert layer._buffers == {}
        np.testing.assert_array_equal(x, before)

    @but_flatten
    def test_results_are_independent(self, name: str) -> None:
        layer, x = layer_of(name), x_of(name)
        trained = layer.forward(x, training=True)
        first, second = layer.forward(x), layer.forward(x + 1)
        for other in (x, trained, second, *layer._buffers.values(), *layer.parameters.values()):
            assert not np.shares_memory(first, other)
        np.testing.assert_array_equal(first, layer.forward(x))

    @every
    def test_between_forward_and_backward(self, name: str) -> None:
        """A look at the test images does not disturb the step that is under way."""
        expected = results(layer_of(name), x_of(name))
        layer, x = layer_of(name), x_of(name)
        y = layer.forward(x, training=True)
        layer.forward(x[::-1] + 1)
        np.testing.assert_array_equal(y, expected["y"])
        np.testing.assert_array_equal(layer.backward(dy_of(layer, x)), expected["dx"])

    @every
    def test_empty_batch(self, name: str) -> None:
        layer, x = layer_of(name), x_of(name, 0)
        y = layer.forward(x)
        assert (y.shape, y.dtype) == ((0, *layer.output_shape(x.shape[1:])), x.dtype)

    @windowed
    def test_empty_batch_on_every_backend(self, name: str, backend: str) -> None:
        layer, x = layer_of(name, backend), x_of(name, 0)
        assert layer.forward(x).shape == (0, *layer.output_shape(x.shape[1:]))

    @every
    def test_any_memory_layout(self, name: str) -> None:
        x = x_of(name)
        wide = np.full([2 * size for size in x.shape], np.nan)
        part = wide[tuple(slice(None, None, 2) for _ in x.shape)]
        part[...] = x
        assert_same(results(layer_of(name), part), results(layer_of(name), x))
        np.testing.assert_array_equal(part, x)


class TestBackwardWithoutForward:
    @every
    def test_words(self, name: str) -> None:
        layer, x = layer_of(name), x_of(name)
        words = f"^{type(layer).__name__}: backward without forward\\(x, training=True\\) before it$"
        dy = dy_of(layer, x)
        for need_dx in (True, False):
            with pytest.raises(ValueError, match=words):
                layer.backward(dy, need_dx)
        layer.forward(x)
        with pytest.raises(ValueError, match=words):
            layer.backward(dy)
        layer.forward(x, training=True)
        layer.backward(dy)
        with pytest.raises(ValueError, match=words):  # one for each forward
            layer.backward(dy)


class TestInPlace:
    """What `in_place` allows, an activation does; the others have no use for it."""

    @pytest.mark.parametrize("kind", [ReLU, Tanh])
    def test_activations(self, kind: type[Layer]) -> None:
        x = x_of("ReLU")
        plain, layer = kind(), kind()
        layer.in_place = True
        expected, dy = results(plain, x), dy_of(plain, x)
        for training in (False, True):
            given = x.copy()
            assert layer.forward(given, training) is given
            np.testing.assert_array_equal(given, expected["y"])
        given = dy.copy()
        assert layer.backward(given) is given
        np.testing.assert_array_equal(given, expected["dx"])

    @every
    def test_is_off_unless_asked_for(self, name: str) -> None:
        layer, x = layer_of(name), x_of(name)
        dy = dy_of(layer, x)
        arrays = {"x": x, "dy": dy, **layer.parameters}
        before = {key: array.copy() for key, array in arrays.items()}
        assert not layer.in_place
        layer.forward(x, training=True)
        layer.backward(dy)
        for key, array in arrays.items():
            np.testing.assert_array_equal(array, before[key], err_msg=key)


class TestShapes:
    @every
    def test_output_shape_is_that_of_forward(self, name: str) -> None:
        layer, x = layer_of(name), x_of(name)
        assert layer.forward(x).shape == (3, *layer.output_shape(x.shape[1:]))

    @windowed
    def test_spec(self, name: str) -> None:
        layer, x = layer_of(name), x_of(name, 7)
        spec = layer.spec(x.shape[1:], 7)
        assert isinstance(spec, ConvSpec) == name.startswith("Conv")
        channels, *size = layer.output_shape(x.shape[1:])
        height_1 = [1] if name.startswith("Conv1d") else []
        assert spec.y_shape == (7, channels, *height_1, *size)
        assert layer.spec(x.shape[1:]).N == 1
        assert spec.flops == 7 * layer.flops(x.shape[1:]) > 0

    def test_flops_of_plain_layers(self) -> None:
        """Two per multiply-add; one per number of an activation; a view is free."""
        assert Linear(5, 4).flops((5,)) == 40
        assert ReLU().flops((2, 3, 4)) == Tanh().flops((2, 3, 4)) == 24
        assert Flatten().flops((2, 3, 4)) == 0

    def test_same_padding_keeps_the_size(self) -> None:
        for kernel_size in (1, 2, 3, (4, 5)):
            assert Conv2d(1, 2, kernel_size, padding="same").output_shape((1, 5, 6)) == (2, 5, 6)
        assert Conv1d(1, 2, 4, padding="same").output_shape((1, 9)) == (2, 9)
        assert Conv2d(1, 2, 3, padding="same", stride=2).output_shape((1, 5, 6)) == (2, 3, 3)

    def test_conv1d_is_conv2d_of_height_1(self, backend: str) -> None:
        flat = layer_of("Conv1d", backend)
        tall = Conv2d(2, 3, (1, 3), stride=(1, 2), padding=(0, 1), backend=backend, dtype=F)
        for name, values in tall.parameters.items():
            values[...] = flat.parameters[name].reshape(values.shape)
        x = x_of("Conv1d")
        dy = dy_of(flat, x)
        y = tall.forward(x[:, :, None], training=True)
        np.testing.assert_array_equal(flat.forward(x, training=True), y[:, :, 0])
        dx = tall.backward(dy[:, :, None])
        np.testing.assert_array_equal(flat.backward(dy), dx[:, :, 0])
        for name, gradient in flat.gradients.items():
            np.testing.assert_array_equal(gradient, tall.gradients[name].reshape(gradient.shape))
        assert flat.flops((2, 6)) == tall.flops((2, 1, 6))

    def test_without_bias(self) -> None:
        """As with biases of 0; and there is none to learn."""
        for name, other in (("Conv2d, no bias", Conv2d(1, 2, 3, dtype=F)), ("Linear, no bias", Linear(5, 4))):
            layer, x = layer_of(name), x_of(name)
            assert list(layer.parameters) == list(layer.gradients) == ["weight"]
            assert list(other.parameters) == list(other.gradients) == ["weight", "bias"]
            other.parameters["weight"] = layer.parameters["weight"]
            np.testing.assert_array_equal(layer.forward(x), other.forward(x))

    @pytest.mark.parametrize(
        ("layer", "shape", "words"),
        [
            (Conv2d(3, 4, 3), (4, 8, 8), "Conv2d takes 3 channels; its input is (4, 8, 8)"),
            (Conv2d(4, 4, 3, groups=2), (2, 8, 8), "Conv2d takes 4 channels; its input is (2, 8, 8)"),
            (Conv1d(3, 4, 3), (1, 8), "Conv1d takes 3 channels; its input is (1, 8)"),
            (Linear(5, 4), (6,), "Linear takes 5 features; its input is (6,)"),
            (Linear(5, 4), (1, 5), "Linear takes 5 features; its input is (1, 5)"),
            (Conv2d(1, 1, 3), (1, 2, 8), "kernel 3x3 (dilation counted) is larger than the padded input 2x8"),
            (MaxPool2d(3), (1, 2, 8), "kernel 3x3 (dilation counted) is larger than the padded input 2x8"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_words(self, layer: Layer, shape: tuple[int, ...], words: str) -> None:
        with pytest.raises(ValueError) as raised:  # noqa: PT011  (the words follow)
            layer.output_shape(shape)
        assert str(raised.value).startswith(words)

    @pytest.mark.parametrize("name", [name for name in WINDOWED if name.startswith("Conv")])
    def test_words_of_forward(self, name: str) -> None:
        layer, x = layer_of(name), x_of(name)
        wrong = np.concatenate([x, x, x], axis=1)
        with pytest.raises(ValueError, match=rf"^Conv[12]d takes {x.shape[1]} channels; its input is \("):
            layer.forward(wrong, training=True)
        with pytest.raises(ValueError, match=rf"^w has .* input channels but x has {3 * x.shape[1]}"):
            layer.forward(wrong)


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (Conv2d(4, 6, (2, 3), groups=2), 12),
        (Conv1d(3, 2, 5), 15),
        (Linear(20, 3), 20),
        (Linear(7, 3, bias=False), 7),
        (MaxPool2d(2), None),
        (Tanh(), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Layer) else str(value),
)
def test_initialise_is_uniform_within_the_fan_in(layer: Layer, fan_in: int | None) -> None:
    """Each parameter in turn, weight before bias, within 1 / sqrt(inputs of one output)."""
    drawn = []

    def uniform(bound: float, count: int) -> np.ndarray:
        drawn.append((bound, count))
        return np.full(count, len(drawn), np.float32)

    layer.initialise(uniform)
    assert drawn == [(1 / np.sqrt(fan_in), array.size) for array in layer.parameters.values()]
    for number, array in enumerate(layer.parameters.values(), 1):
        assert (array == number).all()
