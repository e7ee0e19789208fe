"""The command line: what there is, whether it is right, how fast it is, the report, and the trainer."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.blas_family import choose_blas_family

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

Suite = Annotated[
    list[str] | None,
    typer.Option("--suite", metavar="NAME|FILE", help="Suite of layers; may be given several times."),
]
Backends = Annotated[str | None, typer.Option(metavar="A,B", help="Backends; all of convbench's own.")]
BatchSizes = Annotated[str | None, typer.Option(metavar="N,N", help="Images a call.")]
Ops = Annotated[str | None, typer.Option(metavar="OP,OP", help="forward, dx, dw; backward is dx and dw.")]
Dtype = Annotated[str | None, typer.Option(help="float32 or float64; float32 if not given.")]
Threads = Annotated[int | None, typer.Option(help="Threads, for BLAS and Numba alike; all cores.")]
Budget = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="What a case may take; longer ones are skipped.")
]
DataName = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME|PATH",
        help="digits (with scikit-learn), mnist, fashion-mnist, a folder of IDX or CSV files, or a CSV.",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where mnist and fashion-mnist are, else $CONVBENCH_DATA, else the cache (downloaded).",
    ),
]
BackendName = Annotated[
    str | None,
    typer.Option("--backend", metavar="NAME|LAYER=NAME,..", help="For all layers, or for each; auto."),
]
SelectionFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Where choices are kept; $CONVBENCH_SELECTION, or the user's cache."),
]
ModelName = Annotated[
    str | None, typer.Option("--model", help="The network of the weights; told by their shapes if not given.")
]
RESULTS = Path("results")
RUNS = RESULTS / "train"
SETTLED_S, PROVED_S = 0.7, 1.5
"""Seconds of steps that each way of training gets where steps settle choices, and in a proof."""
PROOFS = 3
"""Proofs at most, where each finds that the choice has lost."""
WEIGHTS_HELP = ".npz, .safetensors or .pth, or the folder of a run; the newest run if not given."
BASELINE = "loops"


@app.command("list")
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
    console = _console()
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


@app.command()
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
    console = _console()
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


@app.command()
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
) -> None:
    """Time backends on suites with pytest-benchmark, then write the report.

    The same as `pytest --benchmark-only` from the project's root, followed by `convbench report`.
    """
    from benchmarks.options import Options

    options = Options.read(suite or (), backends, batch_sizes, ops, dtype, threads, budget)
    options.layers()
    if baseline not in (*options.backends, BASELINE):
        raise ValueError(f"--baseline is {baseline!r}; expected one of {', '.join(options.backends)}")
    _advise()
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


@app.command()
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
    _advise()
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
            _seconds(attainable_s),
            *(_share(by_backend[backend], attainable_s) for backend in options.backends),
        )
    console = _console()
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
    return f"{_seconds(each.median_s)} {share:.{0 if share >= 0.1 else 1}%}"


def _advise() -> None:
    """Say so where BLAS runs lesser kernels than it could."""
    from kernels.machine import lesser_blas

    advice = lesser_blas()
    if advice:
        typer.echo(advice)


@app.command()
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
    typer.echo(reports.summary(reports.load(files), baseline))
    typer.echo(f"report: {page}")


@app.command()
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
    convbench. dw is timed with db. Takes part who has the operation, in new outputs and written into `out`.
    """
    from datetime import UTC, datetime

    from tqdm import tqdm

    from benchmarks.peers import Plan, compare
    from reports import peers as report

    plan = Plan.read(suite or (), ops, backends, libraries, threads, seconds)
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    path = out or RESULTS / "peers" / f"{stamp}.json"
    if path.suffix != ".json":
        raise ValueError(f"--out is {str(path)!r}; expected a file whose name ends with .json")
    with tqdm(unit="case", leave=False, disable=None) as bar:

        def on_progress(done: int, total: int, what: str) -> None:
            bar.total = total
            bar.set_postfix_str(what, refresh=False)
            bar.update(done - bar.n)

        comparison = compare(plan, on_progress)
    comparison.save(path)
    frame = report.load(path)
    for op in plan.ops:
        for mode in report.MODES:
            _show_peers(frame, op, mode)
    for what, entries in (("wrong", comparison.wrong), ("skipped", comparison.skipped)):
        for reason, where in _by_reason(entries).items():
            more = f" and {len(where) - 3} more" if len(where) > 4 else ""
            typer.echo(f"{what} {reason}: {', '.join(where[:3] if more else where)}{more}")
    figure = path.with_suffix(".png")
    drawn = report.write(frame, figure)
    typer.echo(f"results: {path}{f', {figure}' if drawn else ''}")
    if comparison.wrong:
        raise typer.Exit(1)


