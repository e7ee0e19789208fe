"""How many threads compute."""

from __future__ import annotations

import pytest
from threadpoolctl import threadpool_info

from kernels.threads import pinned_threads, thread_count, usable_cores


def test_threads_are_pinned_and_given_back():
    numba = pytest.importorskip("numba")
    before = numba.get_num_threads()
    with pinned_threads(1):
        assert numba.get_num_threads() == 1
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
    assert numba.get_num_threads() == before


def test_thread_count_is_checked():
    assert thread_count(None) == usable_cores()
    assert thread_count(1) == 1
    for threads in (0, usable_cores() + 1):
        with pytest.raises(ValueError, match=f"--threads is {threads}; expected 1 to {usable_cores()}"):
            thread_count(threads)
