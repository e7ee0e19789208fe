"""What pytest does for a run that is timed: keep its journal, say how far it is, and save the result.

The journal is the one way to a saved file: of a run without a break, after Ctrl-C, and of one that goes on
after its process died.
"""

from __future__ import annotations

import signal
from collections.abc import Generator
from types import FrameType
from typing import Any

import pytest

from benchmarks import resume
from benchmarks.journal import as_json
from benchmarks.progress import Progress
from benchmarks.run import Case, Run
from kernels.files import replacing

DIED = "the process ended while this case ran: it crashed, or was killed"
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]  # Windows has no SIGHUP
TestStatus = tuple[str, str, Any]


class Stopped(KeyboardInterrupt):
    """The session was asked to end; for pytest the same as Ctrl-C, without the place where it was."""


class Recording:
    """The hooks of a session in which cases are timed. A run whose journal has no path is saved by others."""

    def __init__(self, config: pytest.Config, run: Run) -> None:
        self.config, self.run, self.journal = config, run, run.journal
        self.progress: Progress | None = None
        self.failed_before: list[dict[str, Any]] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what was finished before; what a process died of is finished too."""
        if self.config.option.collectonly or not self.journal.all("begin"):
            return
        if self.journal.under_way is not None:
            self.journal.fail_case_under_way(DIED)
        self.failed_before = list(self.journal.all("failed"))
        if self.journal.keys:
            remaining = set(self.journal.remaining)

            def remains(item: pytest.Item) -> bool:
                case = _case_of(item)
                return case is None or case.key in remaining

            self.config.hook.pytest_deselected(items=[item for item in items if not remains(item)])
            items[:] = filter(remains, items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Begin, or go on, in the journal."""
        chosen = [case for item in session.items if (case := _case_of(item))]
        if self.config.option.collectonly or not (chosen or self.journal.keys):
            return
        saved_here = self.journal.path is not None
        if saved_here and not self.journal.all("begin"):
            resume.begin(self.run.options, self.journal)
        if not self.journal.keys:
            self.journal.write("cases", [case.key for case in chosen])
        if saved_here:
            self.journal.begin_session()
            _stop_in_order(self.config)
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            self.progress = Progress(reporter, self.journal, chosen)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Say what begins; nothing is drawn while it is timed."""
        case = _case_of(item)
        if case and self.progress:
            self.progress.show(case)

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self) -> Generator[None, TestStatus, TestStatus]:
        """No letter for a test where a line says how far the run is."""
        category, letter, word = yield
        if self.progress and self.progress.instead_of_letters:
            return category, "", ""
        return category, letter, word

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Save what there is; the journal stays for as long as there is more to do."""
        if self.progress:
            self.progress.clear()
        path = self.journal.path
        if path is None or not self.journal.all("session"):
            return
        self.journal.write("end")
        if self.journal.outcomes:
            with replacing(resume.result_of(path)) as partial:
                partial.write_text(as_json(self._document(), indent=4), encoding="utf-8")
        if not (self.journal.outcomes and self.journal.remaining):
            path.unlink()
        if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            failed = self.journal.all("failed")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.OK

    def _document(self) -> dict[str, Any]:
        """The journal as a file of pytest-benchmark, made by the hooks with which that makes its own."""
        config, hook = self.config, self.config.hook
        machine = hook.pytest_benchmark_generate_machine_info(config=config)
        hook.pytest_benchmark_update_machine_info(config=config, machine_info=machine)
        commit = hook.pytest_benchmark_generate_commit_info(config=config)
        hook.pytest_benchmark_update_commit_info(config=config, commit_info=commit)
        document: dict[str, Any] = hook.pytest_benchmark_generate_json(
            config=config, benchmarks=[], include_data=False, machine_info=machine, commit_info=commit
        )
        document["benchmarks"] = self.journal.in_order("timed")
        hook.pytest_benchmark_update_json(config=config, benchmarks=[], output_json=document)
        return document

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for failed in self.failed_before:
            where = f"{failed['layer']} {failed['op']} batch {failed['batch']}, {failed['backend']}"
            terminalreporter.write_line(f"failed before: {where}: {failed['reason']}")
        path = self.journal.path
        if path is not None and self.journal.all("session") and not self.config.option.benchmark_quiet:
            terminalreporter.write_line(resume.kept(path, "pytest --benchmark-only --resume="))


def _case_of(item: pytest.Item) -> Case | None:
    """The case of an item, or None for other tests."""
    case = item.callspec.params.get("case") if hasattr(item, "callspec") else None
    return case if isinstance(case, Case) else None


def _stop_in_order(config: pytest.Config) -> None:
    """Have Ctrl-C, SIGTERM and a closed terminal end the session, once, lest saving is broken off too.

    What the process was told to ignore, it ignores.
    """
    caught = {each: signal.getsignal(each) for each in SIGNALS if signal.getsignal(each) != signal.SIG_IGN}

    def stop(number: int, frame: FrameType | None) -> None:
        for each in caught:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped

    def restore() -> None:
        for each, handler in caught.items():
            signal.signal(each, handler)

    for each in caught:
        signal.signal(each, stop)
    config.add_cleanup(restore)
