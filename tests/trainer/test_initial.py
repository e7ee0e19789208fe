"""First weights: uniform within their bound, a function of the seed, and PyTorch's own."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from trainer import Conv1d, Conv2d, Layer, Linear, build_model, models
from trainer.initial import TorchUniform

# What torch.rand(8) gives in PyTorch 2.13 after torch.manual_seed: seven of their decimals.
RAND = {
    0: [0.4962566, 0.7682218, 0.0884774, 0.1320305, 0.3074228, 0.6340787, 0.4900934, 0.8964447],
    1: [0.7576316, 0.2793109, 0.4030693, 0.7346845, 0.0292816, 0.7998586, 0.3971373, 0.7543719],
    2**32 - 1: [0.9937994, 0.5713063, 0.5700080, 0.0495037, 0.9930375, 0.7382545, 0.6809210, 0.2773739],
}
# zlib.crc32 over the bytes of the parameters, in order, of the networks in PyTorch 2.13 after manual_seed(0).
CHECKSUMS = {
    "mnist3": 0xB1C3855D,
    "mnist2": 0x80F732A0,
    "scratch": 0xBEDEA37A,
    "lenet": 0x97D9F26A,
    "simple": 0x276D05E8,
    "tanhavg": 0x559EDAC7,
}


@pytest.fixture(scope="module")
def torch() -> Iterator[Any]:
    """PyTorch, left as it was found: its generator is the one that everybody shares."""
    library = pytest.importorskip("torch")
    state = library.get_rng_state()
    yield library
    library.set_rng_state(state)


@pytest.mark.parametrize("seed", RAND)
def test_pytorch_numbers(seed: int) -> None:
    """Without PyTorch, by what it gave."""
    fractions = TorchUniform(seed)(0.5, 8).astype(np.float64) + 0.5
    np.testing.assert_allclose(fractions, RAND[seed], rtol=0, atol=6e-8)


@pytest.mark.parametrize("name", models())
def test_pytorch_networks(name: str) -> None:
    content = b"".join(array.tobytes() for array in build_model(name, seed=0).parameters().values())
    assert zlib.crc32(content) == CHECKSUMS[name]


class TestStream:
    @pytest.mark.parametrize("bound", [1.0, 0.2, 1 / np.sqrt(6272), 1e-3])
    def test_uniform_within_the_bound(self, bound: float) -> None:
        numbers = TorchUniform(3)(bound, 100_000)
        assert (numbers.shape, numbers.dtype) == ((100_000,), np.float32)
        assert np.abs(numbers).max() <= np.float32(bound)
        # Four standard errors of 100,000 numbers: of the mean, the variance, and the share of each tenth.
        in_bounds = numbers.astype(np.float64) / bound
        assert abs(in_bounds.mean()) < 4 * np.sqrt(1 / 3 / 100_000)
        assert abs(in_bounds.var() - 1 / 3) < 4 * np.sqrt(4 / 45 / 100_000)
        shares = np.histogram(in_bounds, np.linspace(-1.001, 1.001, 11))[0] / 100_000
        assert np.abs(shares - 0.1).max() < 4 * np.sqrt(0.09 / 100_000) + 1e-3

    def test_goes_on_from_call_to_call(self) -> None:
        parts, whole = TorchUniform(4), TorchUniform(4)(0.3, 12)
        np.testing.assert_array_equal(np.concatenate([parts(0.3, count) for count in (5, 0, 7)]), whole)

    def test_the_seed_decides(self) -> None:
        first, second = TorchUniform(5), TorchUniform(np.int64(5))
        np.testing.assert_array_equal(first(1, 50), second(1, 50))
        assert not np.isin(TorchUniform(6)(1, 50), TorchUniform(5)(1, 50)).any()

    def test_touches_no_other_generator(self) -> None:
        before = np.random.get_state()[1].copy()  # noqa: NPY002  (the global one is what this is about)
        TorchUniform(5)(1, 1000)
        np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("make", [TorchUniform, lambda seed: build_model("simple", seed=seed)])
class TestBadSeeds:
    @pytest.mark.parametrize("seed", [-1, 2**32, 10**30, np.int64(-5)])
    def test_values(self, make, seed: int) -> None:
        with pytest.raises(ValueError, match=f"^seed is {seed}; expected 0 to 4294967295$"):
            make(seed)

    @pytest.mark.parametrize("seed", [None, 1.0, "1", True, np.True_, np.float32(1), [1]])
    def test_types(self, make, seed: Any) -> None:
        with pytest.raises(TypeError) as raised:
            make(seed)
        assert str(raised.value) == f"seed is {seed!r}; expected an int"


@pytest.mark.torch
class TestPyTorch:
    """Live, to the last bit."""

    @pytest.mark.parametrize("seed", [0, 1, 12345, 2**31, 2**32 - 1])
    def test_uniform(self, torch, seed: int) -> None:
        """Counts around the length of vectors and of the generator's table, 624; bounds of all sizes."""
        uniform = TorchUniform(seed)
        torch.manual_seed(seed)
        for count in (1, 7, 8, 9, 15, 16, 17, 623, 624, 625, 5000):
            for fan_in in (1, 2, 3, 9, 25, 150, 1600, 6272):
                bound = 1 / np.sqrt(fan_in)
                theirs = torch.empty(count).uniform_(-bound, bound).numpy()
                np.testing.assert_array_equal(uniform(bound, count), theirs)

    @staticmethod
    def theirs(torch, layer: Layer) -> Any:
        """The same layer of `torch.nn`."""
        first, second, *window = layer.parameters["weight"].shape
        bias = "bias" in layer.parameters
        if isinstance(layer, Linear):
            return torch.nn.Linear(second, first, bias)
        groups = layer.geometry["groups"]
        kind = torch.nn.Conv2d if isinstance(layer, Conv2d) else torch.nn.Conv1d
        return kind(second * groups, first, tuple(window), groups=groups, bias=bias)

    def assert_same(self, torch, layers: list[Layer]) -> None:
        for layer in layers:
            state = self.theirs(torch, layer).state_dict()
            assert list(state) == list(layer.parameters)
            for name, tensor in state.items():
                np.testing.assert_array_equal(layer.parameters[name], tensor.numpy(), strict=True)

    @pytest.mark.parametrize("seed", [0, 7])
    def test_layers(self, torch, seed: int) -> None:
        layers = [
            Linear(11, 5),
            Conv2d(4, 6, (2, 3), groups=2),
            Linear(3, 2, bias=False),
            Conv1d(6, 3, 5, groups=3),
            Conv2d(3, 2, 7, bias=False),
            Linear(1, 1),
        ]
        uniform = TorchUniform(seed)
        for layer in layers:
            layer.initialise(uniform)
        torch.manual_seed(seed)
        self.assert_same(torch, layers)

    @pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
    @pytest.mark.parametrize("name", models())
    def test_networks(self, torch, name: str, seed: int) -> None:
        model = build_model(name, seed=seed)
        torch.manual_seed(seed)
        self.assert_same(torch, [layer for layer in model.layers.values() if layer.parameters])
