"""Files of named arrays: NumPy archives, safetensors, PyTorch state dicts.

The suffix says which: .npz, .safetensors, .pth or .pt. Names and shapes are those of `torch.nn`:
conv1.weight (K, C, R, S), conv1.bias (K,), fc1.weight (out, in), fc1.bias (out,). Reading never runs what is
in a file, and answers what it cannot read with a ValueError of one line.
"""

from __future__ import annotations

import importlib
import io
import pickle
import textwrap
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from kernels.files import replacing

_NPZ = "a NumPy archive (.npz)"
_SAFETENSORS = "a safetensors file"
_TORCH = "a PyTorch state dict (.pth)"

# Where checkpoints keep the state dict among other things.
_NESTED = ("state_dict", "model_state_dict", "model")

_SAFETENSORS_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip

# With the types that the library's own stub leaves out.
_deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize


class _Format(NamedTuple):
    """How to write arrays as bytes and to read them; both are given the path too, for errors."""

    encode: Callable[[Path, dict[str, np.ndarray]], bytes]
    decode: Callable[[Path, bytes], dict[str, np.ndarray]]


def save_weights(path: str | PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write `arrays` of floats, ints or bools by name, in the format of the suffix of `path`.

    The file is written whole or not at all, and its folder is made. A .pth or .pt file is what
    `torch.nn.Module.load_state_dict` takes, and needs PyTorch to be written. Raises ValueError: an unknown
    suffix, an array of another dtype, PyTorch missing.
    """
    path = Path(path)
    encode = _format(path).encode
    content = encode(path, {name: _writable(path, name, array) for name, array in arrays.items()})
    with replacing(path) as partial:
        partial.write_bytes(content)


def read_weights(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a file by name, as stored; floats of 16 bits and fewer as float32.

    A .pth or .pt file holds a state dict, or one under "state_dict", "model_state_dict" or "model"; reading
    it needs PyTorch. Raises ValueError, naming the file: an unknown suffix, a file that is missing, empty,
    cut short or of another kind, one that holds anything but arrays, PyTorch missing.
    """
    path = Path(path)
    decode = _format(path).decode
    if not path.exists():
        raise ValueError(f"{path} does not exist; expected a file of weights")
    content = path.read_bytes()
    if not content:
        raise ValueError(f"{path} is empty; expected a file of weights")
    return decode(path, content)


def check_fit(
    source: str, found: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Copies of the arrays in `found`, float32 and C-contiguous, in the order of `expected`, names to shapes.

    A prefix that all names share, such as the "module." of PyTorch's DataParallel, is dropped. Raises
    ValueError, naming `source` and the array: one is missing, not expected, of another shape, or not floats.
    """
    found = _without_prefix(found, expected)
    for name, shape in expected.items():
        if name not in found:
            raise ValueError(
                f"{source} has no {name}; expected it with shape {shape}, found {_listed(found)}"
            )
    for name, array in found.items():
        if name not in expected:
            raise ValueError(f"{source} has {name} of shape {array.shape}; expected only {_listed(expected)}")
        if array.shape != expected[name]:
            raise ValueError(f"{source}: {name} has shape {array.shape}; expected {expected[name]}")
        if array.dtype.kind != "f":
            raise ValueError(f"{source}: {name} has dtype {array.dtype}; expected floats")
    return {name: np.array(found[name], np.float32, order="C") for name in expected}


def _without_prefix(
    found: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """`found` without as much of its shared prefix as it takes for any of its names to be expected."""
    first = next(iter(found), "")
    for start in (0, *(at + 1 for at, letter in enumerate(first) if letter == ".")):
        if all(name.startswith(first[:start]) for name in found):
            renamed = {name[start:]: array for name, array in found.items()}
            if renamed.keys() & expected.keys():
                return renamed
    return dict(found)


def _listed(names: Iterable[str]) -> str:
    return textwrap.shorten(", ".join(names), 200, placeholder=" ...") or "nothing"


def _format(path: Path) -> _Format:
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        raise ValueError(f"{path} has the suffix {path.suffix!r}; expected {', '.join(_FORMATS)}") from None


def _writable(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """`array` as all formats take it: C-contiguous, in the machine's byte order."""
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise ValueError(f"{name}, for {path}, has dtype {array.dtype}; expected floats, ints or bools")
    return np.asarray(array, array.dtype.newbyteorder("="), order="C")


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _encode_npz(path: Path, arrays: dict[str, np.ndarray]) -> bytes:
    """What np.savez writes; that takes an array called "file" for an argument of its own."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()


def _decode_npz(path: Path, content: bytes) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = dict(archive)
    except Exception as error:  # zipfile, zlib and NumPy have many of their own
        raise _refusal(path, content, _NPZ, error) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # bytes, where it is no array
            raise ValueError(f"{path} holds {name}, which is no array; expected {_NPZ}")
    return {name: _widened(array) for name, array in arrays.items()}


def _encode_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> bytes:
    return safetensors.numpy.save(arrays)


def _decode_safetensors(path: Path, content: bytes) -> dict[str, np.ndarray]:
    try:
        tensors = _deserialize(content)
    except Exception as error:  # SafetensorError, and in some versions others
        raise _refusal(path, content, _SAFETENSORS, error) from error
    in_order = sorted(tensors, key=lambda tensor: tensor[0])  # the library's own order is random
    return {name: _safetensors_array(path, name, **tensor) for name, tensor in in_order}


def _safetensors_array(path: Path, name: str, dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    if dtype not in _SAFETENSORS_DTYPES:
        known = ", ".join(_SAFETENSORS_DTYPES)
        raise ValueError(f"{path}: {name} has dtype {dtype}; expected one of {known}")
    array = np.frombuffer(data, _SAFETENSORS_DTYPES[dtype]).reshape(shape)
    if dtype == "BF16":  # the upper half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return _widened(array.astype(array.dtype.newbyteorder("=")))


def _torch(path: Path) -> Any:
    """PyTorch, imported here and only for its own files: it is large, and optional."""
    remedy = "pip install 'convbench[torch]', or use .safetensors"
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise ValueError(f"{path} needs PyTorch, which is not installed; {remedy}") from None
    # Before 2.6, a file could run code in spite of weights_only (CVE-2025-32434).
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        raise ValueError(f"{path} needs PyTorch 2.6 or later, and {torch.__version__} is installed; {remedy}")
    return torch


def _encode_torch(path: Path, arrays: dict[str, np.ndarray]) -> bytes:
    torch = _torch(path)
    buffer = io.BytesIO()
    torch.save(OrderedDict((name, torch.tensor(array)) for name, array in arrays.items()), buffer)
    return buffer.getvalue()


def _decode_torch(path: Path, content: bytes) -> dict[str, np.ndarray]:
    torch = _torch(path)
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile and PyTorch have many of their own
        raise _refusal(path, content, _TORCH, error) from error
    state = _state_dict(path, loaded, torch.Tensor)
    return {name: _tensor_array(torch, path, name, tensor) for name, tensor in state.items()}


def _state_dict(path: Path, loaded: object, tensor: type) -> Mapping[str, Any]:
    """The tensors by name in `loaded`, or in what a checkpoint keeps under one of the usual names."""
    nested = [loaded[key] for key in _NESTED if key in loaded] if isinstance(loaded, Mapping) else []
    for state in (loaded, *nested):
        if isinstance(state, Mapping) and not _strangers(state, tensor):
            return state
    what = f"a {type(loaded).__name__}"
    if isinstance(loaded, Mapping):
        what += f" in which {_listed(_strangers(loaded, tensor))} is no tensor"
    raise ValueError(f"{path} holds {what}; expected {_TORCH}, as torch.save(model.state_dict(), ...) writes")


def _strangers(state: Mapping[Any, object], tensor: type) -> list[str]:
    return [
        str(key) for key, value in state.items() if not (isinstance(key, str) and isinstance(value, tensor))
    ]


def _tensor_array(torch: Any, path: Path, name: str, tensor: Any) -> np.ndarray:
    try:
        if tensor.is_floating_point() and tensor.dtype != torch.float64:
            tensor = tensor.float()  # NumPy has no bfloat16
        return np.array(tensor.detach().numpy(), order="C")
    except (TypeError, RuntimeError) as error:
        kind = f"{tensor.layout} of {tensor.dtype}"
        raise ValueError(f"{path}: {name} is {kind}; expected a dense tensor of floats") from error


def _refusal(path: Path, content: bytes, expected: str, error: Exception) -> ValueError:
    """What to say of a file that could not be read as `expected`."""
    kind = _kind(content)
    if kind != expected:
        return ValueError(f"{path} is {kind}; expected {expected}")
    if isinstance(
        error, pickle.UnpicklingError
    ):  # PyTorch's words fill a screen, and advise to trust the file
        return ValueError(f"{path} holds more than tensors, or is damaged; expected {expected}")
    reason = textwrap.shorten(str(error), 120, placeholder=" ...")
    return ValueError(
        f"{path} is {kind} that cannot be read ({reason}); expected a whole one of plain arrays"
    )


def _kind(content: bytes) -> str:
    """What a file looks like by how it begins."""
    if content.startswith(b"PK"):
        first = content[:100]  # the name of its first member stands here
        held = _TORCH if b"data.pkl" in first else _NPZ if b".npy" in first else "a zip archive"
        return held if b"PK\5\6" in content[-(2**16) :] else f"a part of {held}"  # a whole one ends with that
    if content.startswith(b"\x93NUMPY"):
        return "a single NumPy array (.npy)"
    if content[8:9] == b"{":
        return _SAFETENSORS
    return "a Python pickle" if content.startswith(b"\x80") else "a file of another kind"


_FORMATS = {
    ".npz": _Format(_encode_npz, _decode_npz),
    ".safetensors": _Format(_encode_safetensors, _decode_safetensors),
    ".pth": _Format(_encode_torch, _decode_torch),
    ".pt": _Format(_encode_torch, _decode_torch),
}
