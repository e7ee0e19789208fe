"""Files of weights: what is written is read, what is not weights is refused, nothing in a file is run."""

from __future__ import annotations

import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import trainer.weights
from trainer.weights import check_fit, read_weights, save_weights

SUFFIXES = [
    ".npz",
    ".safetensors",
    pytest.param(".pth", marks=pytest.mark.torch),
    pytest.param(".pt", marks=pytest.mark.torch),
]

SHAPES = {"conv1.weight": (2, 1, 3, 3), "conv1.bias": (2,), "fc1.weight": (4, 8), "fc1.bias": (4,)}


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _library(request: pytest.FixtureRequest) -> None:
    """PyTorch is there, or the test is skipped, wherever the mark says that it takes it."""
    if request.node.get_closest_marker("torch"):
        pytest.importorskip("torch")


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, strict=True)


def refusal(path: Path) -> str:
    """What `read_weights` says of a file: one line, which names it."""
    with pytest.raises(ValueError, match=r"expected|needs") as raised:
        read_weights(path)
    words = str(raised.value)
    assert "\n" not in words
    assert words.startswith(str(path))
    return words.removeprefix(str(path)).strip(" :")


class TestRoundTrips:
    @pytest.mark.parametrize("suffix", [*SUFFIXES, ".NPZ"])
    def test_values_shapes_and_dtypes_stay(self, tmp_path: Path, weights, suffix: str):
        weights["conv1.bias"] = weights["conv1.bias"].astype(np.float64)
        weights["steps"] = np.array(3)
        weights["none"] = np.empty((0, 3), np.float32)
        weights["odd"] = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)
        path = tmp_path / f"lenet{suffix}"
        save_weights(path, weights)
        found = read_weights(str(path))
        same(found, weights)
        assert all(array.flags.writeable for array in found.values())
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_any_memory_layout(self, tmp_path: Path, suffix: str):
        values = np.arange(24, dtype=np.float32).reshape(4, 6)
        read_only = values.copy()
        read_only.flags.writeable = False
        arrays = {
            "transposed": values.T,
            "sliced": values[::2, 1::3],
            "reversed": values[::-1],
            "big_endian": values.astype(">f4"),
            "read_only": read_only,
        }
        save_weights(tmp_path / f"w{suffix}", arrays)
        same(
            read_weights(tmp_path / f"w{suffix}"),
            {name: array.astype("f4") for name, array in arrays.items()},
        )

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_halves_are_read_as_float32(self, tmp_path: Path, weights, suffix: str):
        halves = {name: array.astype(np.float16) for name, array in weights.items()}
        save_weights(tmp_path / f"w{suffix}", halves)
        found = read_weights(tmp_path / f"w{suffix}")
        same(found, {name: array.astype(np.float32) for name, array in halves.items()})

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_names_that_functions_take_for_their_own(self, tmp_path: Path, suffix: str):
        arrays = {name: np.ones(1, np.float32) for name in ("file", "allow_pickle", "self", "a/b", "Größe")}
        save_weights(tmp_path / f"w{suffix}", arrays)
        same(read_weights(tmp_path / f"w{suffix}"), arrays)

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_no_arrays(self, tmp_path: Path, suffix: str):
        save_weights(tmp_path / f"w{suffix}", {})
        assert read_weights(tmp_path / f"w{suffix}") == {}

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_the_same_weights_give_the_same_bytes(self, tmp_path: Path, weights, suffix: str):
        for name in ("one", "other"):
            save_weights(tmp_path / f"{name}{suffix}", weights)
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"other{suffix}").read_bytes()

    def test_numpy_reads_what_is_written(self, tmp_path: Path, weights):
        save_weights(tmp_path / "w.npz", weights)
        with np.load(tmp_path / "w.npz") as archive:
            same(dict(archive), weights)

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_what_numpy_writes_is_read(self, tmp_path: Path, weights, save):
        save(tmp_path / "w.npz", **weights)
        same(read_weights(tmp_path / "w.npz"), weights)

    def test_safetensors_reads_what_is_written_and_the_other_way_round(self, tmp_path: Path, weights):
        save_weights(tmp_path / "ours.safetensors", weights)
        same(safetensors.numpy.load_file(tmp_path / "ours.safetensors"), weights)
        safetensors.numpy.save_file(weights, tmp_path / "theirs.safetensors", {"epochs": "3"})
        same(read_weights(tmp_path / "theirs.safetensors"), weights)

    def test_safetensors_of_bfloat16(self, tmp_path: Path):
        """-1.5 and 3.140625 are bfloat16; as such they are the upper halves of their float32."""
        values = np.array([-1.5, 3.140625, np.inf], np.float32)
        upper = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
        path = safetensors_of(tmp_path, "BF16", [3], upper)
        same(read_weights(path), {"a": values})


