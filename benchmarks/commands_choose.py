"""The commands about what `auto` chooses: tune, choices, prove and regret."""

from __future__ import annotations

import statistics
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.command_line import (
    Backends,
    BatchSizes,
    DataDir,
    DataName,
    Dtype,
    Ops,
    SelectionFile,
    Suite,
    Threads,
    duration,
    progress_bar,
    terminal,
)


def tune(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Networks to tune the layers of.")
    ] = None,
    suite: Suite = None,
    batch_sizes: BatchSizes = "1,32,256",
    backends: Backends = None,
    ops: Ops = None,
    dtype: Dtype = None,
    threads: Threads = None,
    selection: SelectionFile = None,
    max_seconds: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Stop measuring after that; run again to go on.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure what is known already, too.")] = False,
    results: Annotated[
        Path | None, typer.Option("--from", metavar="RESULTS", help="Take these results; measure nothing.")
    ] = None,
) -> None:
    """Measure all backends on layers, for `auto` to choose from; kept for this machine."""
    from benchmarks.from_results import selection_from
    from benchmarks.options import Options
    from kernels.selection import default_path, keys_of, update

    path = selection or default_path()
    if results is not None:
        found = selection_from(results)
        update(path, found)
        typer.echo(f"{len(found.entries)} operations of {results} are in {path}")
        return
    wanted = (*(models or ()), *(suite or ()))
    if not wanted:
        raise ValueError("nothing to tune; expected networks, or --suite")
    options = Options.read(wanted, backends, batch_sizes, ops, dtype, threads, None)
    specs = [layer.with_batch(n) for _, layer in options.layers() for n in options.batch_sizes]
    known = _tune(
        specs,
        options.threads,
        path,
        ops=options.ops,
        dtype=options.dtype,
        backends=options.backends,
        max_seconds=max_seconds,
        again=again,
    )
    keys = keys_of(specs, options.ops, options.dtype, options.threads)
    left = sum(key not in known.entries for key in keys)
    rest = f"; {left} are left" if left else ""
    typer.echo(f"{len(keys) - left} operations are measured in {path}{rest}")
    typer.echo(f"`convbench choices {wanted[0]}` shows what is chosen")


def _tune(specs: Any, threads: Any, selection: Path | None, **options: Any) -> Any:
    """Tune with a progress bar; what is measured already is kept."""
    import kernels

    with progress_bar("operation", "tuning") as on_progress:
        return kernels.tune(specs, threads=threads, path=selection, progress=on_progress, **options)


def choices(
    model: Annotated[str, typer.Argument(help="A network, a suite, or a suite's file.")],
    batch_sizes: BatchSizes = "32",
    ops: Ops = None,
    dtype: Dtype = None,
    threads: Threads = None,
    selection: SelectionFile = None,
    memory: Annotated[
        float | None, typer.Option(metavar="MIB", help="The largest workspace that a choice may take.")
    ] = None,
    force: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER[.OP]=NAME", help="Fix a choice, as conv1=im2col or conv1.dx=numba."),
    ] = None,
    unforce: Annotated[bool, typer.Option("--unforce", help="Undo --force for these layers.")] = False,
    clear: Annotated[bool, typer.Option("--clear", help="Forget what was measured of these layers.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show every candidate, and why it was not chosen.")
    ] = False,
) -> None:
    """Show what `auto` chooses for each layer and operation, and how sure that is; or change it."""
    import kernels
    from benchmarks.options import Options
    from kernels.selection import Selection, default_path, keys_of, load, update
    from kernels.selection import clear as clear_selection
    from kernels.threads import pinned_threads

    options = Options.read((model,), None, batch_sizes, ops, dtype, threads, None)
    path = selection or default_path()
    specs = [layer.with_batch(n) for _, layer in options.layers() for n in options.batch_sizes]
    keys = keys_of(specs, options.ops, options.dtype, options.threads)
    if clear or unforce:
        known = clear_selection(path, keys, forced_only=unforce and not clear)
    elif force:
        known = update(path, Selection(load(path).machine, forced=_forced(force, keys)))
    else:
        known = load(path)
    if memory is not None:
        known.memory_limit = int(memory * 2**20)
    with pinned_threads(options.threads):
        kernels.use_selection(known)
        _show_choices(known, keys, explain)


def _show_choices(known: Any, keys: list[Any], explain: bool) -> None:
    from rich.table import Table

    import kernels
    from kernels.evidence import evidence

    measured_head = ("time", "runner-up", "margin", "P(best)", "memory", "error")
    table = Table("layer", "op", "batch", "choice", "why", *measured_head, box=None, pad_edge=False)
    for key in keys:
        found = evidence(known, key, kernels.explain(key.spec, key.op, key.dtype))
        chosen = found.chosen
        name = key.spec.name or key.spec.descriptor
        row = [name, key.op, str(key.spec.N), found.choice.backend, found.choice.why]
        if chosen:
            row += [
                duration(chosen.median_s),
                found.runner_up or "",
                f"{found.margin:.2f}x" if found.margin else "",
                f"{found.probability:.0%}" if found.probability is not None else "",
                "" if chosen.workspace_bytes is None else f"{chosen.workspace_bytes / 2**20:.2f} MiB",
                "" if chosen.error is None else f"{chosen.error:.0e}",
            ]
        table.add_row(*row)
        if explain and found.decision:
            for name in (*found.decision.ranked, *found.decision.dropped):
                measured = found.candidates[name]
                tied = name in found.decision.tied and name != found.choice.backend
                note = found.decision.dropped.get(name) or ("within the noise" if tied else "")
                when = duration(measured.median_s) + ("" if measured.samples_s else " (predicted)")
                table.add_row("", "", "", f"  {name}", note, when)
    terminal().print(table)


