"""The commands that time whole suites and show what came of it: bench and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.command_line import (
    INTERRUPTED,
    RESULTS,
    Backends,
    BatchSizes,
    Budget,
    Dtype,
    Ops,
    Suite,
    Threads,
    saved_runs,
)
from benchmarks.commands_trust import same, say_in_brief

BASELINE = "loops"


def bench(
    file: Annotated[
        Path | None, typer.Argument(help="An unfinished run, with --resume; the newest if not given.")
    ] = None,
    suite: Suite = None,
    backends: Backends = None,
    batch_sizes: BatchSizes = None,
    ops: Ops = None,
    dtype: Dtype = None,
    threads: Threads = None,
    budget: Budget = None,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = RESULTS / "report",
    baseline: Annotated[str, typer.Option(help="Backend that speed-ups are measured against.")] = BASELINE,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished run, with its options.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Of a case, after which it has failed; 20 budgets and a minute."
        ),
    ] = None,
    aa: Annotated[
        bool, typer.Option("--aa", help="Time a backend against itself: what differences are noise here?")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="With --aa: of timing, for each case; 2.")
    ] = None,
) -> None:
    """Time backends on suites with pytest-benchmark, then write the report.

    The same as `pytest --benchmark-only` from the project's root, followed by `convbench report`; but a case
    that crashes costs only itself. Ctrl-C keeps what is finished, and `--resume` goes on with the others.
    With `--aa`, a backend takes turns with itself, and no report is written.
    """
    if aa:
        return same(suite, backends, batch_sizes, ops, dtype, threads, budget, seconds)
    if seconds is not None:
        raise ValueError(f"--seconds is {seconds:g}, which is of --aa; expected --budget, or --aa with it")
    asked = {
        "suites": suite or (),
        "backends": backends,
        "batch_sizes": batch_sizes,
        "ops": ops,
        "dtype": dtype,
        "threads": threads,
        "budget_s": budget,
    }
    journal, options = _unfinished(file, asked) if resume else _new(file, asked)
    if timeout is not None and not timeout > 0:
        raise ValueError(f"--timeout is {timeout}; expected seconds, more than 0")
    if baseline not in (*options.backends, BASELINE):
        raise ValueError(f"--baseline is {baseline!r}; expected one of {', '.join(options.backends)}")
    say_in_brief(options.threads)
    status = _time(journal, options, timeout)
    saved = journal.path.with_suffix(".json")
    if saved.exists():
        _report([saved], out, baseline)
    raise typer.Exit(status)


def _unfinished(file: Path | None, asked: dict[str, Any]) -> tuple[Any, Any]:
    """The journal of a run to go on with, and its options. Raises ValueError."""
    from benchmarks.resume import find, options_of

    journal = find(file, RESULTS)
    return journal, options_of(journal, asked)


def _new(file: Path | None, asked: dict[str, Any]) -> tuple[Any, Any]:
    """The journal of a new run, not yet begun, and its options. Raises ValueError."""
    from benchmarks.journal import Journal
    from benchmarks.options import Options
    from benchmarks.resume import new_path

    if file is not None:
        raise ValueError(f"FILE is {str(file)!r}; expected it after --resume only")
    options = Options.read(**asked)
    options.layers()
    return Journal(new_path(RESULTS)), options


def _time(journal: Any, options: Any, timeout_s: float | None) -> int:
    """Time what remains of a run, say what is kept of it, and return the exit code."""
    import pytest

    from benchmarks.resume import begin, kept, unfinished
    from benchmarks.watching import RESUME, time_limit, watch

    if not journal.all("begin"):
        earlier = [str(each.path) for each in unfinished(RESULTS)]
        if earlier:
            typer.echo(f"unfinished: {', '.join(earlier)}; `convbench bench --resume FILE` goes on with one")
        begin(options, journal)
    status = watch(journal.path, timeout_s or time_limit(options.budget_s), typer.echo)
    typer.echo(f"\n{kept(journal.path, RESUME)}")
    return INTERRUPTED if status == pytest.ExitCode.INTERRUPTED else status


def report(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Saved results, or folders of them; the newest if not given.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = RESULTS / "report",
    baseline: Annotated[str, typer.Option(help="Backend that speed-ups are measured against.")] = BASELINE,
    layer: Annotated[
        str | None, typer.Option(help="Layer whose ladder is drawn; the most telling one if not given.")
    ] = None,
) -> None:
    """Turn saved results into one HTML file; beside it its figures (PNG, SVG) and its tables (CSV)."""
    _report(files or saved_runs()[-1:], out, baseline, layer)


def _report(files: list[Path], out: Path, baseline: str, layer: str | None = None) -> None:
    import reports

    page = reports.write(files, out, baseline=baseline, layer=layer)
    frame = reports.load(files)
    typer.echo(reports.summary(frame, baseline))
    warning = reports.noise_warning(frame)
    if warning:
        typer.echo(warning)
    typer.echo(f"report: {page}")
