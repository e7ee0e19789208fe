"""The command line: what there is, whether it is right, how fast it is, the report, and the trainer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import (
    commands_bench,
    commands_choose,
    commands_compare,
    commands_results,
    commands_train,
    commands_trust,
    environment,
)
from benchmarks.command_line import (
    RESULTS,
    Backends,
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
    from benchmarks.origin import stamp
    from benchmarks.peers import Plan, compare
    from reports import peers as report
    from reports.peers_table import show

    plan = Plan.read(suite or (), ops, backends, libraries, threads, seconds)
    path = out or RESULTS / "peers" / f"{stamp()}.json"
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
    "doctor": commands_trust.doctor,
    "bench": commands_bench.bench,
    "crosscheck": commands_trust.crosscheck,
    "roofline": commands_compare.roofline,
    "report": commands_bench.report,
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
    environment.prepare()  # the commands import NumPy
    try:
        app(prog_name="convbench")
    except (ValueError, OSError) as error:
        typer.echo(f"convbench: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
