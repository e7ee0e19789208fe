"""Saved files become rows; what cannot be read is refused in one line that names it."""

import json
import re

import pandas as pd
import pytest

import reports
from reports.loading import COLUMNS


def test_a_row_per_case_with_all_columns(golden_path):
    frame = reports.load(golden_path)
    assert tuple(frame.columns) == COLUMNS
    assert frame["status"].value_counts().to_dict() == {"timed": 13, "skipped": 4, "failed": 1}


def test_every_column_is_documented():
    listed = re.findall(r"^    - ([\w, ]+): ", reports.load.__doc__, flags=re.MULTILINE)
    assert [name for line in listed for name in line.split(", ")] == list(COLUMNS)


def test_numbers_of_a_timed_case(golden_path):
    row = reports.load(golden_path).iloc[3]
    assert (row["run"], row["machine"], row["layer"], row["backend"]) == (
        "golden", "Testor 9000", "a:conv", "im2col"
    )  # fmt: skip
    assert row["datetime"] == pd.Timestamp("2025-03-01 12:00", tz="UTC")
    assert (row["batch"], row["threads"], row["rounds"], row["flops"]) == (32, 2, 7, 32 * 10**9)
    assert row["images_per_s"] == pytest.approx(1000)
    assert row["gflops"] == pytest.approx(1000)
    assert row["least_gib_per_s"] == pytest.approx(32 / 1024 / 0.032)
    assert row["attainable_s"] == pytest.approx(0.08)
    assert row["share"] == pytest.approx(2.5)
    assert (row["least_mib"], row["im2col_mib"], row["peak_mib"]) == (32, 128, 256)
    assert (row["min_s"], row["q1_s"], row["median_s"], row["q3_s"], row["max_s"]) == pytest.approx(
        (0.016, 0.0288, 0.032, 0.0352, 0.064)
    )
    assert (row["mean_s"], row["stddev_s"], row["iqr_s"]) == pytest.approx((0.0352, 0.0096, 0.0064))
    assert row["error"] == 3e-6
    assert row["reason"] == ""
    assert pd.isna(row["predicted_s"])
    assert pd.isna(row["compile_s"])


def test_a_skipped_case_has_a_reason_and_no_times(golden_path):
    frame = reports.load(golden_path)
    row = frame[frame["status"] == "skipped"].iloc[0]
    assert (row["layer"], row["batch"], row["predicted_s"]) == ("a:conv", 32, 3.2)
    assert row["reason"] == "predicted 3.2 s, over the budget of 1.0 s"
    assert row[["median_s", "gflops", "error", "rounds", "peak_mib"]].isna().all()


def test_files_from_before_there_were_ceilings(save, make):
    older, smoke = make.timed("a", "numba", 1, 0.1), make.timed("b", "numba", 1, 0.1)
    del older["extra_info"]["attainable_s"]
    smoke["extra_info"]["attainable_s"] = None
    frame = reports.load(save("old.json", make.document([older, smoke])))
    assert frame[["attainable_s", "share"]].isna().all(axis=None)
    assert (frame["median_s"] == 0.1).all()


def test_types(golden_path):
    types = reports.load(golden_path).dtypes
    assert {str(types[name]) for name in ("batch", "threads", "flops")} == {"int64"}
    assert {str(types[name]) for name in ("median_s", "rounds", "peak_mib", "predicted_s")} == {"float64"}
    assert isinstance(types["datetime"], pd.DatetimeTZDtype)


def test_files_directories_and_both(golden_path, save, make):
    save("results/deeper/other.json", make.document([make.timed("a", "numba", 1, 0.1)]))
    directory = golden_path.parent
    assert reports.load(str(golden_path))["run"].unique().tolist() == ["golden"]
    assert sorted(reports.load(directory)["run"].unique()) == ["golden", "other"]
    assert len(reports.load([golden_path, directory])) == 19  # the file is read once


def test_runs_of_one_name_are_told_apart(save, make):
    one = save("one/run.json", make.golden())
    two = save("two/run.json", make.golden())
    assert reports.load([one, two])["run"].unique().tolist() == ["run", "two/run"]


def test_results_hold_the_machine_and_the_options(golden_path):
    (run,) = reports.load_results(golden_path).runs
    assert run.name == "golden"
    assert run.facts["caches"]["L2"] == 2**20
    assert run.options["budget_s"] == 1.0
    assert run.commit["dirty"] is True