def safetensors_of(folder: Path, dtype: str, shape: list[int], data: bytes) -> Path:
    """A file of one tensor called "a", written by hand."""
    header = f'{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{len(data)}]}}}}'.encode()
    path = folder / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


@pytest.mark.torch
class TestPyTorch:
    @pytest.fixture
    def module(self, torch) -> Any:
        layers = OrderedDict(
            conv1=torch.nn.Conv2d(1, 2, 3),
            relu=torch.nn.ReLU(),
            flat=torch.nn.Flatten(),
            fc1=torch.nn.Linear(8, 4),
        )
        return torch.nn.Sequential(layers)

    @staticmethod
    def arrays(module: Any) -> dict[str, np.ndarray]:
        return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}

    @pytest.mark.parametrize("suffix", [".pth", ".pt"])
    def test_a_module_loads_what_is_written(self, tmp_path: Path, torch, module, weights, suffix: str):
        save_weights(tmp_path / f"w{suffix}", weights)
        assert not module.load_state_dict(torch.load(tmp_path / f"w{suffix}")).missing_keys
        same(self.arrays(module), weights)
        assert module(torch.zeros(1, 1, 4, 4)).shape == (1, 4)

    @pytest.mark.parametrize("zipped", [True, False])
    def test_what_a_module_saves_is_read(self, tmp_path: Path, torch, module, zipped: bool):
        torch.save(module.state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
        found = read_weights(tmp_path / "w.pth")
        same(found, self.arrays(module))
        same(check_fit("w.pth", found, SHAPES), self.arrays(module))

    @pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
    def test_checkpoints(self, tmp_path: Path, torch, module, key: str):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        checkpoint = {"epoch": 3, "optimizer": optimizer.state_dict(), key: module.state_dict()}
        torch.save(checkpoint, tmp_path / "w.pth")
        same(read_weights(tmp_path / "w.pth"), self.arrays(module))

    def test_data_parallel(self, tmp_path: Path, torch, module):
        torch.save(torch.nn.DataParallel(module).state_dict(), tmp_path / "w.pth")
        same(check_fit("w.pth", read_weights(tmp_path / "w.pth"), SHAPES), self.arrays(module))

    def test_parameters_and_other_memory_formats(self, tmp_path: Path, torch, module):
        module.to(memory_format=torch.channels_last)
        torch.save(dict(module.named_parameters()), tmp_path / "w.pth")
        found = read_weights(tmp_path / "w.pth")
        same(found, self.arrays(module))
        assert all(array.flags.c_contiguous for array in found.values())

    def test_small_floats_are_read_as_float32(self, tmp_path: Path, torch):
        values = torch.tensor([-1.5, 3.25, 0.0])
        dtypes = torch.bfloat16, torch.float16, torch.float8_e4m3fn
        torch.save({str(dtype): values.to(dtype) for dtype in dtypes}, tmp_path / "w.pth")
        same(read_weights(tmp_path / "w.pth"), {str(dtype): values.numpy() for dtype in dtypes})

    def test_bfloat16_as_safetensors_writes_it(self, tmp_path: Path, torch):
        library = pytest.importorskip("safetensors.torch")
        values = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
        library.save_file({"a": values}, tmp_path / "w.safetensors")
        same(read_weights(tmp_path / "w.safetensors"), {"a": values.float().numpy()})

    def test_a_sparse_tensor(self, tmp_path: Path, torch):
        path = tmp_path / "w.pth"
        torch.save({"fc1.weight": torch.eye(3).to_sparse()}, path)
        assert (
            refusal(path)
            == "fc1.weight is torch.sparse_coo of torch.float32; expected a dense tensor of floats"
        )

    def test_no_dict_of_tensors(self, tmp_path: Path, torch):
        path = tmp_path / "w.pth"
        remedy = "expected a PyTorch state dict (.pth), as torch.save(model.state_dict(), ...) writes"
        for value, what in [
            (torch.ones(3), "a Tensor"),
            ([torch.ones(3)], "a list"),
            ({"fc1.weight": torch.ones(3), "epoch": 3, "lr": 0.1}, "a dict in which epoch, lr is no tensor"),
            ({0: torch.ones(3)}, "a dict in which 0 is no tensor"),
            ({"model": {"epoch": 3}}, "a dict in which model is no tensor"),
        ]:
            torch.save(value, path)
            assert refusal(path) == f"holds {what}; {remedy}"

    def test_a_whole_module(self, tmp_path: Path, torch, module):
        torch.save(module, tmp_path / "w.pth")
        words = "holds more than tensors, or is damaged; expected a PyTorch state dict (.pth)"
        assert refusal(tmp_path / "w.pth") == words

    def test_a_part_of_a_file(self, tmp_path: Path, torch, module):
        path = tmp_path / "w.pth"
        for zipped, what in ((True, "a part of a PyTorch state dict (.pth)"), (False, "a Python pickle")):
            torch.save(module.state_dict(), path, _use_new_zipfile_serialization=zipped)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            assert refusal(path) == f"is {what}; expected a PyTorch state dict (.pth)"


class Trap:
    """Makes a folder, if ever it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


class TestNothingIsRun:
    @pytest.fixture
    def trap(self, tmp_path: Path) -> Iterator[Trap]:
        trap = Trap(tmp_path / "sprung")
        yield trap
        assert not trap.folder.exists()

    def test_the_trap_works(self, tmp_path: Path):
        pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
        assert (tmp_path / "sprung").exists()

    @pytest.mark.torch
    @pytest.mark.parametrize("zipped", [True, False])
    def test_pytorch_files(self, tmp_path: Path, torch, trap: Trap, zipped: bool):
        state = {"fc1.weight": torch.ones(3), "fc1.bias": trap}
        torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
        what = "holds more than tensors, or is damaged" if zipped else "is a Python pickle"
        assert refusal(tmp_path / "w.pth") == f"{what}; expected a PyTorch state dict (.pth)"

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_bare_pickles(self, tmp_path: Path, trap: Trap, suffix: str):
        path = tmp_path / f"w{suffix}"
        path.write_bytes(pickle.dumps(trap))
        assert refusal(path).startswith("is a Python pickle; expected a")

    def test_object_arrays(self, tmp_path: Path, trap: Trap):
        np.savez(tmp_path / "w.npz", a=np.array([trap], object))
        assert refusal(tmp_path / "w.npz") == (
            "is a NumPy archive (.npz) that cannot be read (Object arrays cannot be loaded when "
            "allow_pickle=False); expected a whole one of plain arrays"
        )


KINDS = {
    ".npz": "a NumPy archive (.npz)",
    ".safetensors": "a safetensors file",
    ".pth": "a PyTorch state dict (.pth)",
    ".pt": "a PyTorch state dict (.pth)",
}


@pytest.mark.parametrize("suffix", SUFFIXES)
class TestForeignFiles:
    def test_missing(self, tmp_path: Path, suffix: str):
        assert refusal(tmp_path / f"w{suffix}") == "does not exist; expected a file of weights"

    def test_empty(self, tmp_path: Path, suffix: str):
        path = tmp_path / f"w{suffix}"
        path.touch()
        assert refusal(path) == "is empty; expected a file of weights"

    @pytest.mark.parametrize(
        ("content", "what"),
        [
            (b"conv1.weight 1 2 3", "a file of another kind"),
            (b"?", "a file of another kind"),
            (b"\x93NUMPY\x01\x00\x76\x00{", "a single NumPy array (.npy)"),
            (b"PK\x03\x04 and what else", "a part of a zip archive"),
        ],
    )
    def test_another_kind(self, tmp_path: Path, suffix: str, content: bytes, what: str):
        path = tmp_path / f"w{suffix}"
        path.write_bytes(content)
        assert refusal(path) == f"is {what}; expected {KINDS[suffix]}"

    def test_a_zip_archive(self, tmp_path: Path, suffix: str):
        path = tmp_path / f"w{suffix}"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "Hello")
        reason = "holds readme.txt, which is no array" if suffix == ".npz" else "is a zip archive"
        assert refusal(path) == f"{reason}; expected {KINDS[suffix]}"

    @pytest.mark.parametrize("other", [".npz", ".safetensors"])
    def test_the_suffix_of_another_format(self, tmp_path: Path, weights, suffix: str, other: str):
        if suffix != other:
            save_weights(tmp_path / f"w{other}", weights)
            path = (tmp_path / f"w{other}").rename(tmp_path / f"w{suffix}")
            assert refusal(path) == f"is {KINDS[other]}; expected {KINDS[suffix]}"

    def test_cut_short_anywhere(self, tmp_path: Path, weights, suffix: str):
        path = tmp_path / f"w{suffix}"
        save_weights(path, weights)
        content = path.read_bytes()
        for length in np.linspace(1, len(content) - 1, 50, dtype=int):
            path.write_bytes(content[:length])
            assert "expected" in refusal(path)

    def test_noise_in_the_middle(self, tmp_path: Path, weights, suffix: str):
        """Read or refused: whatever a file's bytes are, there is no other error."""
        path = tmp_path / f"w{suffix}"
        save_weights(path, weights)
        content = path.read_bytes()
        rng = np.random.default_rng(0)
        for _ in range(50):
            damaged = bytearray(content)
            for position in rng.integers(len(content), size=8):
                damaged[position] = rng.integers(256)
            path.write_bytes(damaged)
            with suppress(ValueError):
                read_weights(path)

    def test_an_interrupted_write_leaves_the_old_file(
        self, tmp_path: Path, weights, suffix: str, monkeypatch
    ):
        def full(descriptor: int) -> None:
            raise OSError("No space left on device")

        path = tmp_path / f"w{suffix}"
        save_weights(path, weights)
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            save_weights(path, {name: array + 1 for name, array in weights.items()})
        same(read_weights(path), weights)
        assert list(tmp_path.iterdir()) == [path]

    def test_arrays_of_objects_are_not_written(self, tmp_path: Path, suffix: str):
        path = tmp_path / f"w{suffix}"
        for array, dtype in (
            (np.array([None]), "object"),
            (np.array(["a"]), "<U1"),
            (np.ones(1, "c8"), "complex64"),
        ):
            with pytest.raises(ValueError, match="expected floats") as raised:
                save_weights(path, {"a": array})
            assert str(raised.value) == f"a, for {path}, has dtype {dtype}; expected floats, ints or bools"
        assert not path.exists()


def test_half_of_safetensors(tmp_path: Path, weights):
    path = tmp_path / "w.safetensors"
    save_weights(path, weights)
    path.write_bytes(path.read_bytes()[:-8])
    words = refusal(path)
    assert words.startswith("is a safetensors file that cannot be read (")
    assert words.endswith("; expected a whole one of plain arrays")


def test_safetensors_of_a_dtype_that_numpy_lacks(tmp_path: Path, monkeypatch):
    """I8 in the role of those of 8 bits and fewer, which not every version of the library knows."""
    monkeypatch.delitem(trainer.weights._SAFETENSORS_DTYPES, "I8")
    path = safetensors_of(tmp_path, "I8", [2], b"\0\0")
    words = "a has dtype I8; expected one of F64, F32, F16, BF16, BOOL, I64, I32, I16, U64, U32, U16, U8"
    assert refusal(path) == words


@pytest.mark.parametrize("name", ["w.h5", "w", "w.npz.gz"])
def test_an_unknown_suffix(tmp_path: Path, name: str):
    path = tmp_path / name
    words = f"has the suffix {path.suffix!r}; expected .npz, .safetensors, .pth, .pt"
    assert refusal(path) == words
    with pytest.raises(ValueError, match="has the suffix"):
        save_weights(path, {})


@pytest.mark.parametrize(
    ("library", "what"),
    [
        (None, "needs PyTorch, which is not installed"),
        (SimpleNamespace(__version__="2.5.1+cpu"), "needs PyTorch 2.6 or later, and 2.5.1+cpu is installed"),
    ],
)
def test_without_pytorch(tmp_path: Path, monkeypatch, library: object, what: str):
    monkeypatch.setitem(sys.modules, "torch", library)
    path = tmp_path / "w.pth"
    path.write_bytes(b"anything")
    words = f"{what}; pip install 'convbench[torch]', or use .safetensors"
    assert refusal(path) == words
    with pytest.raises(ValueError, match="PyTorch") as raised:
        save_weights(path, {})
    assert str(raised.value) == f"{path} {words}"
    assert path.read_bytes() == b"anything"


class TestCheckFit:
    @staticmethod
    def refusal(found: dict[str, np.ndarray]) -> str:
        with pytest.raises(ValueError, match=r"^lenet\.npz") as raised:
            check_fit("lenet.npz", found, SHAPES)
        return str(raised.value)

    def test_copies_in_the_order_expected(self, weights):
        given = {name: np.asfortranarray(weights[name].astype(">f8")) for name in reversed(SHAPES)}
        fitted = check_fit("lenet.npz", given, SHAPES)
        assert list(fitted) == list(SHAPES)
        same(fitted, weights)
        assert all(array.flags.c_contiguous for array in fitted.values())
        again = check_fit("lenet.npz", fitted, SHAPES)
        assert not any(np.may_share_memory(again[name], fitted[name]) for name in SHAPES)

    @pytest.mark.parametrize("prefix", ["module.", "module.net.", "conv1."])
    def test_a_shared_prefix_is_dropped(self, weights, prefix: str):
        same(check_fit("w", {prefix + name: array for name, array in weights.items()}, SHAPES), weights)

    def test_a_prefix_that_is_expected_stays(self, weights):
        convolution = {name: array for name, array in weights.items() if name.startswith("conv1.")}
        same(check_fit("w", convolution, {name: SHAPES[name] for name in convolution}), convolution)

    def test_non_finite_values(self, weights):
        weights["fc1.bias"][:3] = np.nan, np.inf, -np.inf
        same(check_fit("w", weights, SHAPES), weights)

    def test_missing(self, weights):
        del weights["fc1.weight"]
        assert self.refusal(weights) == (
            "lenet.npz has no fc1.weight; expected it with shape (4, 8), "
            "found conv1.weight, conv1.bias, fc1.bias"
        )
        assert (
            self.refusal({})
            == "lenet.npz has no conv1.weight; expected it with shape (2, 1, 3, 3), found nothing"
        )

    def test_many_names_are_cut_short(self):
        words = self.refusal({f"block{number}.weight": np.ones(1) for number in range(1000)})
        assert len(words) < 300
        assert words.endswith(" ...")

    def test_missing_beside_a_prefix_on_some(self, weights):
        weights["module.fc1.bias"] = weights.pop("fc1.bias")
        assert self.refusal(weights).startswith(
            "lenet.npz has no fc1.bias; expected it with shape (4,), found "
        )

    def test_unexpected(self, weights):
        weights["fc2.bias"] = np.ones(3, np.float32)
        assert self.refusal(weights) == (
            "lenet.npz has fc2.bias of shape (3,); "
            "expected only conv1.weight, conv1.bias, fc1.weight, fc1.bias"
        )

    def test_shape(self, weights):
        weights["fc1.weight"] = weights["fc1.weight"].T
        assert self.refusal(weights) == "lenet.npz: fc1.weight has shape (8, 4); expected (4, 8)"

    @pytest.mark.parametrize("dtype", [np.int64, bool, np.complex64, object, "U3"])
    def test_dtype(self, weights, dtype):
        weights["fc1.bias"] = np.ones(4).astype(dtype)
        assert self.refusal(weights) == f"lenet.npz: fc1.bias has dtype {np.dtype(dtype)}; expected floats"
