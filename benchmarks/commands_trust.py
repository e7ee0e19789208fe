"""The commands about how far timings can be trusted: doctor, crosscheck, and `bench --aa`."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

from benchmarks.command_line import INTERRUPTED, RESULTS, Threads, duration, progress_bar, terminal

AA_RESULTS = RESULTS / "aa"
AA_BATCH_SIZES = "1,32"


def say_in_brief(threads: int) -> list[Any]:
    """Say in a line what the doctor warns of, if anything; returns all that it found."""
    from benchmarks.doctor import examine, in_brief

    findings = examine(threads)
    brief = in_brief(findings)
    if brief:
        typer.echo(brief)
    return findings


def doctor(
    threads: Threads = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 where there is a warning.")] = False,
) -> None:
    """Show what makes timings on this machine untrustworthy now, and what to do about each."""
    from rich.markup import escape
    from rich.table import Table

    from benchmarks.doctor import examine, warnings
    from kernels.threads import thread_count

    findings = examine(thread_count(threads))
    found = warnings(findings)
    table = Table("", "check", "found", box=None, pad_edge=False, show_header=False)
    for finding in findings:
        level = "[red]warn[/red]" if finding.level == "warn" else finding.level
        table.add_row(level, finding.check, escape(finding.what))
        if finding.remedy:
            table.add_row("", "", f"-> {escape(finding.remedy)}")
    console = terminal()
    console.print(table)
    many = "1 warning" if len(found) == 1 else f"{len(found)} warnings"
    console.print(f"\n{many}: timings may be off." if found else "\nNothing that disturbs timings was found.")
    if strict and found:
        raise typer.Exit(1)


def same(
    suite: list[str] | None,
    backends: str | None,
    batch_sizes: str | None,
    ops: str | None,
    dtype: str | None,
    threads: int | None,
    budget: float | None,
    seconds: float | None,
) -> None:
    """`bench --aa`: time a backend against itself, say what differences mean nothing, and save it all.

    Takes the backend that `auto` falls back to, and two batch sizes, unless others are asked for.
    """
    from benchmarks.options import Options
    from benchmarks.origin import stamp
    from benchmarks.same import SECONDS, Invented, save
    from kernels.selection import PREFERENCE

    options = Options.read(
        suite or (), backends or PREFERENCE[0], batch_sizes or AA_BATCH_SIZES, ops, dtype, threads, budget
    )
    seconds = SECONDS if seconds is None else seconds
    if not seconds > 0:
        raise ValueError(f"--seconds is {seconds:g}; expected more than 0")
    options.layers()
    findings = say_in_brief(options.threads)
    found, stopped = _measured(options, seconds)
    path = AA_RESULTS / f"{stamp()}.json"
    table = save(path, found, options, seconds, findings)
    wrong = [each for each in found if each.wrong]
    for each in wrong:
        typer.echo(f"wrong {each.case.id}: {each.wrong}")
    if any(each.pairs_s for each in found):
        _show_same(found)
        typer.echo(f"\n{Invented.of(found)}")
    skipped = sum(each.skipped is not None for each in found)
    typer.echo(f"results: {path}, {table}{f'; {skipped} cases skipped' if skipped else ''}")
    if stopped or wrong:
        raise typer.Exit(INTERRUPTED if stopped else 1)


def _measured(options: Any, seconds: float) -> tuple[list[Any], bool]:
    """The cases of `options`, each against itself, and whether Ctrl-C came before the last of them.

    Those before it are kept; where there are none, the command ends.
    """
    from benchmarks.run import cases
    from benchmarks.same import measure_same

    planned = list(cases(options))
    found: list[Any] = []
    try:
        with progress_bar("case") as on_progress:
            for each in measure_same(options, seconds):
                found.append(each)
                on_progress(len(found), len(planned), each.case.id)
    except KeyboardInterrupt:
        if not found:
            typer.echo("no case was finished: nothing is kept")
            raise typer.Exit(INTERRUPTED) from None
        typer.echo(f"stopped: {len(found)} of {len(planned)} cases are finished")
        return found, True
    return found, False


def _show_same(found: list[Any]) -> None:
    """What is invented on each layer, and for calls of each length."""
    from rich.table import Table

    from benchmarks.same import Invented, by_duration, by_layer

    figures = ("median", "95 %", "worst", "pairs")
    layers = Table("layer", "batch", "backend", "calls of", *figures, box=None, pad_edge=False)
    for (layer, batch, backend), members in by_layer(found).items():
        times = sorted(each.median_s for each in members)
        calls = " to ".join(dict.fromkeys(duration(seconds) for seconds in (times[0], times[-1])))
        layers.add_row(layer, str(batch), backend, calls, *_figures(Invented.of(members)))
    lengths = Table("calls of", *figures, box=None, pad_edge=False)
    for (low, high), members in by_duration(found).items():
        lengths.add_row(_between(low, high), *_figures(Invented.of(members)))
    console = terminal()
    console.print(layers)
    console.print()
    console.print(lengths)


def _between(low: float, high: float) -> str:
    """Bounds of a duration, of which the lowest is 0 and the highest infinity."""
    if not low:
        return f"less than {duration(high)}"
    return f"{duration(low)} and more" if math.isinf(high) else f"{duration(low)} to {duration(high)}"


def _figures(invented: Any) -> list[str]:
    fractions = (invented.median, invented.p95, invented.worst)
    return [*(f"{fraction:.1%}" for fraction in fractions), str(invented.pairs)]


def crosscheck(
    threads: Threads = None,
    tool: Annotated[
        str | None, typer.Option(help="torch or timeit; torch where it is installed, else timeit.")
    ] = None,
) -> None:
    """Time some calls with another tool, too; exit 1 where the two differ by more than 5 %.

    The calls take some 50 us, 1 ms and 10 ms. pytest-benchmark, used as in a benchmark run, and PyTorch's
    `torch.utils.benchmark.Timer`, or Python's `timeit`, take turns in one process.
    """
    from benchmarks.crosscheck import LIMIT, default_tool
    from benchmarks.crosscheck import crosscheck as run_crosscheck
    from kernels.threads import thread_count

    tool = tool or default_tool()
    checked = run_crosscheck(thread_count(threads), tool)
    _show_checked(checked, tool)
    differing = sum(not each.agrees for each in checked)
    if differing:
        typer.echo(
            f"{differing} of {len(checked)} ratios are further than {LIMIT:.0%} from 1. Where quartiles are "
            "far apart, the machine is noisy:\nsee `convbench doctor`, and repeat it. Else one of the tools "
            "counts what the other does not: do not trust\ntimes of such calls."
        )
        raise typer.Exit(1)
    typer.echo(f"Both see the same times, to within {LIMIT:.0%}.")


def _show_checked(checked: list[Any], tool: str) -> None:
    """A row for each call that both tools timed."""
    from rich.table import Table

    from benchmarks.crosscheck import LAYER

    heads = ("backend", "batch", "pytest-benchmark", tool, "rounds", "ratio", "quartiles", "")
    table = Table(*heads, box=None, pad_edge=False)
    for each in checked:
        q1, ratio, q3 = each.quartiles
        times = [duration(seconds) for seconds in each.medians_s]
        verdict = "agree" if each.agrees else "[red]differ[/red]"
        spread = f"{q1:.3f} .. {q3:.3f}"
        rounds = str(len(each.ours_s))
        table.add_row(each.backend, str(each.batch), *times, rounds, f"{ratio:.3f}", spread, verdict)
    console = terminal()
    console.print(table)
    console.print(
        f"\n{LAYER.name}, forward. Medians over rounds, in which both take turns; a ratio is taken within a "
        "round."
    )
