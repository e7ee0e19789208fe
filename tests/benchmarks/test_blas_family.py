"""OpenBLAS's kernels are chosen by the CPU's flags, before NumPy is there, and never against the user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli import environment

from benchmarks.blas_family import CORETYPE, MARK, NEEDED, choose_blas_family
from kernels import machine

WIDE = "fpu sse2 avx2 avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni"


@pytest.fixture
def fresh(monkeypatch):
    """A process on x86-64 Linux in which nobody has chosen, and NumPy is not loaded."""
    for name in (CORETYPE, MARK):
        monkeypatch.setenv(name, "")  # so that what the tests set is undone
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "numpy")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    return monkeypatch


def cpuinfo(folder: Path, flags: str) -> Path:
    path = folder / "cpuinfo"
    core = f"model name\t: Testor 9000\nflags\t\t: {flags}\nbugs\t\t: none\n\n"
    path.write_text(f"processor\t: 0\n{core}processor\t: 1\n{core}")
    return path


def chosen() -> tuple[str | None, str | None]:
    return os.environ.get(CORETYPE), os.environ.get(MARK)


def test_wide_kernels_on_a_wide_cpu(fresh, tmp_path):
    choose_blas_family(cpuinfo(tmp_path, WIDE))
    assert chosen() == ("SkylakeX", "SkylakeX")


@pytest.mark.parametrize("missing", sorted(NEEDED))
def test_every_flag_is_needed(fresh, tmp_path, missing):
    flags = " ".join(flag for flag in WIDE.split() if flag != missing)
    choose_blas_family(cpuinfo(tmp_path, flags))
    assert chosen() == (None, None)


@pytest.mark.parametrize("users", ["Haswell", ""])
def test_the_user_has_the_last_word(fresh, tmp_path, users):
    fresh.setenv(CORETYPE, users)
    choose_blas_family(cpuinfo(tmp_path, WIDE))
    assert chosen() == (users, None)


def test_not_when_numpy_is_there(fresh, tmp_path):
    fresh.setitem(sys.modules, "numpy", object())
    choose_blas_family(cpuinfo(tmp_path, WIDE))
    assert chosen() == (None, None)


@pytest.mark.parametrize(("system", "architecture"), [("darwin", "x86_64"), ("linux", "aarch64")])
def test_only_on_x86_64_linux(fresh, tmp_path, system, architecture):
    fresh.setattr(sys, "platform", system)
    fresh.setattr("platform.machine", lambda: architecture)
    choose_blas_family(cpuinfo(tmp_path, WIDE))
    assert chosen() == (None, None)


def test_where_the_system_does_not_tell(fresh, tmp_path):
    choose_blas_family(tmp_path / "none")
    (tmp_path / "odd").write_text("processor: 0\n")
    choose_blas_family(tmp_path / "odd")
    assert chosen() == (None, None)


def test_the_same_flags_as_where_advice_is_given():
    assert machine._AVX512 == NEEDED


@pytest.mark.parametrize("module", ["convbench", "benchmarks.blas_family"])
def test_importing_it_leaves_numpy_alone(module):
    """Else it would come too late."""
    code = f"import {module}, sys; sys.exit('numpy' in sys.modules)"
    assert subprocess.call([sys.executable, "-c", code], env=environment()) == 0


def test_the_command_chooses_before_it_does_anything(tmp_path):
    path = cpuinfo(tmp_path, WIDE)
    code = (
        "import os, pathlib, sys, convbench, benchmarks.blas_family as family\n"
        "sys.platform, family.platform.machine = 'linux', lambda: 'x86_64'\n"
        f"family.choose_blas_family.__defaults__ = (pathlib.Path({str(path)!r}),)\n"
        "convbench.app = lambda **_: print(os.environ['OPENBLAS_CORETYPE'], 'numpy' in sys.modules)\n"
        "convbench.main()\n"
    )
    free = {name: value for name, value in environment().items() if name not in (CORETYPE, MARK)}
    done = subprocess.run([sys.executable, "-c", code], env=free, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["SkylakeX", "False"]
