"""How many threads compute."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from kernels.threads import pinned_threads, sharing_cores, thread_count, usable_cores


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


@pytest.fixture
def two_threads() -> Iterator[None]:
    """BLAS on two, however many cores there are."""
    with threadpool_limits(limits=2, user_api="blas"):
        assert blas_threads() == {2}
        yield


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.usefixtures("two_threads")
class TestSharingCores:
    @pytest.mark.parametrize("timeout", [None, "", "26", "04"])
    def test_blas_is_on_one_thread(self, monkeypatch, timeout):
        """As its idle threads spin for longer than it takes to compute anything."""
        monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT", raising=False)
        if timeout is not None:
            monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", timeout)
        with sharing_cores():
            assert blas_threads() == {1}
        assert blas_threads() == {2}

    def test_blas_may_stay_where_its_threads_sleep_soon(self, monkeypatch):
        monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", "4")
        with sharing_cores():
            assert blas_threads() == {2}
        assert blas_threads() == {2}

    @pytest.mark.parametrize("timeout", ["26", "4"])
    def test_other_threads_stay(self, monkeypatch, timeout):
        numba = pytest.importorskip("numba")
        monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", timeout)
        before = numba.get_num_threads()
        with sharing_cores():
            assert numba.get_num_threads() == before

    def test_threads_are_given_back_after_an_error(self, monkeypatch):
        monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT", raising=False)
        with pytest.raises(KeyError), sharing_cores():
            raise KeyError
        assert blas_threads() == {2}

    def test_it_holds_within_what_is_pinned(self, monkeypatch):
        """A run pins its threads, and a training in it shares them."""
        monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT", raising=False)
        with pinned_threads(1):
            with sharing_cores():
                assert blas_threads() == {1}
            assert blas_threads() == {1}
        assert blas_threads() == {2}
