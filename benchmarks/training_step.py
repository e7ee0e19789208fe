"""A training step beside PyTorch's: `python -m benchmarks.training_step`.

Each side runs in a process of its own, on the same threads, the same weights and the same digits; their
losses are compared before they get a time. Rounds alternate between them. A step is forward, loss, backward
and SGD with momentum. A ratio above 1 says that convbench is faster.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.workers import Ask, worker
from kernels.threads import pinned_threads, sharing_cores, thread_count

MODELS = ("mnist3", "scratch", "lenet")
BATCH_SIZES = (1, 32, 256)
ROUNDS = 7
ROUND_S = 0.2
"""Seconds of steps that a round aims at."""
CHECKED_STEPS = 5
TOLERANCE = 1e-4
"""How far the two losses may be apart in the steps that are checked."""
LR, MOMENTUM = 0.01, 0.9

Step = Callable[[], float]


def our_step(model_name: str, batch_size: int, backend: str) -> Step:
    """A step of ours; it returns the loss."""
    from trainer import SGD, build_model, softmax_cross_entropy
    from trainer.run import parse_backend

    x, labels = _digits(batch_size)
    model = build_model(model_name, backend=parse_backend(backend), seed=0)
    optimizer = SGD(model.values, model.slopes, LR, MOMENTUM)

    def step() -> float:
        loss, dlogits = softmax_cross_entropy(model.forward(x), labels)
        model.backward(dlogits)
        optimizer.step()
        return loss

    return step


def torch_step(model_name: str, batch_size: int, backend: str) -> Step:
    """A step of the same network in PyTorch, from the same weights."""
    torch: Any = importlib.import_module("torch")
    x, labels = map(torch.from_numpy, _digits(batch_size))
    torch.manual_seed(0)
    model = _torch_network(torch.nn, model_name)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def _torch_network(nn: Any, model_name: str) -> Any:
    """The trainer's network, layer by layer, in `torch.nn`."""
    from trainer import AvgPool2d, Conv2d, Flatten, Linear, MaxPool2d, ReLU, Tanh, build_model

    modules = []
    for layer in build_model(model_name).layers.values():
        if isinstance(layer, Conv2d):
            K, per_group, R, S = layer.parameters["weight"].shape
            groups = layer.geometry["groups"]
            modules.append(nn.Conv2d(per_group * groups, K, (R, S), **layer.geometry))
        elif isinstance(layer, Linear):
            out_features, in_features = layer.parameters["weight"].shape
            modules.append(nn.Linear(in_features, out_features))
        elif isinstance(layer, MaxPool2d):
            modules.append(nn.MaxPool2d(layer.kernel_size, **layer.geometry))
        elif isinstance(layer, AvgPool2d):
            modules.append(nn.AvgPool2d(layer.kernel_size, **layer.geometry))
        else:
            modules.append({Flatten: nn.Flatten, ReLU: nn.ReLU, Tanh: nn.Tanh}[type(layer)]())
    return nn.Sequential(*modules)


def _digits(batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    from trainer import load_data

    data = load_data("digits")
    picked = np.random.default_rng(0).permutation(len(data.train_labels))[:batch_size]
    return data.train_images[picked], data.train_labels[picked]


_SIDES = {"convbench": our_step, "torch": torch_step}


def work(side: str, threads: int) -> None:
    """Answer requests, a line of JSON each, on standard input: make a step, or time some of it."""
    if side == "torch":
        importlib.import_module("torch").set_num_threads(threads)
    step: Step | None = None
    with pinned_threads(threads), sharing_cores():
        for line in sys.stdin:
            request = json.loads(line)
            if "model" in request:
                step = _SIDES[side](request["model"], request["batch_size"], request["backend"])
                answer: Any = [step() for _ in range(CHECKED_STEPS)]
            else:
                assert step is not None
                answer = _times(step, request["seconds"])
            print(json.dumps(answer), flush=True)


def _times(step: Step, seconds: float) -> list[float]:
    """The seconds of each of as many steps as fit, three at least."""
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def _worker(side: str, threads: int) -> AbstractContextManager[Ask]:
    """A process that runs `work`."""
    arguments = ["-m", "benchmarks.training_step", "--worker", side, "--threads", str(threads)]
    return worker(side, arguments, threads)


def main(
    models: Annotated[str, typer.Option(help="Networks, separated by commas.")] = ",".join(MODELS),
    batch_sizes: Annotated[str, typer.Option(help="Images a step, separated by commas.")] = ",".join(
        map(str, BATCH_SIZES)
    ),
    backend: Annotated[
        str, typer.Option(help="That of convbench: a name, or LAYER=NAME,LAYER=NAME.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of both sides; all cores.")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of each side, alternating.")] = ROUNDS,
    side: Annotated[str, typer.Option("--worker", hidden=True)] = "",
) -> None:
    """Time training steps of convbench and PyTorch side by side, and print the ratios."""
    count = thread_count(threads)
    if side:
        work(side, count)
        return
    if importlib.util.find_spec("torch") is None:
        raise typer.BadParameter("PyTorch is not installed: pip install 'convbench[torch]'")
    ratios = []
    print(f"training step, {count} threads, backend {backend}, medians with quartiles, in ms")
    print(f"{'model':<8} {'batch':>5}  {'convbench':>22}  {'PyTorch':>22}  ratio")
    with _worker("convbench", count) as ours, _worker("torch", count) as theirs:
        for model in models.split(","):
            for batch_size in map(int, batch_sizes.split(",")):
                request = {"model": model, "batch_size": batch_size, "backend": backend}
                losses = [np.array(ask(**request)) for ask in (ours, theirs)]
                difference = float(np.abs(losses[0] - losses[1]).max())
                if not difference < TOLERANCE:
                    raise ValueError(f"{model}, batch {batch_size}: the losses differ by {difference:g}")
                times: tuple[list[float], list[float]] = ([], [])
                for _ in range(rounds):
                    for side_times, ask in zip(times, (ours, theirs), strict=True):
                        side_times.extend(ask(seconds=ROUND_S))
                medians = [float(np.median(side_times)) for side_times in times]
                ratios.append(medians[1] / medians[0])
                print(
                    f"{model:<8} {batch_size:>5}  {_spread(times[0])}  {_spread(times[1])}  {ratios[-1]:5.2f}"
                )
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    print(f"geometric mean of the ratios {mean:.2f}, least {min(ratios):.2f}")


def _spread(times: list[float]) -> str:
    lower, median, upper = np.quantile(times, [0.25, 0.5, 0.75]) * 1e3
    return f"{median:7.3f} ({lower:.3f} .. {upper:.3f})".rjust(22)


if __name__ == "__main__":
    typer.run(main)
