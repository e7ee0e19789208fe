"""The commands that compare backends: list, check and roofline."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated, Any

import typer

from benchmarks.command_line import (
    Backends,
    BatchSizes,
    Dtype,
    Ops,
    Suite,
    Threads,
    advise,
    duration,
    terminal,
)


def list_backends() -> None:
    """Show the backends: what each is, what it supports, and what is unavailable and why."""
    from rich.table import Table

    from benchmarks.suites import load_suite, suites
    from kernels import backends, choose, get_backend

    table = Table("backend", "what it is", "supports", "exactness", box=None, pad_edge=False)
    for name in backends():
        backend = get_backend(name)
        exactness = f"within {backend.tolerance:g}" if backend.tolerance else "exact on integers"
        support = f"unavailable: {backend.unavailable}" if backend.unavailable else _support(name)
        table.add_row(name, backend.summary, support, exactness)
    console = terminal()
    console.print(table)
    spec = load_suite("default")[0]
    console.print(f"\nbackend='auto' is {choose(spec, 'forward', 'float32')}.")
    console.print("Suites: " + ", ".join(f"{name} ({len(load_suite(name))} layers)" for name in suites()))


def _support(name: str) -> str:
    """In words, what a backend supports of a layer of each sort."""
    import numpy as np

    from kernels import ConvSpec, PoolSpec, get_backend
    from kernels.registry import ops_of
    from kernels.spec import Spec

    layers: dict[str, Spec] = {
        "convolution": ConvSpec(1, 2, 8, 8, 2, 3, 3),
        "1-D": ConvSpec(1, 2, 1, 8, 2, 1, 3),
        "strides": ConvSpec(1, 2, 8, 8, 2, 3, 3, stride=(2, 1)),
        "dilation": ConvSpec(1, 2, 8, 8, 2, 3, 3, dilation=(2, 2)),
        "groups": ConvSpec(1, 2, 8, 8, 2, 3, 3, groups=2),
        "one-sided padding": ConvSpec(1, 2, 8, 8, 2, 3, 3, padding=((0, 1), (0, 1))),
        "max pooling": PoolSpec("max", 1, 2, 8, 8, 2, 2),
        "average pooling": PoolSpec("avg", 1, 2, 8, 8, 2, 2),
    }
    missing: dict[str, list[str]] = defaultdict(list)
    for label, layer in layers.items():
        for op in ops_of(layer):
            for dtype in ("float32", "float64"):
                reason = get_backend(name).unsupported(layer, op, np.dtype(dtype))
                if reason:
                    missing[reason].append(f"{label} {op} in {dtype}")
    # Where a reason holds for much, it says so itself.
    words = [
        f"{reason} ({', '.join(where)})" if len(where) <= 2 else reason for reason, where in missing.items()
    ]
    return "not everything: " + "; ".join(words) if words else "everything"


def check(
    suite: Suite = None,
    backends: Backends = None,
    batch_sizes: BatchSizes = "2",
    ops: Ops = None,
    dtype: Dtype = None,
    threads: Threads = None,
    budget: Annotated[
        float, typer.Option(metavar="SECONDS", help="What a case may take; else a smaller layer is checked.")
    ] = 5.0,
) -> None:
    """Compare backends with the float64 reference on whole suites; exit 1 on a mismatch.

    The table holds each backend's largest error on random numbers, relative to the largest output. On
    integers, exact backends must make no error at all.
    """
    from rich.table import Table
    from tqdm import tqdm

    from benchmarks.check import Checked
    from benchmarks.check import check as run_check
    from benchmarks.options import Options
    from benchmarks.run import cases

    options = Options.read(suite or (), backends, batch_sizes, ops, dtype, threads, budget)
    total = sum(1 for _ in cases(options))
    rows: dict[tuple[str, str, int], dict[str, Checked]] = defaultdict(dict)
    for checked in tqdm(run_check(options), total=total, unit="case", leave=False, disable=None):
        case = checked.case
        rows[case.name, case.op, case.layer.N][case.backend] = checked
    table = Table("layer", "op", "batch", *options.backends, box=None, pad_edge=False)
    for (name, op, batch), by_backend in rows.items():
        table.add_row(name, op, str(batch), *(_cell(by_backend[backend]) for backend in options.backends))
    console = terminal()
    console.print(table)
    outcomes = [checked for by_backend in rows.values() for checked in by_backend.values()]
    wrong = [checked for checked in outcomes if checked.wrong]
    skipped = [checked for checked in outcomes if checked.skipped]
    smaller = [checked for checked in outcomes if checked.smaller]
    for checked in wrong:
        console.print(f"[red]wrong[/red] {checked.case.id}: {checked.wrong}")
    for checked in skipped:
        console.print(f"skipped {checked.case.id}: {checked.skipped}")
    console.print(f"\n{len(outcomes) - len(wrong) - len(skipped)} right, {len(wrong)} wrong.")
    if smaller:
        console.print(
            f"~ {len(smaller)} would take longer than the budget of {options.budget_s:g} s a case: checked "
            "on a layer of the same kind with a smaller batch, a smaller image or fewer channels."
        )
    if wrong:
        raise typer.Exit(1)


def _cell(checked: Any) -> str:
    if checked.wrong:
        return "[red]wrong[/red]"
    if checked.skipped:
        return "skipped"
    return f"{checked.error:.1e}{' ~' if checked.smaller else ''}"


def roofline(
    suite: Suite = None,
    backends: Backends = None,
    batch_sizes: BatchSizes = "32",
    ops: Ops = None,
    dtype: Dtype = None,
    threads: Threads = None,
) -> None:
    """Measure the machine's ceilings, and how near each backend comes to them; exit 1 on a wrong result.

    A layer's attainable time is that of its operations at the rate of a matrix product, or of its least bytes
    at that of a copy, whichever is longer. Percentages are shares of it; methods that save operations, and
    data that stay in the caches, may reach more than 100 %.
    """
    from rich.table import Table
    from tqdm import tqdm

    from benchmarks.ceiling import measure_ceiling
    from benchmarks.options import Options
    from benchmarks.roofline import CASE_S, LEAST_SHARE, Reached, reached
    from benchmarks.run import cases
    from kernels.threads import pinned_threads

    options = Options.read(suite or (), backends, batch_sizes, ops, dtype, threads, CASE_S)
    total = sum(1 for _ in cases(options))
    advise()
    with pinned_threads(options.threads):
        ceiling = measure_ceiling(options.dtype)
    typer.echo(
        f"Ceilings in {options.dtype} on {options.threads} thread{'s' if options.threads != 1 else ''}: "
        f"{ceiling.gemm_gflops:.3g} GFLOP/s (matrix product), {ceiling.copy_gbs:.3g} GB/s (copy); "
        f"they meet at {ceiling.balance:.3g} FLOP/byte.\n"
    )
    rows: dict[tuple[str, Any, str], dict[str, Reached]] = defaultdict(dict)
    outcomes = list(tqdm(reached(options, ceiling), total=total, unit="case", leave=False, disable=None))
    for each in outcomes:
        rows[each.case.name, each.case.layer, each.case.op][each.case.backend] = each
    figures = ("FLOP/byte", "bound by", "attainable")
    table = Table("layer", "op", "batch", *figures, *options.backends, box=None, pad_edge=False)
    for (name, layer, op), by_backend in rows.items():
        attainable_s = ceiling.attainable_s(layer)
        table.add_row(
            name,
            op,
            str(layer.N),
            f"{ceiling.intensity(layer):.3g}",
            ceiling.bound(layer),
            duration(attainable_s),
            *(_share(by_backend[backend], attainable_s) for backend in options.backends),
        )
    console = terminal()
    console.print(table)
    wrong = [each for each in outcomes if each.wrong]
    for each in wrong:
        console.print(f"[red]wrong[/red] {each.case.id}: {each.wrong}")
    skipped = sum(each.skipped is not None for each in outcomes)
    if skipped:
        console.print(
            f"\n{skipped} skipped: not supported, too large for memory, or over {CASE_S:g} s a case "
            f"at less than {LEAST_SHARE:.0%} of the attainable speed."
        )
    if wrong:
        raise typer.Exit(1)


def _share(each: Any, attainable_s: float) -> str:
    """A backend's time and its share of the ceiling."""
    if each.median_s is None:
        return "[red]wrong[/red]" if each.wrong else "skipped"
    share = attainable_s / each.median_s
    return f"{duration(each.median_s)} {share:.{0 if share >= 0.1 else 1}%}"