def test_foreign_benchmarks_beside_ours_are_left_out(save, make):
    foreign = {"name": "test_other", "extra_info": {}, "stats": {}}
    path = save("x.json", make.document([foreign, make.timed("a", "numba", 1, 0.1)]))
    assert reports.load(path)["backend"].tolist() == ["numba"]


def test_machine_falls_back_to_the_host(save, make):
    content = make.document([make.timed("a", "numba", 1, 0.1)])
    content["machine_info"] = {"node": "host"}
    assert reports.load(save("x.json", content))["machine"].tolist() == ["host"]
    content["machine_info"]["cpu"] = {"brand_raw": "Branded"}
    assert reports.load(save("x.json", content))["machine"].tolist() == ["Branded"]


def refusal(paths):
    with pytest.raises(ValueError, match="expected") as caught:
        reports.load(paths)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_no_paths():
    assert refusal([]) == "paths is empty; expected at least one JSON file or directory of a benchmark run"


def test_missing_file(tmp_path):
    path = tmp_path / "none.json"
    assert refusal(path) == f"{path} does not exist; expected a JSON file or directory of a benchmark run"


def test_other_json_in_a_directory_is_passed_over(golden_path, save):
    save("results/peers/x.json", {"convbench_peers": 2, "rows": []})
    assert reports.load(golden_path.parent)["run"].unique().tolist() == ["golden"]
    golden_path.unlink()
    assert refusal(golden_path.parent).endswith(
        "is a directory without saved benchmark runs; expected one with saved benchmark runs"
    )
    save("results/half.json", '{"benchmarks": [')  # what is broken is not passed over
    assert "half.json is not JSON" in refusal(golden_path.parent)


def test_directory_without_json(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    message = f"{tmp_path} is a directory without .json files; expected one with saved benchmark runs"
    assert refusal(tmp_path) == message


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("{nonsense", "is not JSON (line 1, column 2: "),
        ("[1]", "is not a pytest-benchmark file (JSON a list)"),
        ("3", "is not a pytest-benchmark file (JSON a number or truth value)"),
        (
            '{"benchmarks": [], "version": "5"}',
            "is not a pytest-benchmark file (no key machine_info, datetime)",
        ),
    ],
)
def test_other_files(save, content, what):
    path = save("x.json", content)
    message = refusal(path)
    assert message.startswith(f"{path} {what}")
    assert message.endswith("; expected the JSON of a convbench benchmark run")


def test_binary_file(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"\xff\xfe\x00")
    assert "is not JSON (not UTF-8 text)" in refusal(path)


@pytest.mark.parametrize(
    ("count", "what"), [(0, "no benchmarks"), (1, "1 foreign benchmark"), (3, "3 foreign benchmarks")]
)
def test_results_of_other_projects(save, make, count, what):
    content = make.document([{"name": "test_x", "extra_info": {}, "stats": {}}] * count)
    del content["convbench"]
    path = save("x.json", content)
    assert refusal(path) == (
        f"{path} holds no convbench results (pytest-benchmark file of {what}); "
        "expected the JSON of a convbench benchmark run"
    )


def test_one_bad_file_among_good_ones_is_named(golden_path, save):
    bad = save("bad.json", "")
    assert str(bad) in refusal([golden_path, bad])


@pytest.mark.parametrize(
    ("where", "key", "value", "what"),
    [
        ("extra_info", "layer", None, "extra_info.layer is null; expected a string"),
        ("extra_info", "batch", "8", 'extra_info.batch is "8"; expected an integer of at least 1'),
        ("extra_info", "batch", 0, "extra_info.batch is 0; expected an integer of at least 1"),
        ("extra_info", "threads", True, "extra_info.threads is true; expected an integer of at least 1"),
        ("extra_info", "flops", 1.5, "extra_info.flops is 1.5; expected an integer of at least 0"),
        ("extra_info", "error", None, "extra_info.error is null; expected a non-negative number"),
        ("extra_info", "error", float("nan"), "extra_info.error is NaN; expected a non-negative number"),
        ("extra_info", "peak_bytes", [], "extra_info.peak_bytes is a list; expected a non-negative number"
                                         " or null"),
        ("extra_info", "schema", 2, "extra_info.schema is 2; expected 1"),
        ("stats", "median", 0, "stats.median is 0; expected a positive number"),
        ("stats", "q1", -1.0, "stats.q1 is -1.0; expected a positive number"),
        ("stats", "rounds", {}, "stats.rounds is an object; expected an integer of at least 1"),
    ],
)  # fmt: skip
def test_wrong_values_are_named(save, make, where, key, value, what):
    benchmark = make.timed("a", "numba", 8, 0.1)
    benchmark[where][key] = value
    path = save("x.json", make.document([benchmark]))
    assert refusal(path) == f"{path}: benchmark 'test_a[numba-8]': {what}"


