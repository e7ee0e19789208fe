"""The facts about the machine without which a time means nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from threadpoolctl import threadpool_info

from kernels.threads import usable_cores

_PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "pytest-benchmark", "convbench")
_PEERS = ("torch", "jax", "jaxlib", "onnxruntime", "openvino")
_TELLING_FLAGS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")
_WAITING = ("OPENBLAS_THREAD_TIMEOUT", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_CPU0 = Path("/sys/devices/system/cpu/cpu0")
# What OpenBLAS's kernels for AVX-512 need, and the families that are such kernels.
_AVX512 = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
_AVX512_FAMILIES = ("skylakex", "cooperlake", "sapphirerapids")


def machine_facts(cpu: dict[str, Any], threads: int) -> dict[str, Any]:
    """Everything about this machine that a result should keep; `cpu` is py-cpuinfo's answer."""
    flags = set(cpu.get("flags", ()))
    return {
        "identity": identity(),
        "cpu": cpu.get("brand_raw") or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "isa": [flag for flag in _TELLING_FLAGS if flag in flags],
        "caches": caches(),
        "memory_bytes": psutil.virtual_memory().total,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions((*_PACKAGES, *_PEERS)),
        "blas": _blas(),
        "coretype": _coretype(),
        "lesser_blas": lesser_blas(),
        "numba": numba_facts(),
        "waiting": {name: os.environ[name] for name in _WAITING if name in os.environ},
        "threads": threads,
        "governor": text_of(_CPU0 / "cpufreq" / "scaling_governor"),
        "load_start": load(),
    }


@cache
def identity() -> dict[str, str]:
    """What has to be the same for a measurement to hold: the CPU, its instructions, BLAS and its kernels."""
    cpu, flags = _cpu()
    blas = numpy_blas()
    return {
        "cpu": cpu,
        "isa": " ".join(flag for flag in _TELLING_FLAGS if flag in flags),
        "blas": f"{blas['internal_api']} {blas.get('architecture')}" if blas else "none",
    }


def _cpu() -> tuple[str, set[str]]:
    """The CPU's name and its flags, as far as the system tells them."""
    lines = (text_of(Path("/proc/cpuinfo")) or "").splitlines()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = facts.get("model name") or platform.processor() or platform.machine()
    return name, set((facts.get("flags") or facts.get("Features") or "").split())


def load() -> float | None:
    """Processes that wanted a core, on average over the last minute; None where the system does not tell."""
    try:
        return round(float(psutil.getloadavg()[0]), 2)
    except (AttributeError, OSError):
        return None


def text_of(path: Path) -> str | None:
    """What a file of the system says; None where there is none, or no text."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def caches() -> dict[str, int]:
    """Bytes of core 0's caches: L1d, L2, L3; empty where Linux does not tell."""
    sizes = {}
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    for index in sorted(_CPU0.glob("cache/index*")):
        level, kind, size = (text_of(index / name) for name in ("level", "type", "size"))
        if level and size and kind in ("Data", "Unified"):
            number = int(size.rstrip("KMG")) * units.get(size[-1], 1)
            sizes["L1d" if level == "1" else f"L{level}"] = number
    return sizes


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Those of the packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _blas() -> list[dict[str, Any]]:
    return [
        {
            "library": pool["internal_api"],
            "prefix": pool.get("prefix"),
            "version": pool.get("version"),
            "architecture": pool.get("architecture"),
            "threads": pool["num_threads"],
        }
        for pool in _blas_pools()
    ]


def lesser_blas() -> str | None:
    """What to do, in one line, where BLAS runs kernels for lesser CPUs than this one; else None."""
    family = lesser_family()
    return family and ": ".join(lesser_words(family))


def lesser_words(family: str) -> tuple[str, str]:
    """What is wrong with that family of kernels here, and what to do about it."""
    return (
        f"OpenBLAS runs its {family} kernels, but this CPU has AVX-512",
        "start Python with OPENBLAS_CORETYPE=SkylakeX",
    )


def lesser_family() -> str | None:
    """The family of kernels that OpenBLAS runs, where it is one for lesser CPUs than this one; else None."""
    blas = numpy_blas()
    family: str | None = (blas or {}).get("architecture")
    if not blas or blas["internal_api"] != "openblas" or not family or family.lower() in _AVX512_FAMILIES:
        return None
    return family if _cpu()[1] >= _AVX512 else None


def _coretype() -> dict[str, str] | None:
    """The family of kernels that OpenBLAS was told to take, and by whom; None where it chose itself."""
    name = os.environ.get("OPENBLAS_CORETYPE")
    if not name:
        return None
    ours = os.environ.get("CONVBENCH_CORETYPE") == name
    return {"name": name, "set_by": "convbench" if ours else "user"}


def numpy_blas() -> dict[str, Any] | None:
    """NumPy's BLAS, beside which there may be SciPy's."""
    return min(_blas_pools(), key=lambda pool: "numpy" not in pool["filepath"], default=None)


def _blas_pools() -> list[dict[str, Any]]:
    import numpy.linalg  # noqa: F401  (loads the BLAS that threadpoolctl then sees)

    return [pool for pool in threadpool_info() if pool["user_api"] == "blas"]


def numba_facts() -> dict[str, Any] | None:
    """Numba's threads and threading layer, which is known once threads were pinned; None without Numba."""
    try:
        import numba
    except ImportError:
        return None
    try:
        layer = numba.threading_layer()
    except ValueError:  # nothing has run in parallel yet
        layer = None
    return {"threads": numba.get_num_threads(), "layer": layer}
