"""Benchmarks over many runs: what is drawn, and what has changed."""

from dataclasses import replace

import numpy as np
import pytest

from reports.history import changes, histories, history_of, runs, summary
from reports.history_figures import draw
from reports.loading import Results, load_results


@pytest.fixture
def results(make, save):
    """Three runs of two layers on two backends: numba becomes twice as fast, the probe slower by 21 %."""

    def saved(day, numba, probe, layers=("a", "b"), **change):
        content = make.document(
            [make.timed(layer, backend, 8, {"numba": numba, "im2col": 0.1}[backend])
             for layer in layers for backend in ("im2col", "numba")],
            [make.untimed("a", "loops", 8, 2.0)], datetime=f"2025-03-{day:02}T12:00:00+00:00",
        )  # fmt: skip
        content["convbench"]["probes"] = [{"at_s": float(at), "seconds": probe} for at in range(5)]
        content["machine_info"]["convbench"] = content["machine_info"]["convbench"] | change
        return save(f"day{day}.json", content)

    paths = [saved(3, 0.022, 1.21e-4), saved(1, 0.04, 1e-4), saved(2, 0.03, 1e-4, ("a",))]
    return load_results([*paths, saved(4, 5.0, 1.0, cpu="Other 1")])


def test_rows_are_in_order_with_commit_and_drift(results):
    rows = history_of(results)
    rows = rows[rows["machine"] == "Testor 9000"]
    assert runs(rows)["run"].tolist() == ["day1", "day2", "day3"]
    assert set(rows["commit"]) == {"0123456+"}
    assert set(rows["status"]) == {"timed"}
    last = rows[(rows["run"] == "day3") & (rows["backend"] == "numba")]
    assert last["probe_ratio"].tolist() == pytest.approx([1.21] * 2)
    assert last["corrected_s"].tolist() == pytest.approx([0.02] * 2)
    first = rows[rows["run"] == "day1"]
    assert first["corrected_s"].tolist() == pytest.approx(first["median_s"].tolist())


def test_without_probes_nothing_is_corrected(results):
    bare = Results(results.frame, tuple(replace(run, probes=()) for run in results.runs))
    rows = history_of(bare)
    assert rows["probe_ratio"].isna().all()
    assert rows["corrected_s"].tolist() == rows["median_s"].tolist()
    assert not rows["disturbed"].any()


def test_machines_have_histories_of_their_own(results):
    found = list(histories(history_of(results)))
    assert [each.title for each in found] == [
        "Testor 9000, float32, 2 threads, batch 8", "Other 1, float32, 2 threads, batch 8"
    ]  # fmt: skip
    assert [each.slug for each in found] == [
        "testor-9000-float32-2-threads-batch-8", "other-1-float32-2-threads-batch-8"
    ]  # fmt: skip


def test_changes_between_the_first_run_and_the_last(results):
    rows = history_of(results)
    found = changes(rows[rows["machine"] == "Testor 9000"])
    assert found["backend"].tolist() == ["numba", "numba", "im2col", "im2col"]
    assert found["ratio"].tolist() == pytest.approx([0.5, 0.5, 1 / 1.1, 1 / 1.1])
    assert (found["first"].unique().tolist(), found["last"].unique().tolist()) == (["day1"], ["day3"])


def test_the_summary_says_it_in_lines(results):
    lines = summary(history_of(results)).splitlines()
    assert lines[0] == "Testor 9000, float32, 2 threads: 3 runs, 2025-03-01 to 2025-03-03"
    assert lines[1].split(maxsplit=1)[1] == "numba forward a batch 8: 40.0 ms to 20.0 ms"
    assert lines[-2:] == ["Other 1, float32, 2 threads: 1 run, 2025-03-04", "  no case is in two runs"]


def test_a_panel_per_layer_and_a_line_per_backend(results):
    found = next(histories(history_of(results)))
    figure = draw(found)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["a\nforward", "b\nforward"]
    numba = [line for line in figure.axes[0].lines if line.get_marker() == "v"]
    drawn = np.concatenate([line.get_ydata() for line in numba])
    assert drawn.tolist() == pytest.approx([0.04, 0.03, 0.02])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["im2col", "numba"]
    labels = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert labels == [f"2025-03-0{day} 12:00 0123456+" for day in (1, 2, 3)]


def test_disturbed_runs_are_hollow(results):
    bursts = tuple((float(at), 1e-4 if at % 3 else 1e-3) for at in range(9))
    shaken = tuple(replace(run, probes=bursts) if run.name == "day2" else run for run in results.runs)
    found = next(histories(history_of(Results(results.frame, shaken))))
    (hollow,) = [
        line for line in draw(found).axes[0].lines
        if line.get_markerfacecolor() == "white" and line.get_marker() == "v" and len(line.get_xdata())
    ]  # fmt: skip
    assert hollow.get_xdata().tolist() == [1]


def test_panels_without_rows_are_blank(make, save):
    benchmarks = [make.timed("a", "numba", 8, 0.1), make.timed("b", "numba", 8, 0.1, op="dw")]
    found = next(histories(history_of(load_results(save("x.json", make.document(benchmarks))))))
    axes = draw(found).axes
    assert [ax.get_title().replace("\n", " ") for ax in axes if ax.axison] == [
        "a forward", "b gradient of the weights (dw)"
    ]  # fmt: skip
