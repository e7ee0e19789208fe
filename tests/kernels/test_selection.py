"""The selection: its file, its look-up, and what "auto" makes of it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kernels
from kernels import ConvSpec, PoolSpec, selection
from kernels.machine import identity
from kernels.policy import Measured
from kernels.selection import Key, Selection, keys_of

CONV = ConvSpec(32, 6, 12, 12, 16, 5, 5, name="lenet:conv2")
POOL = PoolSpec("max", 32, 6, 24, 24, 2, 2)
THREADS = kernels.threads.active()


def key(spec=CONV, op="forward", threads: int = THREADS) -> Key:
    return Key(spec, op, "float32", threads)


def times(**medians_s: float) -> dict[str, Measured]:
    return {
        name: Measured((median, median, median), None, 0, 1e-7, None, "code")
        for name, median in medians_s.items()
    }


def of(entries: dict[Key, dict[str, Measured]], **others: object) -> Selection:
    return Selection(identity(), entries, **others)  # type: ignore[arg-type]


class TestKeys:
    @pytest.mark.parametrize(
        "spec",
        [
            CONV,
            POOL,
            PoolSpec("avg", 1, 2, 9, 9, 3, 3, stride=1, padding=1, count_include_pad=False),
            ConvSpec(1, 4, 1, 99, 8, 1, 9, stride=(1, 2)),
        ],
    )
    def test_they_read_back(self, spec):
        for each in keys_of([spec], None, "float64", 2):
            assert Key.parse(str(each)) == each

    def test_a_name_is_no_part_of_them(self):
        bare = ConvSpec(32, 6, 12, 12, 16, 5, 5)
        assert str(key(bare)) == str(key())
        assert key(bare) == key()

    def test_pooling_has_no_dw(self):
        assert [each.op for each in keys_of([POOL, CONV], None, "float32", 1)] == [
            "forward", "dx", "forward", "dx", "dw"
        ]  # fmt: skip
        assert keys_of([POOL], ["dw"], "float32", 1) == []


class TestLookUp:
    def test_measured(self):
        chosen = of({key(): times(numba=2.0, im2col=1.0)}).choose(key())
        assert (chosen.backend, chosen.why) == ("im2col", "measured")

    def test_the_nearest_batch(self):
        known = of({
            key(CONV.with_batch(1)): times(numba=1.0, im2col=2.0),
            key(CONV.with_batch(256)): times(numba=2.0, im2col=1.0),
        })  # fmt: skip
        for batch, backend, near in (
            (2, "numba", 1),
            (15, "numba", 1),
            (17, "im2col", 256),
            (999, "im2col", 256),
        ):
            chosen = known.choose(key(CONV.with_batch(batch)))
            assert (chosen.backend, chosen.why) == (backend, f"measured at batch {near}")

    def test_directions_and_dtypes_and_threads_are_apart(self):
        known = of({key(): times(numba=2.0, im2col=1.0)})
        assert known.choose(key(op="dx")) is None
        assert known.choose(key(threads=THREADS + 1)) is None
        assert known.choose(key()._replace(dtype="float64")) is None

    def test_forced_for_every_batch(self):
        known = of({key(): times(numba=2.0, im2col=1.0)}, forced={key().layer: "window"})
        for batch in (1, 32):
            assert known.choose(key(CONV.with_batch(batch))).backend == "window"
            assert known.choose(key(CONV.with_batch(batch))).why == "forced"

    def test_whole_steps_settle_one_batch_size(self):
        entries = {key(CONV.with_batch(n)): times(numba=2.0, im2col=1.0) for n in (1, 64)}
        known = of(entries, settled={key(CONV.with_batch(64)): "numba"})
        assert known.choose(key(CONV.with_batch(1))).backend == "im2col"
        chosen = known.choose(key(CONV.with_batch(64)))
        assert (chosen.backend, chosen.why) == ("numba", "settled by whole steps")
        assert known.choose(key(CONV.with_batch(60))).why == "settled by whole steps at batch 64"

    def test_what_is_settled_gives_way(self):
        """To force, to a memory limit, and to a backend's absence."""
        large = {"numba": Measured((2.0,), None, 10**9, 0.0, None, "code"), **times(im2col=1.0)}
        settled = {key(): "numba"}
        assert of({key(): large}, settled=settled).choose(key()).backend == "numba"
        assert of({key(): large}, settled=settled, memory_limit=10**6).choose(key()).backend == "im2col"
        assert (
            of({key(): large}, settled=settled, forced={key().layer: "loops"}).choose(key()).why == "forced"
        )
        assert of({key(): large}, settled={key(): "gone"}).choose(key()).backend == "im2col"

    def test_a_new_measurement_unsettles(self):
        entries = {key(): times(numba=2.0, im2col=1.0), key(op="dx"): times(numba=1.0)}
        known = of(entries, settled=dict.fromkeys(entries, "numba"))
        newer = known.merged(of({key(): times(window=3.0)}))
        assert newer.settled == {key(op="dx"): "numba"}
        assert newer.merged(of({}, settled={key(): "numba"})).settled == known.settled

    def test_a_backend_that_is_gone_is_passed_over(self):
        assert of({key(): times(gone=1.0, im2col=2.0)}).choose(key()).backend == "im2col"
        assert of({key(): times(gone=1.0)}).choose(key()) is None

    def test_wrong_everywhere_falls_to_another_batch(self):
        wrong = {"numba": Measured((1.0,), None, 0, 1.0, "off", "code")}
        known = of({key(): wrong, key(CONV.with_batch(8)): times(im2col=1.0)})
        assert known.choose(key()).why == "measured at batch 8"

    def test_the_cost_model_speaks_for_layers_never_measured(self):
        entries = {}
        for n in (1, 4, 16):
            for size in (8, 16, 32):
                spec = ConvSpec(n, 4, size, size, 8, 3, 3)
                entries[key(spec)] = times(numba=1e-6 + 2e-9 * spec.flops, im2col=1e-4 + 1e-9 * spec.flops)
        known = of(entries)
        small, large = ConvSpec(1, 3, 9, 9, 4, 3, 3), ConvSpec(64, 8, 28, 28, 8, 3, 3)
        assert known.choose(key(small)).backend == "numba"
        assert known.choose(key(large)).backend == "im2col"
        assert known.choose(key(large)).why == "predicted from other layers"

    def test_the_cost_model_says_nothing_of_a_stride_never_measured(self):
        entries = {
            key(spec): times(numba=1e-9 * spec.flops, im2col=2e-9 * spec.flops)
            for spec in (ConvSpec(n, 4, size, size, 8, 3, 3) for n in (1, 4, 16) for size in (8, 16, 32))
        }
        known = of(entries)
        assert known.choose(key(ConvSpec(2, 3, 9, 9, 4, 3, 3))).backend == "numba"
        assert known.choose(key(ConvSpec(2, 3, 9, 9, 4, 3, 3, stride=2))) is None

    def test_the_cost_model_leaves_out_what_a_backend_cannot_do(self):
        entries = {
            key(spec): times(winograd=1e-9 * spec.flops, im2col=2e-9 * spec.flops, numba=3e-9 * spec.flops)
            for spec in (ConvSpec(n, 4, size, size, 8, 3, 3) for n in (1, 4, 16) for size in (8, 16, 32))
        }
        known = of(entries)
        assert known.choose(key(ConvSpec(2, 3, 9, 9, 4, 3, 3))).backend == "winograd"
        assert known.choose(key(ConvSpec(2, 3, 9, 9, 4, 3, 3, dilation=2))).backend == "im2col"


