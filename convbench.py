"""The command line: what there is, whether it is right, how fast it is, the report, and the trainer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import commands_choose, commands_compare, commands_results, commands_train, commands_trust
from benchmarks.blas_family import choose_blas_family
from benchmarks.command_line import (
    RESULTS,
    Backends,
    BatchSizes,
    Budget,
    Dtype,
    Ops,
    Suite,
    Threads,
    progress_bar,
    terminal,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Compare implementations of convolution and pooling: checked against each other, timed, reported."
    "\n\nNew here? `convbench list` shows the backends, `convbench check` that they agree, and "
    "`convbench bench` times them and writes a report, in some minutes. `convbench train lenet` trains a "
    "network with them. Results go to `results/`.",
)
BASELINE = "loops"


def bench(
    suite: Suite = None,
    backends: Backends = None,
    batch_sizes: BatchSizes = None,
    ops: Ops = None,
    dtype: Dtype = None,
    threads: Threads = None,
    budget: Budget = None,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = RESULTS / "report",
    baseline: Annotated[str, typer.Option(help="Backend that speed-ups are measured against.")] = BASELINE,
    aa: Annotated[
        bool, typer.Option("--aa", help="Time a backend against itself: what differences are noise here?")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="With --aa: of timing, for each case; 2.")
    ] = None,
) -> None:
    """Time backends on suites with pytest-benchmark, then write the report.

    The same as `pytest --benchmark-only` from the project's root, followed by `convbench report`.
    With `--aa`, a backend takes turns with itself, and no report is written.
    """
    from benchmarks.options import Options

    if aa:
        return commands_trust.same(suite, backends, batch_sizes, ops, dtype, threads, budget, seconds)
    if seconds is not None:
        raise ValueError(f"--seconds is {seconds:g}, which is of --aa; expected --budget, or --aa with it")
    options = Options.read(suite or (), backends, batch_sizes, ops, dtype, threads, budget)
    options.layers()
    if baseline not in (*options.backends, BASELINE):
        raise ValueError(f"--baseline is {baseline!r}; expected one of {', '.join(options.backends)}")
    commands_trust.say_in_brief(options.threads)
    before = set(RESULTS.glob("*.json"))
    status = subprocess.call([sys.executable, "-m", "pytest", *_pytest_arguments(options)])
    saved = sorted(set(RESULTS.glob("*.json")) - before)
    if not saved:
        raise ValueError(f"no results were saved (pytest ended with exit code {status})")
    typer.echo(f"\nresults: {saved[-1]}")
    _report(saved[-1:], out, baseline)
    raise typer.Exit(status)


def _pytest_arguments(options: Any) -> list[str]:
    import benchmarks

    return [
        str(Path(benchmarks.__file__).parent),
        "--benchmark-only",
        "--benchmark-quiet",
        "-q",
        "-rfE",
        *("-p", "no:cacheprovider"),
        *(word for suite in options.suites for word in ("--suite", suite)),
        *("--backends", ",".join(options.backends)),
        *("--batch-sizes", ",".join(map(str, options.batch_sizes))),
        *("--ops", ",".join(options.ops)),
        *("--dtype", options.dtype),
        *("--threads", str(options.threads)),
        *("--budget", str(options.budget_s)),
    ]


def report(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Saved results, or folders of them; the newest if not given.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = RESULTS / "report",
    baseline: Annotated[str, typer.Option(help="Backend that speed-ups are measured against.")] = BASELINE,
) -> None:
    """Turn saved results into one HTML file, with its figures and a CSV beside it."""
    if not files:
        newest = max(RESULTS.glob("*.json"), key=lambda path: path.stat().st_mtime, default=None)
        if newest is None:
            raise ValueError(
                f"no results in {RESULTS}/; expected files, or a run of `convbench bench` before"
            )
        files = [newest]
    _report(files, out, baseline)


def _report(files: list[Path], out: Path, baseline: str) -> None:
    import reports

    page = reports.write(files, out, baseline=baseline)
    frame = reports.load(files)
    typer.echo(reports.summary(frame, baseline))
    warning = reports.noise_warning(frame)
    if warning:
        typer.echo(warning)
    typer.echo(f"report: {page}")


def peers(
    suite: Suite = None,
    ops: Ops = None,
    backends: Backends = None,
    libraries: Annotated[
        str | None, typer.Option("--peers", metavar="A,B", help="Other libraries; all that are installed.")
    ] = None,
    threads: Threads = None,
    seconds: Annotated[
        float | None, typer.Option(help="Of timing, for each layer, op, library and way of output; 0.5.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="For all times; a new file in `results/peers/` if not given."),
    ] = None,
) -> None:
    """Time convbench beside PyTorch, ONNX Runtime and others; exit 1 where one is wrong.

    Each library has a process of its own, on the same cores and threads; they take turns. The fastest of
    convbench's backends on a layer and operation counts. A ratio is the time of a library over that of
    convbench. dw is timed with db. Each is timed with new outputs, and with outputs written into `out`.
    """
    from datetime import UTC, datetime

    from benchmarks.peers import Plan, compare
    from reports import peers as report
    from reports.peers_table import show

    plan = Plan.read(suite or (), ops, backends, libraries, threads, seconds)
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    path = out or RESULTS / "peers" / f"{stamp}.json"
    if path.suffix != ".json":
        raise ValueError(f"--out is {str(path)!r}; expected a file whose name ends with .json")
    with progress_bar("case") as on_progress:
        comparison = compare(plan, on_progress)
    comparison.save(path)
    frame = report.load(path)
    for op in plan.ops:
        for mode in report.MODES:
            show(terminal(), frame, op, mode)
    for what, entries in (("wrong", comparison.wrong), ("skipped", comparison.skipped)):
        for reason, where in _by_reason(entries).items():
            more = f" and {len(where) - 3} more" if len(where) > 4 else ""
            typer.echo(f"{what} {reason}: {', '.join(where[:3] if more else where)}{more}")
    figure = path.with_suffix(".png")
    drawn = report.write(frame, figure)
    typer.echo(f"results: {path}{f', {figure}' if drawn else ''}")
    if comparison.wrong:
        raise typer.Exit(1)


def _by_reason(entries: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The layers of each backend and reason."""
    found: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        found[f"{entry['backend']}, {entry['reason']}"].append(f"{entry['op']} {entry['layer']}")
    return found


_COMMANDS: dict[str, Callable[..., None]] = {
    "list": commands_compare.list_backends,
    "check": commands_compare.check,
    "bench": bench,
    "doctor": commands_trust.doctor,
    "crosscheck": commands_trust.crosscheck,
    "roofline": commands_compare.roofline,
    "report": report,
    "compare": commands_results.compare,
    "history": commands_results.history,
    "peers": peers,
    "train": commands_train.train,
    "tune": commands_choose.tune,
    "choices": commands_choose.choices,
    "prove": commands_choose.prove,
    "regret": commands_choose.regret,
    "evaluate": commands_train.evaluate,
    "predict": commands_train.predict,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)


def main() -> None:
    """Run the command line; bad input is one line and exit code 2."""
    # OpenBLAS's threads would spin for some 30 ms after each product, on the cores that Numba's need. It
    # reads this as NumPy is imported, which the commands do.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    choose_blas_family()
    try:
        app(prog_name="convbench")
    except (ValueError, OSError) as error:
        typer.echo(f"convbench: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
