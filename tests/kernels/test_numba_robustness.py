"""Threads, forks and caches: what compiled, parallel code has to survive."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from kernel_cases import CONVS, POOLS, assert_same, run_python

import kernels
from kernels import ConvSpec, PoolSpec
from kernels.problem import Problem

# Enough work for compiled loops to go parallel.
LARGE = [
    ConvSpec(4, 8, 32, 30, 8, 3, 3, padding=1),
    PoolSpec("max", 4, 16, 40, 40, 3, 3, stride=1),
]


def exact_problems(backend: str) -> list[Problem]:
    specs = [CONVS["groups"], CONVS["1-D causal"], POOLS["max padding"], POOLS["avg ceil"]]
    if backend != "loops":  # which would take seconds
        specs += LARGE
    problems = [Problem.integers(spec, op) for spec in specs for op in ("forward", "dx")]
    problems += [Problem.integers(spec, "dw") for spec in specs if isinstance(spec, ConvSpec)]
    backend_ = kernels.get_backend(backend)
    return [p for p in problems if not backend_.unsupported(p.spec, p.op, p.dtype)]


def check(backend: str, problem: Problem) -> None:
    for result, expected in zip(problem.run(backend), problem.reference, strict=True):
        assert_same(kernels.get_backend(backend), result, expected)


def test_threads(backend: str) -> None:
    """Four threads at once over the same layers, each time with the right results."""
    problems = exact_problems(backend)
    assert problems
    for problem in problems:
        problem.reference  # noqa: B018  computed once, before the threads
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda problem: check(backend, problem), problems * 4))


def test_threads_of_all_backends() -> None:
    tasks = [(name, problem) for name in kernels.own_backends() for problem in exact_problems(name)]
    for _, problem in tasks:
        problem.reference  # noqa: B018
    order = np.random.default_rng(0).permutation(len(tasks))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: check(*tasks[i]), order))


# Run with a threading layer in the environment. Prints the layer that was used.
SURVIVAL = """
    import multiprocessing, os, signal, sys, threading, warnings

    warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads around is the point

    import numba
    import numpy as np
    import kernels
    from kernels import ConvSpec, PoolSpec
    from kernels.problem import Problem

    LARGE = ConvSpec(4, 8, 32, 30, 8, 3, 3, padding=1), PoolSpec("max", 4, 16, 40, 40, 3, 3, stride=1)
    SMALL = ConvSpec(2, 3, 6, 6, 4, 3, 3), PoolSpec("max", 2, 3, 6, 4, 2, 2)
    PROBLEMS = {spec: Problem.integers(spec, "forward") for spec in LARGE + SMALL}
    for problem in PROBLEMS.values():
        problem.reference  # computed once, by one thread

    def right(names, specs):
        for name in names:
            backend = kernels.get_backend(name)
            for spec in specs:
                problem = PROBLEMS[spec]
                if backend.unsupported(spec, "forward", problem.dtype):
                    continue
                error = np.abs(problem.run(name)[0] - problem.reference[0]).max()
                if error > backend.tolerance * np.abs(problem.reference[0]).max():
                    return False
        return True

    def everything(_=None):
        fast = [name for name in kernels.own_backends() if name != "loops"]
        return right(kernels.own_backends(), SMALL) and right(fast, LARGE)

    def child():
        pid = os.fork()
        if not pid:
            signal.alarm(60)  # a child that hangs is ended, not left behind
            try:
                os._exit(0 if everything() else 1)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(2)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    if sys.argv[1] == "fork first":
        import kernels.numba_loops
        assert child() == 0, "forked before any launch"
    assert everything()
    layer = numba.threading_layer()  # raises unless there was a parallel launch
    assert child() == 0, "forked after a launch"
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(everything, range(4)).get(60) == [True] * 4, "a pool of processes"

    done = threading.Event()
    failures = []
    def work():
        while not done.is_set():
            if not right(["numba"], LARGE):
                failures.append("wrong")
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            assert child() == 0, "forked while others launch"
    finally:
        done.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert everything(), "the parent, after all that"
    print(layer)
