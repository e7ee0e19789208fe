"""Hand-made results: small enough that every number in a report can be worked out on paper."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

CPU = "Testor 9000"
OPTIONS = {
    "suites": ["default"],
    "backends": ["loops", "im2col", "numba"],
    "batch_sizes": [8, 32],
    "ops": ["forward", "dw"],
    "dtype": "float32",
    "threads": 2,
    "budget_s": 1.0,
}
MACHINE = {
    "cpu": CPU,
    "cores": 4,
    "isa": ["avx2", "fma"],
    "caches": {"L1d": 32768, "L2": 2**20},
    "memory_bytes": 16 * 2**30,
    "platform": "Linux",
    "python": "3.11.7",
    "versions": {"numpy": "2.4.6"},
    "blas": [{"library": "openblas", "version": "0.3.30", "architecture": "SkylakeX", "threads": 2}],
    "coretype": {"name": "SkylakeX", "set_by": "convbench"},
    "lesser_blas": None,
    "ceiling": {"gemm_gflops": 400.0, "copy_gbs": 38.0, "dtype": "float32", "threads": 2},
    "numba": {"threads": 2, "layer": "omp"},
    "threads": 2,
    "governor": None,
    "load_start": 0.25,
    "load_end": 1.5,
}


def case(layer, backend, batch, op="forward", kind="conv2d", dtype="float32"):
    """What a timed and a skipped case have in common: a gigaflop per image."""
    return {
        "suite": "default",
        "layer": layer,
        "kind": kind,
        "op": op,
        "backend": backend,
        "batch": batch,
        "dtype": dtype,
        "threads": 2,
        "descriptor": f"mb{batch}ic6ih12oc16oh8kh5",
        "flops": batch * 10**9,
    }


def timed(layer, backend, batch, median, *, error=1e-7, noise=0.2, peak=2**20, compile_s=None, **rest):
    """A benchmark whose quartiles lie `noise` / 2 of the median below and above it."""
    info = {
        "schema": 1,
        **case(layer, backend, batch, **rest),
        "least_bytes": batch * 2**20,
        "im2col_bytes": batch * 2**22,
        "attainable_s": batch * 0.0025,
        "peak_bytes": peak,
        "error": error,
        "compile_s": compile_s,
    }
    stats = {
        "min": 0.5 * median,
        "q1": (1 - noise / 2) * median,
        "median": median,
        "q3": (1 + noise / 2) * median,
        "max": 2 * median,
        "mean": 1.1 * median,
        "stddev": 0.3 * median,
        "iqr": noise * median,
        "rounds": 7,
        "iterations": 1,
    }
    return {"name": f"test_{layer}[{backend}-{batch}]", "extra_info": info, "stats": stats}


def untimed(layer, backend, batch, predicted=None, reason="too slow", **rest):
    """A skipped or failed case."""
    return {**case(layer, backend, batch, **rest), "predicted_s": predicted, "reason": reason}


def document(benchmarks, skipped=(), failed=(), datetime="2025-03-01T12:00:00+00:00"):
    """A whole file."""
    return {
        "machine_info": {"node": "host", "convbench": MACHINE},
        "commit_info": {"id": "0123456789abcdef", "dirty": True},
        "benchmarks": list(benchmarks),
        "datetime": datetime,
        "version": "5.1.0",
        "convbench": {"schema": 1, "options": OPTIONS, "skipped": list(skipped), "failed": list(failed)},
    }


def golden():
    """Three convolutions and a pooling layer, two batch sizes, three backends."""
    benchmarks = [
        timed("a:conv", "loops", 8, 0.8, peak=0),
        timed("a:conv", "im2col", 8, 0.004, peak=2**26),
        timed("a:conv", "numba", 8, 0.008, compile_s=1.5),
        timed("a:conv", "im2col", 32, 0.032, error=3e-6, peak=2**28),
        timed("a:conv", "numba", 32, 0.016, compile_s=0.5),
        timed("b:conv", "loops", 8, 0.9),
        timed("b:conv", "im2col", 8, 0.45, noise=0.5),
        timed("b:conv", "numba", 8, 0.1),
        timed("c:conv", "im2col", 8, 0.01),
        timed("c:conv", "numba", 8, 0.0101),
        timed("a:conv", "im2col", 8, 0.002, op="dw"),
        timed("d:pool", "loops", 8, 0.6, kind="max_pool2d"),
        timed("d:pool", "numba", 8, 0.012, kind="max_pool2d", peak=None),
    ]
    skipped = [
        untimed("a:conv", "loops", 32, 3.2, "predicted 3.2 s, over the budget of 1.0 s"),
        untimed("b:conv", "loops", 32, 3.6, "predicted 3.6 s, over the budget of 1.0 s"),
        untimed("c:conv", "loops", 8, 2.0, "predicted 2.0 s, over the budget of 1.0 s"),
        untimed("d:pool", "im2col", 8, None, "not supported", kind="max_pool2d"),
    ]
    failed = [untimed("b:conv", "im2col", 32, None, "error 0.5 is above the tolerance of 1e-05")]
    return document(benchmarks, skipped, failed)


@pytest.fixture(scope="session")
def make():
    """The builders of this file, as a namespace."""
    return SimpleNamespace(timed=timed, untimed=untimed, document=document, golden=golden)


@pytest.fixture
def save(tmp_path):
    """A function that saves a document, or a text, and returns the path."""

    def save_as(name: str, content: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return save_as


@pytest.fixture
def golden_path(save):
    """The golden results in a file."""
    return save("results/golden.json", golden())
