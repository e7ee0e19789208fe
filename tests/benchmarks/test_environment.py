"""What is set before libraries are loaded, and what is left to the user."""

from __future__ import annotations

import subprocess
import sys

import pytest
from cli import environment as inherited

from benchmarks import environment
from benchmarks.environment import BLAS_TIMEOUT, SPIN_COUNT

POLICY = "OMP_WAIT_POLICY"


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    for name in (BLAS_TIMEOUT, SPIN_COUNT, POLICY):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        ({}, {BLAS_TIMEOUT, SPIN_COUNT}),
        ({BLAS_TIMEOUT: "26"}, {SPIN_COUNT}),
        ({SPIN_COUNT: "0"}, {BLAS_TIMEOUT}),
        ({POLICY: "passive"}, {BLAS_TIMEOUT}),
    ],
)
def test_what_the_user_chose_stays(monkeypatch, chosen, left):
    """A wait policy would have no effect beside a spin count."""
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    assert set(environment.waiting()) == left


@pytest.mark.parametrize(
    ("before", "expected"), [("import json", "4 5000"), ("import numpy", "None 5000")], ids=["new", "loaded"]
)
def test_what_is_loaded_is_not_said_to_have_changed(before, expected):
    code = f"""
{before}, os
from benchmarks.environment import prepare
prepare()
print(os.environ.get("{BLAS_TIMEOUT}"), os.environ["{SPIN_COUNT}"])
"""
    said = subprocess.run(
        [sys.executable, "-c", code], env=inherited(), capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == expected