class TestAuto:
    def test_it_uses_what_was_measured(self, monkeypatch):
        kernels.use_selection(of({key(): times(window=1.0, numba=2.0)}))
        assert kernels.choose(CONV, "forward", "float32") == "window"
        called = []
        from kernels import window

        right = window.conv_forward
        monkeypatch.setattr(window, "conv_forward", lambda *args: called.append(1) or right(*args))
        rng = np.random.default_rng(0)
        x, w = rng.random(CONV.x_shape, np.float32), rng.random(CONV.w_shape, np.float32)
        kernels.conv2d(x, w)
        assert called == [1]
        kernels.conv2d(x, w, backend="im2col")
        assert called == [1]

    def test_pinned_threads_have_their_own_choices(self):
        kernels.use_selection(of({key(threads=1): times(window=1.0, numba=2.0)}))
        if THREADS > 1:
            assert kernels.choose(CONV, "forward", "float32") == "tiled"
        with kernels.threads.pinned_threads(1):
            assert kernels.choose(CONV, "forward", "float32") == "window"

    def test_the_fallback_is_said_once(self, caplog):
        caplog.set_level(logging.INFO, "kernels")
        for spec in (CONV, POOL, CONV):
            assert kernels.explain(spec, "forward", "float32").why == "fallback"
        (line,) = [record.message for record in caplog.records if "nothing is measured" in record.message]
        assert "auto takes tiled" in line
        assert "convbench tune" in line
        assert "does not hold" not in line

    def test_another_thread_count_does_not_hold_and_that_is_said(self, caplog):
        caplog.set_level(logging.INFO, "kernels")
        kernels.use_selection(of({key(threads=THREADS + 1): times(window=1.0, numba=2.0)}))
        assert kernels.explain(CONV, "forward", "float32").why == "fallback"
        (line,) = [record.message for record in caplog.records if "nothing is measured" in record.message]
        assert f"with {THREADS} threads (what is measured with {THREADS + 1} does not hold)" in line

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match="op is 'up'; expected one of forward, dx, dw"):
            kernels.explain(CONV, "up", "float32")