def _show_peers(frame: Any, op: str, mode: str) -> None:
    """Medians in microseconds with their spread, and the ratios, for one op and mode."""
    from rich.table import Table

    from reports import peers as report

    rows = report.compared(frame, op, mode)
    if rows.empty:
        return
    ratios = report.ratios(rows)
    times = {(row["layer"], row["library"]): row for row in report.best(frame, op, mode).to_dict("records")}
    names = list(ratios.columns[:-1])
    table = Table("layer", "backend", box=None, pad_edge=False)
    for column in (report.OURS, *(part for name in names for part in (name, "ratio")), "best"):
        table.add_column(column, justify="right")
    for layer, ratio in ratios.iterrows():
        ours = times[layer, report.OURS]
        cells = [str(layer), ours["backend"], _microseconds(ours)]
        for name in names:
            row = times.get((layer, name))
            star = "*" if row and row["mode"] != mode else ""
            cells += [_microseconds(row), f"{ratio[name]:.2f}{star}"] if row else ["", ""]
        table.add_row(*cells, f"{ratio[report.BEST]:.2f}")
    for family, mean in report.means(rows).iterrows():
        cells = [part for name in names for part in ("", "" if mean.isna()[name] else f"{mean[name]:.2f}")]
        table.add_row(f"geometric mean, {family}", "", "", *cells, f"{mean[report.BEST]:.2f}", style="bold")
    console = _console()
    console.print(
        f"{op}, {report.MODES[mode]}: microseconds, median \N{PLUS-MINUS SIGN} half the interquartile range; "
        "a ratio above 1 says that convbench is faster, best is against the fastest of the others"
    )
    console.print(table)
    if rows["instead"].any():
        console.print("* With fresh outputs: the library cannot write this into given memory.")
    console.print()


def _microseconds(row: Any) -> str:
    from reports.wording import significant

    spread = (row["q3_s"] - row["q1_s"]) / 2 / row["median_s"]
    return f"{significant(row['median_s'] * 1e6)} \N{PLUS-MINUS SIGN}{spread:.0%}"


