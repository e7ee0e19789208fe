"""ONNX Runtime on the CPU: a model of one node for each layer.

https://onnxruntime.ai, the operators Conv, MaxPool and AveragePool of https://onnx.ai. Inference only.
Sessions are kept for the layers used last.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any

import numpy as np

from kernels.peer import Arrays, Native, inference_gap, max_pool
from kernels.registry import Op, lacking
from kernels.spec import ConvSpec, PoolSpec, Spec
from kernels.threads import active

onnx: Any = importlib.import_module("onnx")
onnxruntime: Any = importlib.import_module("onnxruntime")
_OPSET, _IR = 19, 9
"""Old enough for the runtimes of some years."""


def supports(spec: Spec, op: Op, dtype: np.dtype) -> str | None:
    """Forward in float32; of pooling, what ONNX Runtime and PyTorch mean the same by."""
    return inference_gap("ONNX Runtime", spec, op, dtype)


def _node(spec: Spec, inputs: list[str]) -> Any:
    (top, bottom), (left, right) = spec.padding
    window: dict[str, Any] = {
        "kernel_shape": [spec.R, spec.S],
        "strides": list(spec.stride),
        "pads": [top, left, bottom, right],
    }
    if isinstance(spec, PoolSpec) and spec.mode == "avg":
        flag = int(spec.count_include_pad)
        return onnx.helper.make_node("AveragePool", inputs, ["y"], count_include_pad=flag, **window)
    window["dilations"] = list(spec.dilation)
    if isinstance(spec, PoolSpec):
        return onnx.helper.make_node("MaxPool", inputs, ["y"], **window)
    return onnx.helper.make_node("Conv", inputs, ["y"], group=spec.groups, **window)


def _session(spec: Spec, biased: bool, constants: Arrays) -> Any:
    """A session whose inputs are x, and of w and b those that are no `constants`."""
    shapes = {"x": spec.x_shape}
    if isinstance(spec, ConvSpec):
        shapes |= {"w": spec.w_shape, **({"b": (spec.K,)} if biased else {})}  # type: ignore[dict-item]
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [_node(spec, list(shapes))],
        "layer",
        [helper.make_tensor_value_info(name, kind, shapes[name]) for name in shapes if name not in constants],
        [helper.make_tensor_value_info("y", kind, spec.y_shape)],
        [onnx.numpy_helper.from_array(constants[name], name) for name in shapes if name in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = active(), 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


@lru_cache(maxsize=64)
def _kept(spec: Spec, biased: bool, threads: int) -> Any:
    """A session for any weights; `threads` are those of the moment, which it keeps."""
    return _session(spec, biased, {})


def _run(spec: Spec, arrays: dict[str, np.ndarray], y: np.ndarray) -> None:
    session = _kept(spec, "b" in arrays, active())
    session.run_with_iobinding(_binding(session, arrays, y))


def _binding(session: Any, arrays: dict[str, np.ndarray], y: np.ndarray) -> Any:
    """Inputs and the output where they are, without a copy."""
    binding = session.io_binding()
    for name, array in arrays.items():
        binding.bind_cpu_input(name, array)
    binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)
    return binding


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y by Conv, which writes it in place."""
    _run(spec, {"x": x, "w": w, **({} if b is None else {"b": b})}, y)


def max_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray, indices: np.ndarray | None) -> None:
    """y by MaxPool, of ordinary numbers; the maxima's places by NumPy."""
    max_pool(lambda: _run(spec, {"x": x}, y), spec, x, y, indices)


def avg_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray) -> None:
    """y by AveragePool."""
    _run(spec, {"x": x}, y)


conv_dx = conv_dw = conv_db = max_pool_dx = avg_pool_dx = lacking("ONNX Runtime")


def native(spec: Spec, op: Op, arrays: Arrays) -> Native:
    """The weights are constants of the model, as in inference: they are packed before the first call."""
    x = arrays["x"]
    session = _session(spec, "b" in arrays, {name: array for name, array in arrays.items() if name != "x"})
    feed, y = {"x": x}, np.empty(spec.y_shape, np.float32)
    binding = _binding(session, feed, y)

    def into() -> np.ndarray:
        session.run_with_iobinding(binding)
        return y

    return Native(lambda: session.run(["y"], feed)[0], into, lambda result: (result,))