def _forced(words: list[str], keys: list[Any]) -> dict[Any, str]:
    """What --force asks for, by layer."""
    from kernels import get_backend

    found = {}
    for word in words:
        what, _, backend = word.partition("=")
        layer, _, op = what.partition(".")
        get_backend(backend)
        hits = {
            key.layer: backend
            for key in keys
            if layer in (key.spec.name, key.spec.name.rpartition(":")[2]) and op in ("", key.op)
        }
        if not hits:
            names = dict.fromkeys(key.spec.name.rpartition(":")[2] for key in keys)
            raise ValueError(f"--force is {word!r}; expected LAYER[.OP]=NAME of {', '.join(names)}")
        found.update(hits)
    return found


def prove(
    models: Annotated[list[str], typer.Argument(help="Networks.")],
    batch_sizes: BatchSizes = "1,32,256",
    threads: Threads = None,
    selection: SelectionFile = None,
    data: DataName = None,
    data_dir: DataDir = None,
) -> None:
    """Show that the choices were right: training steps with `auto`, and with each backend alone."""
    from benchmarks.options import Options
    from trainer import load_data

    options = Options.read(models, None, batch_sizes, None, None, threads, None)
    images = load_data(data or "digits", data_dir=data_dir)
    show_proofs(models, options.batch_sizes, options.threads, selection, images)


def show_proofs(models: Any, batch_sizes: Any, threads: Any, selection: Path | None, data: Any) -> None:
    """Tune what is not measured yet, time steps, and print both beside each other."""
    from rich.table import Table

    from benchmarks.proving import proven
    from kernels.selection import default_path
    from kernels.threads import pinned_threads, thread_count

    path = selection or default_path()
    tune = partial(_tune, threads=threads, selection=path)
    layers = Table("layer", "batch", "", "choice", "predicted", "realised", box=None, pad_edge=False)
    ratios = ("auto / best", "predicted / realised", "drift")
    steps = Table("network", "batch", "auto", "best alone", *ratios, "others", box=None, pad_edge=False)
    with pinned_threads(thread_count(threads)):
        for model in models:
            for batch_size in batch_sizes:
                images = min(batch_size, len(data.train_labels))
                proof = proven(model, data, images, path, tune)
                for each in proof.layers:
                    choice = ", ".join(dict.fromkeys(each.backends))
                    times = duration(each.predicted_s), duration(each.realised_s)
                    layers.add_row(f"{model}:{each.layer}", str(batch_size), each.direction, choice, *times)
                others = [
                    f"{name} {duration(times.median_s)}"
                    for name, times in sorted(proof.steps.items(), key=lambda item: item[1].median_s)
                    if name not in ("auto", proof.best_single)
                ] + [f"{name} over {duration(seconds)}" for name, seconds in proof.predicted_only.items()]
                steps.add_row(
                    model,
                    str(batch_size),
                    duration(proof.steps["auto"].median_s),
                    f"{proof.best_single} {duration(proof.steps[proof.best_single].median_s)}",
                    f"{proof.regret:.2f}",
                    f"{proof.predicted_s / proof.realised_s:.2f}",
                    f"{proof.drift:.2f}",
                    ", ".join(others),
                )
    console = terminal()
    console.print(layers)
    console.print()
    console.print(steps)
    console.print(
        "\nWhole training steps; predicted and realised are sums over convolutions and poolings. Drift says "
        "how many times as long the same calls take as when they were tuned; predictions allow for it."
    )


def regret(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Networks; all if not given.")
    ] = None,
    batch_sizes: BatchSizes = "1,32,256",
    threads: Threads = None,
    selection: SelectionFile = None,
) -> None:
    """Show how far `auto` can be trusted where nothing was tuned: at other batch sizes, in other networks.

    Networks are tuned, then choices are made as if one network, or one batch size, had not been. Regret is
    the time of that choice over that of the best backend.
    """
    from rich.table import Table

    from benchmarks.options import Options
    from benchmarks.regret import WAYS, regrets
    from kernels.selection import default_path, keys_of
    from kernels.threads import pinned_threads
    from trainer import models as all_models

    options = Options.read(models or all_models(), None, batch_sizes, None, None, threads, None)
    networks: dict[str, list[Any]] = defaultdict(list)
    for suite, layer in options.layers():
        networks[suite].extend(layer.with_batch(n) for n in options.batch_sizes)
    with pinned_threads(options.threads):
        known = _tune(
            [spec for specs in networks.values() for spec in specs], threads, selection or default_path()
        )
        keys = {name: keys_of(specs, None, "float32", options.threads) for name, specs in networks.items()}
        found = list(regrets(known, keys))
    worst = Table("choice", "operations", "geometric mean", "worst", "at", box=None, pad_edge=False)
    for way in WAYS:
        rows = [row for row in found if row.way == way]
        if rows:
            largest = max(rows, key=lambda row: row.regret)
            mean = statistics.geometric_mean(row.regret for row in rows)
            where = f"{largest.key.op} of {largest.key.spec.name}, batch {largest.key.spec.N}"
            took = f"{largest.chosen} for {largest.best}"
            worst.add_row(way, str(len(rows)), f"{mean:.3f}", f"{largest.regret:.2f}", f"{where}: {took}")
    terminal().print(worst)
