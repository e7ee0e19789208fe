"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kernels.files import replacing


def test_a_new_file_in_a_new_folder(tmp_path: Path):
    path = tmp_path / "deep" / "er" / "run.json"
    with replacing(path) as partial:
        partial.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_the_old_file_stands_until_the_end(tmp_path: Path):
    path = tmp_path / "run.json"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_the_name_keeps_folder_and_suffix_and_tells_processes_apart(tmp_path: Path):
    """Libraries choose a format by the suffix, and a rename is only atomic within one file system."""
    with replacing(tmp_path / "weights.npz") as partial:
        assert partial.parent == tmp_path
        assert partial.suffix == ".npz"
        assert str(os.getpid()) in partial.name
        partial.touch()


def test_a_failure_leaves_the_old_file_alone(tmp_path: Path):
    path = tmp_path / "run.json"
    path.write_text("old")
    with pytest.raises(TypeError, match="must be str"), replacing(path) as partial, partial.open("w") as file:
        file.writelines(["ne", None])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_to_reach_the_disk_leaves_the_old_file_alone(tmp_path: Path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError("No space left on device")

    path = tmp_path / "run.json"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), replacing(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_written_is_an_error(tmp_path: Path):
    path = tmp_path / "run.json"
    path.write_text("old")
    with pytest.raises(FileNotFoundError, match=r"\.run\.\d+-\d+\.json"), replacing(path):
        pass
    assert path.read_text() == "old"
