"""The commands about how far timings can be trusted: doctor, crosscheck, and `bench --aa`."""

from __future__ import annotations

from typing import Annotated

import typer

from benchmarks.command_line import Threads, terminal


def say_in_brief(threads: int) -> None:
    """Say in a line what the doctor warns of, if anything."""
    from benchmarks.doctor import examine, in_brief

    brief = in_brief(examine(threads))
    if brief:
        typer.echo(brief)


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
