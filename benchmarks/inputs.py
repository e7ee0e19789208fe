"""The data that layers are measured on: fresh, random, the same for every backend."""

from __future__ import annotations

import zlib

import numpy as np

from kernels.problem import Problem
from kernels.registry import Op
from kernels.spec import Spec
from trainer import load_data


def make_problem(layer: Spec, op: Op, dtype: str) -> Problem:
    """`op` on `layer`: real digits for one-channel 28x28 images, else standard normal numbers.

    The seed follows from the problem, so that every run and every backend sees the same data.
    """
    seed = zlib.crc32(f"{layer.kind} {layer.descriptor} {op}".encode())
    if layer.x_shape[1:] == (1, 28, 28):
        return Problem.random(layer, op, dtype, seed, x=_digits(layer.N, seed).astype(dtype))
    return Problem.random(layer, op, dtype, seed)


def _digits(n: int, seed: int) -> np.ndarray:
    images = load_data("digits").train_images
    picked = np.random.default_rng(seed).choice(len(images), n, replace=n > len(images))
    return images[picked]
