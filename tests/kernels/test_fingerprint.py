"""Which code a measurement is of."""

from __future__ import annotations

import pytest

from kernels import available_backends, fingerprint
from kernels.fingerprint import _sources


@pytest.fixture(autouse=True)
def fresh():
    fingerprint.fingerprint.cache_clear()
    yield
    fingerprint.fingerprint.cache_clear()


def test_backends_differ_and_stay_the_same():
    found = {name: fingerprint.fingerprint(name) for name in available_backends()}
    assert len(set(found.values())) == len(found)
    fingerprint.fingerprint.cache_clear()
    assert {name: fingerprint.fingerprint(name) for name in found} == found


def test_it_covers_what_a_backend_is_made_of_and_not_its_neighbours():
    sources = _sources("kernels.numba_loops")
    assert {"kernels.numba_conv", "kernels.numba_pool", "kernels.numba_rows", "kernels.jit"} <= sources
    assert not sources & {"kernels.im2col", "kernels.functional", "kernels.selection", "kernels.policy"}


def test_a_changed_source_or_library_changes_it(monkeypatch, tmp_path):
    before = {name: fingerprint.fingerprint(name) for name in ("numba", "im2col")}
    changed = tmp_path / "numba_pool.py"
    path = fingerprint._path
    changed.write_text(path("kernels.numba_pool").read_text() + "# changed\n")
    monkeypatch.setattr(
        fingerprint, "_path", lambda name: changed if name == "kernels.numba_pool" else path(name)
    )
    fingerprint.fingerprint.cache_clear()
    assert fingerprint.fingerprint("numba") != before["numba"]
    assert fingerprint.fingerprint("im2col") == before["im2col"]
    monkeypatch.setattr(fingerprint.metadata, "version", lambda library: "0.0")
    fingerprint.fingerprint.cache_clear()
    assert fingerprint.fingerprint("im2col") != before["im2col"]