def _by_reason(entries: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The layers of each backend and reason."""
    found: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        found[f"{entry['backend']}, {entry['reason']}"].append(f"{entry['op']} {entry['layer']}")
    return found


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="mnist3, mnist2, scratch, lenet, simple or tanhavg.")],
    data: DataName = None,
    data_dir: DataDir = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Only the first N training images.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Times to go through the images; 20.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step; 64.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate; 0.05 for sgd, 0.001 for adam.")] = None,
    optimizer: Annotated[str | None, typer.Option(metavar="sgd|adam", help="How to step; sgd.")] = None,
    momentum: Annotated[float | None, typer.Option(help="Of sgd; 0.9.")] = None,
    schedule: Annotated[
        str | None,
        typer.Option(metavar="constant|linear", help="Whether lr stays, or falls to zero; linear."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Decides first weights and the order of images; 0.")
    ] = None,
    backend: BackendName = None,
    threads: Threads = None,
    tune_first: Annotated[
        bool,
        typer.Option(
            "--tune", help="First measure all backends on the network's layers, and show what auto gains."
        ),
    ] = False,
    selection: SelectionFile = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; a new one in `results/train/` if not given.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, or the model's newest.")
    ] = False,
) -> None:
    """Train a network on digits; its folder gets checkpoint, weights, history and curves.

    Ctrl-C stops after the step under way; `--resume` goes on, to the same numbers as without a break.
    """
    from tqdm import tqdm

    import kernels
    from trainer.run import CURVES, HISTORY, WEIGHTS, Plan, Run, new_folder, newest_folder

    given = {
        "model": model,
        "data": data,
        "data_dir": None if data_dir is None else str(data_dir),
        "limit": limit,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "optimizer": optimizer,
        "momentum": momentum,
        "schedule": schedule,
        "seed": seed,
        "backend": backend,
        "selection": None if selection is None else str(selection),
        "threads": threads,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if resume:
        run = Run.resume(out or newest_folder(RUNS, model), given)
    else:
        plan = Plan(**given)  # type: ignore[arg-type]
        run = Run.begin(out or new_folder(RUNS, plan), plan)
    training, plan = run.training, run.plan
    selection = Path(plan.selection) if plan.selection else None
    kernels.use_selection(selection)
    if tune_first:
        _prove((plan.model,), (plan.batch_size,), plan.threads, selection, training.data)
    typer.echo(
        f"{training.model}\n\n{plan.data}: {len(training.data.train_labels):,} images to train on, "
        f"{len(training.data.test_labels):,} to test on; {plan.optimizer}, lr {training.settings.lr:g}, "
        f"batch {plan.batch_size}, seed {plan.seed}, {plan.threads} thread{'s' if plan.threads != 1 else ''}"
    )
    with tqdm(total=len(training.data.train_labels), unit=" images", leave=False, disable=None) as bar:

        def on_step(progress: Any) -> None:
            if progress.step == 1:
                bar.reset()
            bar.set_description(f"epoch {progress.epoch + 1}/{plan.epochs}", refresh=False)
            bar.set_postfix_str(f"loss {progress.loss / progress.images:.4f}", refresh=False)
            bar.update(progress.images - bar.n)

        def on_epoch(row: dict[str, Any]) -> None:
            bar.write(
                f"epoch {row['epoch']:>{len(str(plan.epochs))}}/{plan.epochs}  loss {row['train_loss']:.4f}  "
                f"train {row['train_accuracy']:6.2%}  test {row['test_accuracy']:6.2%}  "
                f"{row['images_per_s']:,.0f} images/s"
            )

        bar.set_description("compiling, at first use" if not training.losses else "going on")
        finished = run.go(on_step, on_epoch)
    files = ", ".join((WEIGHTS, HISTORY, CURVES))
    if finished:
        last = training.rows[-1]
        typer.echo(f"test accuracy {last['test_accuracy']:.2%}; {run.folder}/ holds {files}")
        return
    progress = training.progress
    typer.echo(
        f"stopped in epoch {progress.epoch + 1} after {progress.step} of {training.steps_per_epoch} steps; "
        f"`convbench train {plan.model} --resume --out {run.folder}` goes on"
    )
    raise typer.Exit(130)


@app.command()
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


@app.command()
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
                _seconds(chosen.median_s),
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
                when = _seconds(measured.median_s) + ("" if measured.samples_s else " (predicted)")
                table.add_row("", "", "", f"  {name}", note, when)
    _console().print(table)


def _seconds(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


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


@app.command()
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
    _prove(models, options.batch_sizes, options.threads, selection, images)


def _prove(models: Any, batch_sizes: Any, threads: Any, selection: Path | None, data: Any) -> None:
    """Tune what is not measured yet, time steps, and print both beside each other."""
    from rich.table import Table

    from kernels.threads import pinned_threads, thread_count

    layers = Table("layer", "batch", "", "choice", "predicted", "realised", box=None, pad_edge=False)
    ratios = ("auto / best", "predicted / realised", "drift")
    steps = Table("network", "batch", "auto", "best alone", *ratios, "others", box=None, pad_edge=False)
    with pinned_threads(thread_count(threads)):
        for model in models:
            for batch_size in batch_sizes:
                images = min(batch_size, len(data.train_labels))
                known = _tuned_and_settled(model, images, threads, selection)
                proof = _proof(model, known, data, images, selection)
                for each in proof.layers:
                    choice = ", ".join(dict.fromkeys(each.backends))
                    times = _seconds(each.predicted_s), _seconds(each.realised_s)
                    layers.add_row(f"{model}:{each.layer}", str(batch_size), each.direction, choice, *times)
                others = [
                    f"{name} {_seconds(times.median_s)}"
                    for name, times in sorted(proof.steps.items(), key=lambda item: item[1].median_s)
                    if name not in ("auto", proof.best_single)
                ] + [f"{name} over {_seconds(seconds)}" for name, seconds in proof.predicted_only.items()]
                steps.add_row(
                    model,
                    str(batch_size),
                    _seconds(proof.steps["auto"].median_s),
                    f"{proof.best_single} {_seconds(proof.steps[proof.best_single].median_s)}",
                    f"{proof.regret:.2f}",
                    f"{proof.predicted_s / proof.realised_s:.2f}",
                    f"{proof.drift:.2f}",
                    ", ".join(others),
                )
    console = _console()
    console.print(layers)
    console.print()
    console.print(steps)
    console.print(
        "\nWhole training steps; predicted and realised are sums over convolutions and poolings. Drift says "
        "how many times as long the same calls take as when they were tuned; predictions allow for it."
    )


def _proof(model: str, known: Any, data: Any, batch_size: int, selection: Path | None) -> Any:
    """A proof of the choices; one that loses settles them anew, where that changes any, and is repeated."""
    from kernels.policy import NOISE
    from trainer.stepping import prove

    proof = prove(model, known, data, batch_size, PROVED_S)
    for _ in range(PROOFS - 1):
        if proof.regret <= 1 + NOISE or proof.alone == proof.chosen:
            break
        # Its steps are evidence, too: let them settle the choice, and look again.
        known = _settled_as(known, proof.alone, selection)
        proof = prove(model, known, data, batch_size, PROVED_S)
    return proof


def _tuned_and_settled(model: str, batch_size: int, threads: Any, selection: Path | None) -> Any:
    """Measure the network's layers, then let its whole steps settle the choices; what is known is kept."""
    from kernels.selection import default_path
    from trainer import build_model
    from trainer.stepping import settle, settled

    path = selection or default_path()
    known = _tune(build_model(model).specs(batch_size).values(), threads, path)
    if not settled(model, known, batch_size):
        known = _settled_as(known, settle(model, known, batch_size, SETTLED_S), path)
    return known


def _settled_as(known: Any, choices: Any, selection: Path | None) -> Any:
    """The selection with these choices settled, in its file and in use."""
    import kernels
    from kernels.selection import Selection, default_path, update

    changed = update(selection or default_path(), Selection(known.machine, settled=choices))
    kernels.use_selection(changed)
    return changed


def _tune(specs: Any, threads: Any, selection: Path | None, **options: Any) -> Any:
    """Tune with a progress bar; what is measured already is kept."""
    from tqdm import tqdm

    import kernels

    with tqdm(unit="operation", desc="tuning", leave=False, disable=None) as bar:

        def on_progress(done: int, total: int, what: str) -> None:
            bar.total = total
            bar.set_postfix_str(what, refresh=False)
            bar.update(done - bar.n)

        return kernels.tune(specs, threads=threads, path=selection, progress=on_progress, **options)


@app.command()
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
    _console().print(worst)


@app.command()
def evaluate(
    weights: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE|RUN]", help=WEIGHTS_HELP),
    ] = None,
    model: ModelName = None,
    data: DataName = None,
    data_dir: DataDir = None,
    backend: BackendName = None,
    threads: Threads = None,
) -> None:
    """Test a trained network: its accuracy on the test images, and what it takes for what."""
    from rich.table import Table

    from kernels.threads import pinned_threads, thread_count
    from trainer import load_data
    from trainer.trained import confusion, load_trained

    trained = load_trained(weights, RUNS, model, backend)
    images = load_data(data or trained.data, data_dir=data_dir or trained.data_dir)
    with pinned_threads(thread_count(threads)):
        counts = confusion(trained.model, images.test_images, images.test_labels)
    table = Table("class", "images", "right", "mostly taken for", box=None, pad_edge=False)
    for label, row in enumerate(counts):
        wrong = row.copy()
        wrong[label] = 0
        worst = f"{wrong.argmax()} ({wrong.max()} times)" if wrong.any() else ""
        table.add_row(str(label), str(row.sum()), f"{row[label] / max(1, row.sum()):.1%}", worst)
    _console().print(table)
    right = int(counts.trace())
    typer.echo(
        f"\n{trained.model.name} of {trained.path}: {right / counts.sum():.2%} of the {counts.sum():,} test "
        f"images of {data or trained.data} right, {counts.sum() - right} wrong"
    )