@pytest.mark.parametrize(("where", "key"), [("extra_info", "backend"), ("stats", "median"), ("stats", "iqr")])
def test_missing_keys_are_named(save, make, where, key):
    benchmark = make.timed("a", "numba", 8, 0.1)
    del benchmark[where][key]
    path = save("x.json", make.document([benchmark]))
    assert refusal(path).startswith(
        f"{path}: benchmark 'test_a[numba-8]': {where}.{key} is missing; expected "
    )


def test_wrong_entries_of_skipped_cases_are_named(save, make):
    entries = [make.untimed("a", "loops", 8, 1.0), make.untimed("a", "loops", 32, "long")]
    path = save("x.json", make.document([], entries))
    assert refusal(path) == (
        f'{path}: skipped entry 2: predicted_s is "long"; expected a non-negative number or null'
    )


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"benchmarks": {}}, "benchmarks is an object; expected a list"),
        ({"benchmarks": [3]}, "benchmarks[0] is 3; expected an object"),
        ({"machine_info": []}, "machine_info is a list; expected an object"),
        ({"datetime": 3}, "datetime is 3; expected a string"),
        ({"datetime": "soon"}, "datetime is 'soon'; expected a date and time like "
                               "'2025-01-31T12:00:00+00:00'"),
        ({"convbench": {"schema": 2}}, "convbench.schema is 2; expected 1"),
    ],
)  # fmt: skip
def test_wrong_parts_of_the_file_are_named(save, make, change, what):
    path = save("x.json", json.dumps(make.golden() | change))
    assert refusal(path) == f"{path}: {what}"


def test_the_probe_of_a_case_and_of_a_run(save, make):
    probed = make.timed("a", "numba", 1, 0.1)
    probed["extra_info"]["probe_s"] = 0.004
    content = make.document([probed, make.timed("b", "numba", 1, 0.1)])
    content["convbench"]["probes"] = [{"at_s": 0.5, "seconds": 0.004}, {"at_s": 4.0, "seconds": 0.005}]
    results = reports.load_results(save("x.json", content))
    assert results.frame["probe_s"].tolist() == pytest.approx([0.004, float("nan")], nan_ok=True)
    assert results.runs[0].probes == ((0.5, 0.004), (4.0, 0.005))


def test_a_run_without_probes_has_none(golden_path):
    results = reports.load_results(golden_path)
    assert results.runs[0].probes == ()
    assert results.frame["probe_s"].isna().all()


def test_a_wrong_probe_is_named(save, make):
    content = make.document([make.timed("a", "numba", 1, 0.1)])
    content["convbench"]["probes"] = [{"at_s": 1.0, "seconds": 0}]
    path = save("x.json", content)
    assert refusal(path) == f"{path}: probe 1: seconds is 0; expected a positive number"


def test_foreign_benchmarks_as_far_as_they_go(save, make):
    foreign = make.timed("x", "x", 1, 0.25)
    foreign |= {"extra_info": {}, "fullname": "test_z.py::test_sort[9-a]", "params": {"n": 9, "kind": "a"}}
    path = save("x.json", make.document([foreign, make.timed("a", "numba", 1, 0.1)]))
    frame = reports.load(path, foreign=True)
    assert frame["layer"].tolist() == ["a", "test_z.py::test_sort[9-a]"]
    row = frame.iloc[1]
    assert (row["descriptor"], row["op"], row["backend"], row["batch"]) == ("n=9, kind=a", "", "", 0)
    assert (row["status"], row["median_s"], row["rounds"]) == ("timed", 0.25, 7)
    assert row[["images_per_s", "gflops", "share", "error", "probe_s", "peak_mib"]].isna().all()


def test_a_file_of_foreign_benchmarks_alone(save, make):
    foreign = make.timed("", "", 1, 2.0) | {"name": "test_x", "params": None, "extra_info": {}}
    content = make.document([foreign])
    del content["convbench"]
    path = save("x.json", content)
    assert reports.load(path, foreign=True)["layer"].tolist() == ["test_x"]
    assert "1 foreign benchmark" in refusal(path)
