"""The commands for the networks: train, evaluate and predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.command_line import (
    INTERRUPTED,
    RUNS,
    WEIGHTS_HELP,
    BackendName,
    DataDir,
    DataName,
    ModelName,
    SelectionFile,
    Threads,
    terminal,
)
from benchmarks.commands_choose import show_proofs


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
        show_proofs((plan.model,), (plan.batch_size,), plan.threads, selection, training.data)
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
    raise typer.Exit(INTERRUPTED)


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
    terminal().print(table)
    right = int(counts.trace())
    typer.echo(
        f"\n{trained.model.name} of {trained.path}: {right / counts.sum():.2%} of the {counts.sum():,} test "
        f"images of {data or trained.data} right, {counts.sum() - right} wrong"
    )


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
