"""OpenVINO on the CPU: a compiled model of one operation for each layer.

https://docs.openvino.ai, the operations Convolution, GroupConvolution, MaxPool and AvgPool. Inference only.
Compiled models are kept for the layers used last.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any

import numpy as np

from kernels.arrays import grouped
from kernels.peer import Arrays, Native, inference_gap, max_pool
from kernels.registry import Op, lacking
from kernels.spec import ConvSpec, PoolSpec, Spec
from kernels.threads import active

ov: Any = importlib.import_module("openvino")
ops: Any = importlib.import_module("openvino.opset13")


def supports(spec: Spec, op: Op, dtype: np.dtype) -> str | None:
    """Forward in float32; of pooling, what OpenVINO and PyTorch mean the same by."""
    return inference_gap("OpenVINO", spec, op, dtype)


def _layer(spec: Spec, x: Any, w: Any = None) -> Any:
    """The operation on graph nodes."""
    (top, bottom), (left, right) = spec.padding
    begin, end = [top, left], [bottom, right]
    strides, dilation = list(spec.stride), list(spec.dilation)
    if isinstance(spec, ConvSpec):
        convolution = ops.convolution if spec.groups == 1 else ops.group_convolution
        return convolution(x, w, strides, begin, end, dilation)
    if spec.mode == "avg":
        return ops.avg_pool(x, strides, begin, end, [spec.R, spec.S], not spec.count_include_pad)
    return ops.max_pool(x, strides, dilation, begin, end, [spec.R, spec.S]).output(0)


def _filters(spec: ConvSpec, w: np.ndarray) -> np.ndarray:
    """w as OpenVINO has it, with an axis for the groups where there are any."""
    return w if spec.groups == 1 else grouped(spec, w)


def _request(spec: Spec, biased: bool, constants: Arrays) -> Any:
    """A request for inference, whose inputs are x, and of w and b those that are no `constants`."""
    inputs = [ops.parameter(list(spec.x_shape), np.float32)]

    def node(name: str, shape: tuple[int, ...]) -> Any:
        if name in constants:
            return ops.constant(constants[name].reshape(shape))
        inputs.append(ops.parameter(list(shape), np.float32))
        return inputs[-1]

    if isinstance(spec, ConvSpec):
        w_shape = _filters(spec, np.broadcast_to(np.float32(0), spec.w_shape)).shape
        result = _layer(spec, inputs[0], node("w", w_shape))
        if biased:
            result = ops.add(result, node("b", (1, spec.K, 1, 1)))
    else:
        result = _layer(spec, inputs[0])
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the CPU has it
        "INFERENCE_NUM_THREADS": active(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # it would leave the cores that the process is restricted to
    }
    return ov.compile_model(ov.Model([result], inputs), "CPU", settings).create_infer_request()


@lru_cache(maxsize=64)
def _kept(spec: Spec, biased: bool, threads: int) -> Any:
    """A compiled model for any weights; `threads` are those of the moment, which it keeps."""
    return _request(spec, biased, {}).get_compiled_model()


class _Alias:
    """An array as one that may be written to: OpenVINO takes no other, although it only reads its inputs."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}


def _shared(array: np.ndarray) -> Any:
    return ov.Tensor(np.asarray(_Alias(array)), shared_memory=True)


def _run(spec: Spec, arrays: list[np.ndarray], y: np.ndarray) -> None:
    # A request for each call: several threads may call at once.
    request = _kept(spec, len(arrays) == 3, active()).create_infer_request()
    for index, array in enumerate(arrays):
        request.set_input_tensor(index, _shared(array))
    request.set_output_tensor(_shared(y))
    request.infer()


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y by Convolution or GroupConvolution and Add, written in place."""
    _run(spec, [x, _filters(spec, w), *([] if b is None else [b.reshape(1, -1, 1, 1)])], y)


def max_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray, indices: np.ndarray | None) -> None:
    """y by MaxPool, of ordinary numbers; the maxima's places by NumPy."""
    max_pool(lambda: _run(spec, [x], y), spec, x, y, indices)


def avg_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray) -> None:
    """y by AvgPool."""
    _run(spec, [x], y)


conv_dx = conv_dw = conv_db = max_pool_dx = avg_pool_dx = lacking("OpenVINO")


def native(spec: Spec, op: Op, arrays: Arrays) -> Native:
    """The weights are constants of the model, as in inference; fresh results are copies of the request's."""
    weights = {name: array for name, array in arrays.items() if name != "x"}
    request = _request(spec, "b" in arrays, weights)
    x = _shared(arrays["x"])
    request.set_input_tensor(x)

    def into() -> Any:
        request.infer()
        return request.get_output_tensor()

    def shown(result: Any) -> tuple[np.ndarray, ...]:
        return (np.array(result if isinstance(result, np.ndarray) else result.data),)

    return Native(lambda: into().data.copy(), into, shown, keeps=arrays)
