"""Suites: text files with a layer a line.

A line is a convolution as a oneDNN benchdnn descriptor, or a kind ("conv2d", "conv1d", "max_pool2d",
"avg_pool2d") and a descriptor, or "model" and the name of a network of the trainer, for all its convolutions
and poolings. `#` starts a comment.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from kernels.spec import ConvSpec, PoolSpec, Spec
from trainer.models import build_model, models

KINDS = ("conv2d", "conv1d", "max_pool2d", "avg_pool2d")
_BUILT_IN = resources.files("benchmarks") / "suites"


def suites() -> tuple[str, ...]:
    """The names of the suites that come with convbench."""
    names = sorted(entry.name.removesuffix(".txt") for entry in _BUILT_IN.iterdir())
    return ("default", *(name for name in names if name != "default"))


def load_suite(name: str) -> tuple[Spec, ...]:
    """The layers of a suite that comes with convbench, a network, or a file of that path, each with its name.

    Raises ValueError: an unknown suite, or a line that is none, with its file and line number.
    """
    if name in models():
        return parse_model(name)
    if name in suites():
        return parse_suite((_BUILT_IN / f"{name}.txt").read_text(encoding="utf-8"), f"{name}.txt")
    path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"suite is {name!r}; expected one of {', '.join((*suites(), *models()))}, or the path of a file"
        )
    try:
        return parse_suite(path.read_text(encoding="utf-8"), name)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not a text file in UTF-8; expected a suite") from error


def parse_suite(text: str, source: str) -> tuple[Spec, ...]:
    """The layers in `text`; `source` names it in errors. Raises ValueError."""
    layers: dict[str, Spec] = {}
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        try:
            found = parse_line(content)
        except ValueError as error:
            raise ValueError(f"{source}:{number}: {error}") from error
        for layer in found:
            name = layer.name or layer.descriptor
            if name in layers:
                raise ValueError(
                    f"{source}:{number}: a second layer named {name!r}; expected names to differ"
                )
            layers[name] = layer
    if not layers:
        raise ValueError(f"{source} holds no layers; expected a descriptor a line")
    return tuple(layers.values())


def parse_line(text: str) -> tuple[Spec, ...]:
    """A layer or, for a network, several. Raises ValueError."""
    words = text.split()
    kind, content = (words[0], words[1]) if len(words) == 2 else ("conv2d", words[0])
    if len(words) > 2 or kind not in (*KINDS, "model"):
        raise ValueError(
            f"cannot read {text!r}; expected a descriptor, one of {', '.join(KINDS)} and a descriptor, or "
            "model and its name"
        )
    return parse_model(content) if kind == "model" else (_parse_layer(kind, content),)


def parse_model(name: str) -> tuple[Spec, ...]:
    """The convolutions and poolings of the trainer's network `name`. Raises ValueError."""
    return tuple(build_model(name).specs().values())


def _parse_layer(kind: str, descriptor: str) -> Spec:
    if kind == "max_pool2d":
        return PoolSpec.parse(descriptor, "max")
    if kind == "avg_pool2d":
        return PoolSpec.parse(descriptor, "avg")
    return ConvSpec.parse(descriptor)
