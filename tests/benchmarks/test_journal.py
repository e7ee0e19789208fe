"""The journal: what is written is read again, whatever the process came to."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.doctor import Finding
from benchmarks.journal import Journal, key_of
from benchmarks.options import Options
from benchmarks.run import Run, cases


def facts(backend: str, batch: int = 1) -> dict[str, object]:
    return {
        "suite": "own.txt",
        "kind": "conv2d",
        "descriptor": f"mb{batch}ic1ih8oc1oh8kh1",
        "op": "dx",
        "backend": backend,
    }


@pytest.fixture
def journal(tmp_path) -> Journal:
    journal = Journal(tmp_path / "results" / "now.partial")
    journal.write("begin", {"options": {}})
    journal.write("cases", [key_of(facts(name)) for name in ("a", "b", "c", "d")])
    return journal


def again(journal: Journal) -> Journal:
    return Journal.read(journal.path)


def test_outcomes_are_in_the_file_at_once(journal):
    journal.write("start", facts("b"))
    journal.write("failed", {**facts("b"), "reason": "wrong"})
    journal.write("start", facts("a"))
    journal.write("timed", {"extra_info": facts("a"), "stats": {"median": 0.1 + 0.2}})
    journal.write("start", facts("c"))
    found = again(journal)
    assert set(found.outcomes) == {key_of(facts("a")), key_of(facts("b"))}
    assert found.outcomes[key_of(facts("a"))]["stats"]["median"] == 0.1 + 0.2
    assert found.remaining == [key_of(facts("c")), key_of(facts("d"))]
    assert found.under_way == facts("c")
    found.fail_case_under_way("crashed")
    assert again(found).under_way is None
    assert [each["reason"] for each in again(found).in_order("failed")] == ["wrong", "crashed"]


def test_outcomes_come_in_the_order_of_the_cases(journal):
    for name in ("d", "a", "c"):
        journal.write("skipped", facts(name))
    assert [each["backend"] for each in journal.in_order("skipped")] == ["a", "c", "d"]


def test_what_was_not_written_whole_was_not_written(journal):
    before = journal.path.read_bytes()
    journal.write("skipped", facts("a"))
    whole = journal.path.read_bytes()
    for size in range(len(before), len(whole)):
        journal.path.write_bytes(whole[:size])
        found = again(journal)
        assert not found.outcomes
        found.write("skipped", facts("b"))
        assert set(again(journal).outcomes) == {key_of(facts("b"))}


def test_an_end_in_order_leaves_no_case_under_way(journal):
    journal.write("start", facts("a"))
    assert not journal.ended
    journal.write("end")
    assert again(journal).ended
    assert again(journal).under_way is None
    assert again(journal).remaining == journal.keys


def test_seconds_go_on_and_tell_how_long_a_case_took(journal):
    journal.write("start", facts("a"))
    lines = journal.path.read_text().splitlines()
    later = json.loads(lines[-1]) | {"at_s": 100.0}
    journal.path.write_text("\n".join([*lines[:-1], json.dumps(later), ""]))
    found = again(journal)
    assert 100 <= found.seconds < 200
    found.path.write_text(found.path.read_text() + json.dumps({"at_s": 102.5, "skipped": facts("a")}) + "\n")
    assert again(found).durations == [(facts("a"), 2.5)]


def test_a_process_at_work_is_told_from_one_that_is_gone(journal):
    assert journal.writer is None
    journal.begin_session()
    assert again(journal).writer is not None
    assert again(journal).resumed == []
    script = f"import pathlib, benchmarks.journal as j; j.Journal.read(pathlib.Path({str(journal.path)!r}))"
    subprocess.run([sys.executable, "-c", f"{script}.begin_session()"], check=True)
    assert again(journal).writer is None
    assert len(again(journal).resumed) == 1
    journal.write("end")
    assert journal.writer is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no run; expected a run's .partial"),
        ("hello\n", ":1 is no line of a journal; expected a run's .partial"),
        ('{"at_s": 1, "begin": {}}\n[1]\n', ":2 is no line of a journal"),
        ('{"at_s": 1, "begin": {}}\n{"at_s": 1}\n', ":2 is no line of a journal"),
        ('{"begin": {}}\n', ":1 is no line of a journal"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "other.partial"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.partial") as error:
        Journal.read(path)
    assert message in str(error.value)


def test_without_a_path_it_is_in_memory_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    journal = Journal()
    journal.write("skipped", facts("a"))
    assert journal.all("skipped") == [facts("a")]
    assert not list(tmp_path.iterdir())


def test_cases_differ_by_their_keys_and_outcomes_have_the_same():
    chosen = list(cases(Options.read(["default", "lenet"], batch_sizes="1,8")))
    assert len({case.key for case in chosen}) == len(chosen)
    assert all(key_of(case.facts(1)) == case.key for case in chosen)


def test_a_run_recalls_what_its_journal_holds(tmp_path):
    options = Options.read(["lenet"], "loops,im2col", "1,8", threads=1, budget_s=1)
    small, large = [case for case in cases(options) if case.backend == "loops" and case.op == "dx"][:2]
    assert (small.layer.N, large.layer.N) == (1, 8)
    journal = Journal(tmp_path / "now.partial")
    journal.write("begin", {})
    ceiling = {"gemm_gflops": 1.0, "copy_gbs": 2.0, "dtype": "float32", "threads": 1}
    journal.write("ceiling", ceiling)
    Run(options, journal=journal).keep({"extra_info": small.facts(1), "stats": {"median": 0.125}})
    run = Run(options, journal=again(journal))
    assert run.forecast(large).call_s == 1.0
    assert "predicted 1 s a call" in run.reason_to_skip(large)
    assert run.ceiling.as_dict() == ceiling
    run.examine_machine()
    assert run.ceiling.as_dict() == ceiling
    assert again(journal).all("skipped") == run.as_dict()["skipped"]


def test_a_run_examines_its_machine_once(monkeypatch):
    found = [Finding("noise", "good", "quiet")]
    looks = iter([found])
    monkeypatch.setattr("benchmarks.run.examine", lambda threads: next(looks))
    journal = Journal()
    journal.write("ceiling", {"gemm_gflops": 1.0, "copy_gbs": 2.0, "dtype": "float32", "threads": 1})
    run = Run(Options.read(["lenet"], threads=1), journal=journal)
    assert run.findings == found
    run.examine_machine()
    assert run.as_dict()["findings"] == [found[0].as_dict()]
