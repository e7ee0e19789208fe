"""What is said of the machine: BLAS's kernels above all."""

from __future__ import annotations

import pytest

from kernels import machine
from kernels.machine import lesser_blas, machine_facts

WIDE = {"avx2", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


@pytest.fixture
def pretend(monkeypatch):
    """A function that makes this a machine with such flags, on which NumPy's BLAS is such a one."""

    def pretend(flags, architecture, api="openblas"):
        pools = [
            {"internal_api": "openblas", "filepath": "/scipy.libs/x.so", "architecture": "Prescott",
             "num_threads": 1, "user_api": "blas"},
            {"internal_api": api, "filepath": "/numpy.libs/x.so", "architecture": architecture,
             "num_threads": 1, "user_api": "blas"},
        ]  # fmt: skip
        monkeypatch.setattr(machine, "_cpu", lambda: ("Testor 9000", flags))
        monkeypatch.setattr(machine, "_blas_pools", lambda: pools)

    return pretend


@pytest.mark.parametrize("family", ["Haswell", "Zen"])
def test_lesser_kernels_are_told_with_the_remedy(pretend, family):
    pretend(WIDE, family)
    advice = lesser_blas()
    assert advice == (
        f"OpenBLAS runs its {family} kernels, but this CPU has AVX-512: "
        "start Python with OPENBLAS_CORETYPE=SkylakeX"
    )
    assert machine_facts({}, 1)["lesser_blas"] == advice


@pytest.mark.parametrize(
    ("flags", "family", "api"),
    [
        (WIDE, "SkylakeX", "openblas"),
        (WIDE, "Cooperlake", "openblas"),
        (WIDE, "SAPPHIRERAPIDS", "openblas"),
        (WIDE - {"avx512vl"}, "Haswell", "openblas"),
        ({"avx2"}, "Haswell", "openblas"),
        (WIDE, None, "openblas"),
        (WIDE, "Haswell", "blis"),
    ],
)
def test_nothing_is_said_of_others(pretend, flags, family, api):
    pretend(flags, family, api)
    assert lesser_blas() is None


def test_nothing_is_said_without_a_blas(monkeypatch):
    monkeypatch.setattr(machine, "_blas_pools", list)
    assert lesser_blas() is None


@pytest.mark.parametrize(
    ("coretype", "mark", "expected"),
    [
        (None, None, None),
        ("", None, None),
        ("Haswell", None, {"name": "Haswell", "set_by": "user"}),
        ("SkylakeX", "SkylakeX", {"name": "SkylakeX", "set_by": "convbench"}),
        ("Zen", "SkylakeX", {"name": "Zen", "set_by": "user"}),
    ],
)
def test_who_chose_the_kernels_is_recorded(monkeypatch, coretype, mark, expected):
    for name, value in (("OPENBLAS_CORETYPE", coretype), ("CONVBENCH_CORETYPE", mark)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    facts = machine_facts({}, 1)
    assert facts["coretype"] == expected
    assert all("architecture" in pool for pool in facts["blas"])
