"""A network: named layers in a row, their parameters side by side in one array."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from kernels import Spec, backends, choose
from trainer.initial import TorchUniform
from trainer.layers import Flatten, Layer, Shape, Windowed
from trainer.weights import check_fit, read_weights, save_weights


class Model:
    """Layers in a row, called as `model(x)`; `str(model)` is a table of them.

    `layers` maps names ("conv1", "relu1", "fc1") to layers, in order; `shape` is that of one input image,
    (C, H, W). `backend` is one name for all convolutions and poolings, or maps layers' names to backends,
    with "auto" for those left out. Initial weights follow from `seed`: those of the same network in PyTorch
    after `torch.manual_seed(seed)`. Raises ValueError for layers that do not fit, or unknown names.
    """

    def __init__(
        self,
        name: str,
        layers: Mapping[str, Layer],
        shape: Shape,
        *,
        backend: str | Mapping[str, str] = "auto",
        seed: int = 0,
    ) -> None:
        self.name = name
        self.layers = dict(layers)
        self.shape = shape
        self.backend = backend
        self.seed = seed
        for _ in self._shapes():  # raises where a layer does not fit
            pass
        self._assign_backends()
        self._allow_in_place()
        uniform = TorchUniform(seed)
        for layer in self.layers.values():
            layer.initialise(uniform)
        self.values, self.slopes = self._side_by_side()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The logits (N, classes) of x (N, C, H, W); keeps nothing; safe in several threads at once."""
        return self.forward(x, training=False)

    def forward(self, x: np.ndarray, training: bool = True) -> np.ndarray:
        """As calling the model, but keeps what `backward` needs, in buffers that the next call reuses."""
        if not isinstance(x, np.ndarray) or x.shape[1:] != self.shape:
            what = x.shape if isinstance(x, np.ndarray) else type(x).__name__
            raise ValueError(f"x is {what}; expected an array (N, {', '.join(map(str, self.shape))})")
        if x.dtype != self.dtype:
            raise TypeError(f"x has dtype {x.dtype}; expected {self.dtype}, from 0 to 1")
        for layer in self.layers.values():
            x = layer.forward(x, training)
        return x

    def backward(self, dlogits: np.ndarray) -> None:
        """Set all gradients, given that of the logits of the last `forward`; may overwrite `dlogits`."""
        gradient: np.ndarray | None = dlogits
        first = self.first_with_parameters
        for name, layer in reversed(self.layers.items()):
            assert gradient is not None
            gradient = layer.backward(gradient, need_dx=name != first)
            if name == first:
                break

    @property
    def dtype(self) -> np.dtype:
        """The parameters' dtype, and that of images and logits."""
        return self.values.dtype

    @property
    def first_with_parameters(self) -> str:
        """The name of the layer where backward ends: none before it has anything to learn."""
        return next(name for name, layer in self.layers.items() if layer.parameters)

    def parameters(self) -> dict[str, np.ndarray]:
        """The parameters themselves, by name: "conv1.weight" (K, C, R, S), "conv1.bias" (K,), ..."""
        return {
            f"{name}.{part}": array
            for name, layer in self.layers.items()
            for part, array in layer.parameters.items()
        }

    def gradients(self) -> dict[str, np.ndarray]:
        """The gradients that the last `backward` has set, by the parameters' names."""
        return {
            f"{name}.{part}": array
            for name, layer in self.layers.items()
            for part, array in layer.gradients.items()
        }

    def specs(self, N: int = 1) -> dict[str, Spec]:
        """The geometry of each convolution and pooling over `N` images, each named "model:layer"."""
        return {
            name: replace(layer.spec(before, N), name=f"{self.name}:{name}")
            for name, layer, before, _ in self._shapes()
            if isinstance(layer, Windowed)
        }

    def save(self, path: str | Path) -> None:
        """Write the parameters as .npz, .safetensors, or .pth (which PyTorch loads), by the path's suffix."""
        save_weights(path, self.parameters())

    def load(self, path: str | Path) -> None:
        """Take the parameters from a file as `save` or PyTorch writes it; all of them, or none.

        Raises ValueError: a file that is none, or that does not fit, with the tensor and both shapes.
        """
        self.assign(read_weights(path), str(path))

    def assign(self, arrays: Mapping[str, np.ndarray], source: str = "weights") -> None:
        """Copy `arrays`, one for each parameter by name, into the parameters; `source` is for errors."""
        parameters = self.parameters()
        fitting = check_fit(source, arrays, {name: array.shape for name, array in parameters.items()})
        for name, array in fitting.items():
            parameters[name][...] = array

    def __repr__(self) -> str:
        return f"<Model {self.name}: {len(self.layers)} layers, {self.values.size:,} parameters>"

    def __str__(self) -> str:
        rows = [("layer", "output", "parameters", "FLOPs", "backend")]
        flops = 0
        for name, layer, before, after in self._shapes():
            if isinstance(layer, Flatten):
                continue
            flops += layer.flops(before)
            size = sum(array.size for array in layer.parameters.values())
            shape = " x ".join(map(str, after))
            rows.append(
                (
                    name,
                    shape,
                    f"{size:,}" if size else "",
                    f"{layer.flops(before):,}",
                    _backend(layer, before),
                )
            )
        rows.append(("total", "", f"{self.values.size:,}", f"{flops:,}", ""))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, "<<>><", widths, strict=True))
            for row in rows
        ]
        title = f"{self.name}: {' x '.join(map(str, self.shape))} images; shapes and FLOPs are for one image"
        return "\n".join([title, *map(str.rstrip, lines)])

    def _shapes(self) -> Iterator[tuple[str, Layer, Shape, Shape]]:
        """Each layer with its name, and the shapes of one image before and after it."""
        shape = self.shape
        for name, layer in self.layers.items():
            try:
                after = layer.output_shape(shape)
            except ValueError as error:
                raise ValueError(f"layer {name!r} of {self.name!r}: {error}") from error
            yield name, layer, shape, after
            shape = after

    def _assign_backends(self) -> None:
        windowed = {name: layer for name, layer in self.layers.items() if isinstance(layer, Windowed)}
        if isinstance(self.backend, str):
            wanted = dict.fromkeys(windowed, self.backend)
        else:
            wanted = dict.fromkeys(windowed, "auto") | dict(self.backend)
        for name, backend in wanted.items():
            if name not in windowed:
                raise ValueError(
                    f"backend names layer {name!r}; expected some of {', '.join(windowed)} of {self.name}"
                )
            if backend != "auto" and backend not in backends():
                raise ValueError(f"backend is {backend!r}; expected one of auto, {', '.join(backends())}")
            windowed[name].backend = backend

    def _allow_in_place(self) -> None:
        """Let a layer overwrite what the one before it made, where that one never looks at it again."""
        in_a_row = list(self.layers.values())
        for before, layer in pairwise(in_a_row):
            layer.in_place = not before.needs_output and not isinstance(before, Flatten)
        in_a_row[0].in_place = False

    def _side_by_side(self) -> tuple[np.ndarray, np.ndarray]:
        """All parameters as one array and all gradients as another; the layers hold views of them."""
        parts = [(layer, part) for layer in self.layers.values() for part in layer.parameters]
        values = np.concatenate([layer.parameters[part].ravel() for layer, part in parts])
        slopes = np.zeros_like(values)
        start = 0
        for layer, part in parts:
            shape, stop = layer.parameters[part].shape, start + layer.parameters[part].size
            layer.parameters[part] = values[start:stop].reshape(shape)
            layer.gradients[part] = slopes[start:stop].reshape(shape)
            start = stop
        return values, slopes


def _backend(layer: Layer, shape: Shape) -> str:
    """In words, what computes the layer."""
    if not isinstance(layer, Windowed):
        return ""
    return (
        f"auto: {choose(layer.spec(shape), 'forward', np.float32)}"
        if layer.backend == "auto"
        else layer.backend
    )