"""


def layer_is_there(layer: str) -> bool:
    """Whether Numba has been built with this threading layer, and finds the library for it.

    Asked in a fresh process: OpenVINO, where it is installed, brings a TBB of its own into this one.
    """
    module = f"numba.np.ufunc.{ {'omp': 'omppool', 'tbb': 'tbbpool'}.get(layer, layer) }"
    return not subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode


@pytest.mark.skipif(not hasattr(sys.modules["os"], "fork"), reason="no fork here")
@pytest.mark.parametrize(
    ("layer", "order"), [("omp", ""), ("omp", "fork first"), ("workqueue", ""), ("tbb", "")]
)
def test_forks_and_threads(layer: str, order: str) -> None:
    """GNU OpenMP ends a forked process that uses it; workqueue ends one with two launches at once."""
    if not layer_is_there(layer):
        pytest.skip(f"Numba's threading layer {layer} is not there")
    printed = run_python(SURVIVAL, order, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2")
    assert printed.strip() == layer


# Prints for each compiled function how often it was found in the cache, and how often not.
COUNT = """
    import json, sys
    import numpy as np
    import kernels
    from kernels import ConvSpec, PoolSpec
    from kernels.problem import Problem
    from kernels.registry import ops_of

    pool = 1, 2, 4, 4, 2, 2
    for spec in (ConvSpec(2, 2, 5, 5, 3, 3, 3, padding=1), PoolSpec("max", *pool), PoolSpec("avg", *pool)):
        for op in ops_of(spec):
            problem = Problem.integers(spec, op)
            for result, expected in zip(problem.run("numba"), problem.reference, strict=True):
                np.testing.assert_array_equal(result, expected)

    from kernels.jit import Kernel

    counts = {}
    for module in [module for name, module in sys.modules.items() if name.startswith("kernels.")]:
        for name, kernel in vars(module).items():
            for kind in ("serial", "parallel"):
                compiled = getattr(kernel, kind) if isinstance(kernel, Kernel) else None
                if compiled and compiled.signatures:
                    stats = compiled.stats
                    hits, misses = sum(stats.cache_hits.values()), sum(stats.cache_misses.values())
                    counts[f"{name}.{kind}"] = [hits, misses]
    print(json.dumps(counts))
"""


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    first = json.loads(run_python(COUNT, NUMBA_CACHE_DIR=str(tmp_path)))
    assert len(first) >= 7, "convolution's and pooling's kernels, forward and backward"
    assert all(hits == 0 and misses > 0 for hits, misses in first.values()), first
    second = json.loads(run_python(COUNT, NUMBA_CACHE_DIR=str(tmp_path)))
    assert second.keys() == first.keys()
    assert all(hits > 0 and misses == 0 for hits, misses in second.values()), second


@pytest.mark.parametrize("place", ["none", "a file"])
def test_nowhere_to_write_a_cache(tmp_path: Path, place: str) -> None:
    """An install that is read-only, with no home: compiled anew by each process, but compiled."""
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    code = """
        import sys
        import numpy as np
        from numba.core import caching
        # A superuser may write anywhere: take away the places themselves.
        classes = caching.CacheImpl._locator_classes
        given = [locator for locator in classes if "UserProvided" in locator.__name__]
        assert given
        caching.CacheImpl._locator_classes = given if sys.argv[1] == "a file" else []
        import kernels
        x = np.arange(16.0).reshape(1, 1, 4, 4)
        print(kernels.avg_pool2d(x, 2, backend="numba").tolist())
    """
    printed = run_python(code, place, NUMBA_CACHE_DIR=str(blocked / "cache"))
    assert printed.strip() == "[[[[2.5, 4.5], [10.5, 12.5]]]]"
