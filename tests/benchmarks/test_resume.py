"""Unfinished runs: found, and refused where their times would not compare."""

from __future__ import annotations

import pytest

from benchmarks import resume
from benchmarks.journal import Journal
from benchmarks.options import Options
from benchmarks.run import cases

GIVEN = {"suites": ["lenet"], "backends": "im2col,loops", "batch_sizes": "1,8", "threads": 1}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begun(folder) -> Journal:
    """A run of `GIVEN` that has begun in `folder`, and ended before its first case."""
    options = Options.read(**GIVEN)
    journal = Journal(resume.new_path(folder))
    resume.begin(options, journal)
    journal.write("cases", [case.key for case in cases(options)])
    return journal


def test_runs_of_the_same_second_get_files_of_their_own(folder):
    paths = {begun(folder).path for _ in range(3)}
    assert len(paths) == 3
    resume.result_of(resume.new_path(folder)).touch()
    assert not resume.result_of(resume.new_path(folder)).exists()


def test_the_newest_is_found_or_one_by_its_name_or_that_of_its_result(folder):
    for name in ("2026-01-02T000000Z", "2026-01-03T000000Z", "2026-01-01T000000Z"):
        begun(folder).path.rename(folder / f"{name}.partial")
    (folder / "2026-01-04T000000Z.partial").write_text("no journal")
    assert resume.find("", folder).path.stem == "2026-01-03T000000Z"
    assert resume.find(None, folder).path.stem == "2026-01-03T000000Z"
    for name in ("2026-01-01T000000Z.partial", "2026-01-01T000000Z.json"):
        assert resume.find(folder / name, folder).path.stem == "2026-01-01T000000Z"
    with pytest.raises(ValueError, match=r"there is no unfinished run no\.partial; expected"):
        resume.find("no.json", folder)
    with pytest.raises(ValueError, match="no unfinished run in empty/; expected one that was stopped"):
        resume.find("", folder.joinpath("empty").relative_to(folder))


def test_a_run_at_work_is_not_taken_up(folder):
    journal = begun(folder)
    journal.begin_session()
    assert resume.unfinished(folder) == []
    with pytest.raises(ValueError, match="is being written by process"):
        resume.find(journal.path, folder)
    journal.write("end")
    assert resume.find("", folder).path == journal.path


def test_options_are_those_of_the_run(folder):
    expected = Options.read(**GIVEN)
    nothing = dict.fromkeys(["backends", "batch_sizes", "ops", "dtype", "threads", "budget_s"]) | {
        "suites": []
    }
    assert resume.options_of(begun(folder), nothing) == expected
    assert resume.options_of(begun(folder), {**nothing, **GIVEN, "batch_sizes": "8 1"}) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"suites": ["vgg19"]}, "--suite is vgg19, but {} was begun with lenet; expected the same, or no"),
        ({"batch_sizes": "1"}, "--batch-sizes is 1, but {} was begun with 1,8"),
        ({"backends": "im2col"}, "--backends is im2col, but {} was begun with im2col,loops"),
        ({"ops": "forward"}, "--ops is forward, but {} was begun with forward,dx,dw"),
        ({"dtype": "float64"}, "--dtype is float64, but {} was begun with float32"),
        ({"budget_s": 2.0}, "--budget is 2.0, but {} was begun with 1.0"),
        ({"batch_sizes": "many"}, "--batch-sizes is 'many'; expected positive ints"),
    ],
)  # fmt: skip
def test_other_options_are_refused(folder, asked, message):
    journal = begun(folder)
    with pytest.raises(ValueError, match="expected") as error:
        resume.options_of(journal, asked)
    assert str(error.value).startswith(message.format(journal.path))
    assert "\n" not in str(error.value)


def test_another_machine_is_refused(folder, monkeypatch):
    journal = begun(folder)
    here = resume.identity()
    monkeypatch.setattr(resume, "identity", lambda: {**here, "cpu": "Z80"})
    with pytest.raises(
        ValueError, match=r"was begun with cpu '.*' \(here: 'Z80'\); expected the same machine"
    ):
        resume.options_of(journal, {})


def test_layers_that_are_gone_are_refused(folder):
    suite = folder / "own.txt"
    suite.write_text('mb1ic1ih8oc2kh3n"one"\nmb1ic1ih8oc2kh5n"two"\n')
    options = Options.read([str(suite)], "im2col", "1")
    journal = Journal(resume.new_path(folder))
    resume.begin(options, journal)
    journal.write("cases", [case.key for case in cases(options)])
    suite.write_text('mb1ic1ih8oc2kh3n"one"\n')
    with pytest.raises(
        ValueError, match=r"own\.txt no longer has 3 cases that .* is to go on with; expected"
    ):
        resume.options_of(journal, {})


def test_what_is_kept_is_said(folder):
    journal = begun(folder)
    path, total = journal.path, len(journal.keys)
    rest = f"0 of {total} cases are finished; `go {path}` goes on with the rest"
    assert resume.kept(path, "go ") == rest
    resume.result_of(path).touch()
    assert resume.kept(path, "go ") == f"results: {resume.result_of(path)}\n{rest}"
    path.unlink()
    assert resume.kept(path, "go ") == f"results: {resume.result_of(path)}"
    resume.result_of(path).unlink()
    assert resume.kept(path, "go ") == "no case was finished: nothing is kept"
