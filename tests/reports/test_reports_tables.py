"""Golden numbers: winners, speed-ups, errors worked out on paper from the hand-made results."""

import math

import pytest

import reports
from reports import tables, wording


@pytest.fixture
def frame(golden_path):
    return tables.latest(reports.load(golden_path))


def pick(table, **values):
    """The only row with these values."""
    for key, value in values.items():
        table = table[table[key] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_latest_run_wins_whatever_the_order(save, make):
    old = save("z.json", make.document([make.timed("a", "numba", 8, 0.5)], datetime="2025-01-01T00:00:00Z"))
    new = save("b.json", make.document([make.timed("a", "numba", 8, 0.2)], datetime="2025-01-02T00:00:00Z"))
    for paths in ([old, new], [new, old]):
        frame = tables.latest(reports.load(paths))
        assert frame["median_s"].tolist() == [0.2]


def test_dtypes_are_other_cases(save, make):
    single, double = (make.timed("a", "numba", 8, 0.5, dtype=dtype) for dtype in ("float32", "float64"))
    frame = tables.latest(reports.load(save("x.json", make.document([single, double]))))
    assert [setting.dtype for setting, _ in tables.settings(frame)] == ["float32", "float64"]
    assert [len(rows) for _, rows in tables.settings(frame)] == [1, 1]


def test_layers_of_one_name_are_told_apart(save, make):
    first, second, third = (make.timed(name, "numba", 8, 0.5) for name in ("conv", "conv", "other"))
    second["extra_info"]["suite"] = "vgg"
    third["extra_info"]["batch"] = 32
    third["extra_info"]["descriptor"] = "mb32ic6ih12oc16oh8kh5"
    frame = tables.latest(reports.load(save("x.json", make.document([first, second, third]))))
    assert frame["layer"].tolist() == ["conv (default)", "conv (vgg)", "other"]


def test_family_and_order(frame):
    assert tables.layers(frame) == ["a:conv", "b:conv", "c:conv", "d:pool"]
    assert frame.loc[frame["layer"] == "d:pool", "family"].unique().tolist() == ["pooling"]
    assert tables.backends(frame) == ["loops", "im2col", "numba"]
    assert tables.ops(frame) == ["forward", "dw"]


@pytest.mark.parametrize(
    ("layer", "batch", "backend", "runner_up", "margin", "clear"),
    [
        ("a:conv", 8, "im2col", "numba", 2.0, True),
        ("a:conv", 32, "numba", "im2col", 2.0, True),
        ("b:conv", 8, "numba", "im2col", 4.5, True),
        ("c:conv", 8, "im2col", "numba", 1.01, False),
        ("d:pool", 8, "numba", "loops", 50.0, True),
    ],
)
def test_fastest(frame, layer, batch, backend, runner_up, margin, clear):
    row = pick(tables.fastest(frame), layer=layer, batch=batch, op="forward")
    assert (row["backend"], row["next_backend"], bool(row["clear"])) == (backend, runner_up, clear)
    assert row["margin"] == pytest.approx(margin)


def test_fastest_without_a_runner_up(frame):
    row = pick(tables.fastest(frame), op="dw")
    assert row["backend"] == "im2col"
    assert math.isnan(row["margin"])


def test_wins(frame):
    table = tables.wins(frame)
    numba = pick(table, backend="numba", op="forward", family="convolution")
    # a 8: 2, a 32: 1, b 8: 1, c 8: 1.01
    assert (numba["wins"], numba["cases"], numba["measured"]) == (2, 4, 4)
    assert numba["slowdown"] == pytest.approx((2 * 1.01) ** 0.25)
    assert numba["worst"] == pytest.approx(2)
    loops = pick(table, backend="loops", op="forward", family="convolution")
    assert (loops["wins"], loops["measured"]) == (0, 2)
    assert loops["worst"] == pytest.approx(200)


def test_speedups_measured_and_predicted(frame):
    ratios = tables.speedups(frame, "loops")
    measured = pick(ratios, layer="a:conv", batch=8, backend="numba")
    assert not measured["predicted"]
    assert measured["speedup"] == pytest.approx(100)
    assert (measured["low"], measured["high"]) == pytest.approx((0.72 / 0.0088, 0.88 / 0.0072))
    predicted = pick(ratios, layer="a:conv", batch=32, backend="numba")
    assert predicted["predicted"]
    assert predicted["speedup"] == pytest.approx(200)


def test_speedups_at_the_largest_batch_with_a_measured_baseline(frame):
    rows = tables.at_largest_batch(tables.speedups(frame, "loops"))
    assert set(zip(rows["layer"], rows["batch"], rows["predicted"], strict=True)) == {
        ("a:conv", 8, False), ("b:conv", 8, False), ("c:conv", 8, True), ("d:pool", 8, False),
    }  # fmt: skip


def test_predicted_baselines_stand_where_most_backends_have_times(save, make):
    benchmarks = [make.timed("a", name, batch, 0.1) for name, batch in
                  (("im2col", 8), ("numba", 8), ("im2col", 32), ("numba", 32), ("numba", 128))]  # fmt: skip
    skipped = [make.untimed("a", "loops", batch, 9.0) for batch in (8, 32, 128)]
    frame = tables.latest(reports.load(save("x.json", make.document(benchmarks, skipped))))
    rows = tables.at_largest_batch(tables.speedups(frame, "loops"))
    assert rows["batch"].tolist() == [32, 32]
    mean = pick(tables.mean_speedups(rows), backend="numba")
    assert mean["predicted"]
    assert mean["speedup"] == pytest.approx(90)


def test_geometric_means_leave_predictions_out(frame):
    means = tables.mean_speedups(tables.at_largest_batch(tables.speedups(frame, "loops")))
    numba = pick(means, backend="numba", family="convolution", op="forward")
    assert numba["speedup"] == pytest.approx(math.sqrt(100 * 9))
    assert (numba["layers"], numba["predicted"]) == (2, False)
    assert (numba["least"], numba["most"]) == pytest.approx((9, 100))
    im2col = pick(means, backend="im2col", family="convolution", op="forward")
    assert im2col["speedup"] == pytest.approx(20)
    assert pick(means, family="pooling")["speedup"] == pytest.approx(50)


def test_a_failed_baseline_predicts_nothing(save, make):
    content = make.document([make.timed("a", "numba", 8, 0.1)], failed=[make.untimed("a", "loops", 8, 9.0)])
    assert tables.speedups(tables.latest(reports.load(save("x.json", content))), "loops").empty


def test_another_baseline(frame):
    ratios = tables.speedups(frame, "im2col")
    assert pick(ratios, layer="b:conv", backend="numba")["speedup"] == pytest.approx(4.5)
    assert pick(ratios, layer="b:conv", backend="loops")["speedup"] == pytest.approx(0.5)


def test_correctness(frame):
    row = pick(tables.correctness(frame), backend="im2col", op="forward")
    assert (row["error"], row["layer"], row["batch"], row["checked"]) == (3e-6, "a:conv", 32, 4)


def test_memory_at_the_largest_common_batch(frame):
    rows = tables.memory(frame)
    at = rows[rows["layer"] == "a:conv"]
    # All three backends have a peak at batch 8, two at batch 32.
    assert set(at["batch"]) == {8}
    assert pick(at, backend="im2col", op="forward")["peak_mib"] == 64
    assert "numba" not in set(rows.loc[rows["layer"] == "d:pool", "backend"])  # its peak is not known


def test_compile_times(frame):
    row = pick(tables.compile_times(frame), backend="numba")
    assert (row["total_s"], row["compilations"], row["compile_s"], row["batch"]) == (2.0, 2, 1.5, 8)


def test_reasons_are_grouped_by_what_they_have_in_common(frame):
    groups = tables.untimed(frame, "skipped").groupby(["backend", "group"]).size().to_dict()
    assert groups == {
        ("im2col", "not supported"): 1,
        ("loops", "predicted … s, over the budget of 1.0 s"): 3,
    }
    assert tables.untimed(frame, "failed")["group"].tolist() == ["error 0.5 is above the tolerance of 1e-05"]


def test_noise(frame):
    noise = tables.noise(frame)
    assert (noise["layer"].iloc[0], noise["backend"].iloc[0]) == ("b:conv", "im2col")
    assert noise["noise"].iloc[0] == pytest.approx(0.5)
    assert noise["noise"].median() == pytest.approx(0.2)
    assert tables.noisy(frame).equals(noise)
    assert tables.noisy(frame.assign(iqr_s=0.09 * frame["median_s"])).empty


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (wording.significant, 0.01234, "0.0123"),
        (wording.significant, 9.996, "10.0"),
        (wording.significant, 1234.5, "1,230"),
        (wording.significant, math.nan, "–"),  # noqa: RUF001 - a dash
        (wording.short, 8, "8"),
        (wording.short, 512, "512"),
        (wording.short, 10_000, "10k"),
        (wording.short, 2_500_000, "2.5M"),
        (wording.short, 0.001, "0.001"),
        (wording.seconds, 0.0123, "12.3 ms"),
        (wording.seconds, 45e-6, "45.0 µs"),
        (wording.seconds, 5e-9, "5.00 ns"),
        (wording.seconds, 90, "90.0 s"),
        (wording.seconds, 600, "10.0 min"),
        (wording.seconds, 36_000, "10.0 h"),
        (wording.percent, 0.0123, "1.2 %"),
        (wording.error, 0.0, "0"),
        (wording.error, 3e-6, "3.0e-06"),
    ],
)
def test_wording(function, value, text):
    assert function(value) == text


def test_clipping_keeps_both_ends():
    assert wording.clip("abcdefghij", 10) == "abcdefghij"
    assert wording.clip("abcdefghijk", 10) == "abcde…hijk"


def test_rows_by_op_and_layer_in_their_orders(frame):
    found = list(tables.by_layer(frame))
    orders = [(op, layer) for op in tables.ops(frame) for layer in tables.layers(frame[frame["op"] == op])]
    assert [(op, layer) for op, layer, _ in found] == orders
    for op, layer, rows in found:
        here = frame[(frame["op"] == op) & (frame["layer"] == layer)]
        assert [row.median_s for row in rows] == pytest.approx(here["median_s"].tolist(), nan_ok=True)
    assert sum(len(rows) for _, _, rows in found) == len(frame)