class TestFile:
    def test_it_reads_back(self, tmp_path):
        known = of(
            {key(): times(numba=2.0), key(POOL, "dx"): times(im2col=1.0)},
            settled={key(): "numba"},
            forced={key().layer: "loops"},
        )
        path = tmp_path / "deep" / "s.json"
        selection.update(path, known)
        again = selection.load(path)
        assert again == known
        assert list(path.parent.glob("*.json")) == [path]

    def test_update_adds_and_replaces_single_candidates(self, tmp_path):
        path = tmp_path / "s.json"
        selection.update(path, of({key(): times(numba=2.0, im2col=3.0)}))
        known = selection.update(path, of({key(): times(im2col=1.0), key(op="dx"): times(numba=1.0)}))
        assert known.entries == selection.load(path).entries
        assert known.entries[key()] == {**times(numba=2.0), **times(im2col=1.0)}
        assert set(known.entries) == {key(), key(op="dx")}

    def test_none_is_empty(self, tmp_path):
        assert selection.load(tmp_path / "none.json").entries == {}

    @pytest.mark.parametrize(
        "content",
        ["", "{", "[]", '{"a": 1}', '{"convbench_selection": 99}', b"\xff\xfe\x00",
         '{"convbench_selection": 2, "machine": {}, "entries": {"up": {}}, "settled": {}, "forced": {}}',
         '{"convbench_selection": 2, "machine": {}, "settled": {}, "forced": {}, '
         '"entries": {"dx conv2d ic1ih8oc2kh3 float32 1": {"numba": 3}}}'],
    )  # fmt: skip
    def test_what_is_none_is_set_aside_with_one_warning(self, tmp_path, caplog, content):
        path = tmp_path / "s.json"
        for number in (1, 2):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            caplog.clear()
            assert selection.load(path).entries == {}
            (record,) = caplog.records
            assert record.levelname == "WARNING"
            assert "\n" not in record.message
            assert f"it is now {path}.broken-{number}" in record.message
            assert not path.exists()
        selection.update(path, of({key(): times(numba=1.0)}))
        assert len(list(tmp_path.glob("s.json.broken-*"))) == 2

    def test_a_truncated_file_is_set_aside(self, tmp_path):
        path = tmp_path / "s.json"
        selection.update(path, of({key(): times(numba=1.0)}))
        whole = path.read_text()
        path.write_text(whole[: len(whole) // 2])
        known = selection.update(path, of({key(op="dx"): times(numba=1.0)}))
        assert set(known.entries) == {key(op="dx")}
        assert (tmp_path / "s.json.broken-1").read_text() == whole[: len(whole) // 2]

    @pytest.mark.parametrize("fact", ["cpu", "isa", "blas"])
    def test_another_machine_is_not_used_and_not_overwritten(self, tmp_path, caplog, fact):
        path = tmp_path / "s.json"
        there = Selection({**identity(), fact: "other"}, {key(): times(numba=1.0)})
        path.write_text(there.as_json())
        before = path.read_text()
        assert selection.load(path).entries == {}
        (record,) = caplog.records
        assert (
            f"is not used: it was measured with {fact} 'other' (here: {identity()[fact]!r})" in record.message
        )
        with pytest.raises(ValueError, match=f"was measured with {fact} 'other'.*; expected another file"):
            selection.update(path, of({key(): times(im2col=1.0)}))
        assert path.read_text() == before

    def test_clear(self, tmp_path):
        path = tmp_path / "s.json"
        other = key(POOL, "dx")
        full = of(
            {key(): times(numba=1.0), other: times(numba=1.0)},
            settled={key(): "numba", other: "numba"},
            forced={key().layer: "loops", other.layer: "loops"},
        )
        selection.update(path, full)
        assert set(selection.clear(path, [key()], forced_only=True).entries) == {key(), other}
        assert selection.load(path).forced == {other.layer: "loops"}
        assert set(selection.load(path).settled) == {key(), other}
        assert set(selection.clear(path, [key()]).entries) == {other}
        assert set(selection.load(path).settled) == {other}
        assert selection.clear(path, None).entries == {}
        assert selection.load(path).forced == {}

    def test_two_processes_lose_nothing(self, tmp_path):
        """Each adds its own entries, one by one, to the same file."""
        script = (
            "import pathlib, sys\n"
            "from kernels import ConvSpec, selection\n"
            "from kernels.machine import identity\n"
            "from kernels.policy import Measured\n"
            "from kernels.selection import Key, Selection\n"
            "for n in range(1, 21):\n"
            "    key = Key(ConvSpec(n, int(sys.argv[2]), 8, 8, 2, 3, 3), 'forward', 'float32', 1)\n"
            "    one = {'numba': Measured((1.0,), None, 0, 0.0, None, 'code')}\n"
            "    selection.update(pathlib.Path(sys.argv[1]), Selection(identity(), {key: one}))\n"
        )
        path = tmp_path / "s.json"
        root = str(Path(kernels.__file__).parent.parent)
        running = [
            subprocess.Popen([sys.executable, "-c", script, str(path), channels], cwd=root)
            for channels in "123"
        ]
        assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
        assert len(json.loads(path.read_text())["entries"]) == 60
