"""What holds for all tests: they choose as on a machine where nothing was measured."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from benchmarks import environment

os.environ.pop("PYTEST_XDIST_WORKER", None)  # what tests start is no worker: it may time benchmarks
environment.prepare()  # before NumPy: what is measured in this process then holds for `convbench` in another

import kernels
from kernels.selection import ENVIRONMENT


@pytest.fixture(autouse=True)
def no_selection(tmp_path_factory, monkeypatch) -> Iterator[None]:
    """The user's own selection is neither read nor written, here and in child processes."""
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path_factory.getbasetemp() / "selection.json"))
    kernels.use_selection()
    yield
    kernels.use_selection()
