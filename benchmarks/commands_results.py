"""The commands that read saved results of several runs: compare and history."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.command_line import RESULTS, saved_runs, terminal


def compare(
    base: Annotated[Path, typer.Argument(help="Saved results, or a folder with those of several runs.")],
    new: Annotated[Path, typer.Argument(help="What is compared with them.")],
    fail_on: Annotated[
        str, typer.Option(metavar="PERCENT", help="By how much a time may grow; more is a regression.")
    ] = "10%",
    markdown: Annotated[
        bool, typer.Option("--markdown", help="For a pull request; also where the output is no terminal.")
    ] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="For all cases.")] = None,
) -> None:
    """Tell what has become slower between two runs from noise; exit 1 on a regression.

    A ratio is the time in NEW over that in BASE, so that above 1 NEW is slower. The machine's drift, told by
    the probe and by what most backends have in common, is taken off. A regression is a backend, one of its
    ops, or a single case that is slower by more than the limit, where noise does not explain it; or a case
    that newly fails. Save three runs or more for each side, in a folder: smaller changes are seen then, and
    those of single cases, which one burst of something else can spoil. Where the probes tell that the machine
    was disturbed, there is no verdict on times. Results of pytest-benchmark in other projects are compared as
    well; times of two machines, dtypes or numbers of threads are not.
    """
    from kernels.files import replacing
    from reports import comparing, comparing_text
    from reports.loading import load_results

    share = _share(fail_on)
    if csv and csv.suffix != ".csv":
        raise ValueError(f"--csv is {str(csv)!r}; expected a file whose name ends with .csv")
    sides = [load_results(path, foreign=True) for path in (base, new)]
    comparisons = comparing.compare(sides[0], sides[1], share)
    console = terminal()
    if markdown or not console.is_terminal:
        typer.echo(comparing_text.markdown(comparisons), nl=False)
    else:
        comparing_text.show(console, comparisons)
    if csv:
        with replacing(csv) as partial:
            comparing_text.table(comparisons).to_csv(partial, index=False)
    if any(comparison.regressed for comparison in comparisons):
        raise typer.Exit(1)


def _share(text: str) -> float:
    """`10%`, or `10`, as 0.1."""
    try:
        share = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        share = 0.0
    if not 0 < share < float("inf"):
        raise ValueError(f"--fail-on is {text!r}; expected per cent, more than 0, such as 10%")
    return share


def history(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Saved results, or folders of them; all in results/.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the figures and the CSV.")] = RESULTS / "history",
) -> None:
    """Draw each benchmark over many runs, and say what has changed between the first and the last.

    A figure for each machine, dtype, number of threads and batch size, as PNG and SVG, and one CSV. Half of
    the probe's drift is taken off the times, where there are probes. Results of pytest-benchmark in other
    projects are drawn as well.
    """
    from kernels.files import replacing
    from reports import history as report
    from reports.history_figures import draw
    from reports.loading import load_results

    paths = files or saved_runs()
    rows = report.history_of(load_results(paths, foreign=True))
    if rows.empty:
        raise ValueError(f"{', '.join(map(str, paths))}: nothing was timed; expected results with times")
    for found in report.histories(rows):
        figure = draw(found)
        for suffix in (".png", ".svg"):
            with replacing(out / f"{found.slug}{suffix}") as partial:
                figure.savefig(partial, dpi=150)
        typer.echo(f"{found.title}: {out / found.slug}.png, .svg")
    with replacing(out / "history.csv") as partial:
        rows.to_csv(partial, index=False)
    typer.echo(f"{report.summary(rows)}\ntable: {out / 'history.csv'}")