@app.command()
def predict(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE|INDEX", help="An image file, or a test image's number, from 0.")
    ],
    weights: Annotated[Path | None, typer.Option(metavar="FILE|RUN", help=WEIGHTS_HELP)] = None,
    model: ModelName = None,
    data: DataName = None,
    data_dir: DataDir = None,
    backend: BackendName = None,
) -> None:
    """Name the digit in an image file, or in a test image, with the probability of each."""
    from trainer import load_data, softmax
    from trainer.image import as_text, read_digit
    from trainer.trained import load_trained

    trained = load_trained(weights, RUNS, model, backend)
    said = ""
    if image.isdecimal():
        digits = load_data(data or trained.data, data_dir=data_dir or trained.data_dir)
        index, count = int(image), len(digits.test_labels)
        if index >= count:
            raise ValueError(f"index is {index}; expected 0 to {count - 1}, or the path of an image")
        x, said = digits.test_images[index : index + 1], f", labelled {digits.test_labels[index]}"
    else:
        x = read_digit(image)
    (probabilities,) = softmax(trained.model(x))
    typer.echo(as_text(x[0, 0]))
    for label, probability in enumerate(probabilities):
        bar = "#" * round(40 * float(probability))
        typer.echo(f"{label}  {probability:6.1%}  {bar}".rstrip())
    digit = f"{probabilities.argmax()} ({probabilities.max():.1%})"
    typer.echo(f"\n{digit}{said}: {trained.model.name} of {trained.path}")


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False)
    # Piped into a file, a table keeps its columns rather than the width of a terminal that is not there.
    return console if console.is_terminal else Console(highlight=False, width=200)


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
