"""What the commands share: options, folders, and how they print.

Commands import what computes as they run: NumPy must not be there before `convbench.main` has chosen BLAS's
kernels, and `convbench --help` should not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

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
WEIGHTS_HELP = ".npz, .safetensors or .pth, or the folder of a run; the newest run if not given."
RESULTS = Path("results")
RUNS = RESULTS / "train"
INTERRUPTED = 130
"""The exit code of what Ctrl-C ended, as shells have it."""


def terminal() -> Any:
    """A console for tables."""
    from rich.console import Console

    found = Console(highlight=False)
    # Piped into a file, a table keeps its columns rather than the width of a terminal that is not there.
    return found if found.is_terminal else Console(highlight=False, width=200)


def duration(value: float) -> str:
    """A duration in the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} us"


@contextmanager
def progress_bar(unit: str, title: str | None = None) -> Iterator[Callable[[int, int, str], None]]:
    """A bar that is told what is done, of how much, and what begins; none where nobody watches."""
    from tqdm import tqdm

    with tqdm(unit=unit, desc=title, leave=False, disable=None) as bar:

        def on_progress(done: int, total: int, what: str) -> None:
            bar.total = total
            bar.set_postfix_str(what, refresh=False)
            bar.update(done - bar.n)

        yield on_progress


def saved_runs() -> list[Path]:
    """The runs saved in `RESULTS`, the newest last; ValueError without any."""
    found = sorted(RESULTS.glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ValueError(f"no results in {RESULTS}/; expected files, or a run of `convbench bench` before")
    return found


def advise() -> None:
    """Say so where BLAS runs lesser kernels than it could."""
    from kernels.machine import lesser_blas

    advice = lesser_blas()
    if advice:
        typer.echo(advice)
