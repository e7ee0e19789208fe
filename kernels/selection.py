"""What was measured on this machine, and what follows from it: the file behind `backend="auto"`.

Every candidate's samples are kept, so that another policy needs no new measurement. The file is JSON; writers
take turns by a lock beside it, read it again, add what is theirs and replace it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kernels.cost import CostModel
from kernels.files import replacing
from kernels.policy import Decision, Measured, decide
from kernels.registry import Op, available_backends, get_backend, ops_of, own_backends
from kernels.spec import ConvSpec, PoolSpec, Spec

VERSION = 2
PREFERENCE = ("tiled", "winograd", "numba", "im2col", "einsum", "window", "loops")
"""The order in which backends are tried where nothing was measured, and that settles ties."""
ENVIRONMENT = "CONVBENCH_SELECTION"
_logger = logging.getLogger("kernels")


class Key(NamedTuple):
    """One operation on one layer, at one batch size, as the file names it."""

    spec: Spec
    op: Op
    dtype: str
    threads: int

    def __str__(self) -> str:
        bare = replace(self.spec, name="", repeat=1)
        return f"{self.op} {bare.kind} {bare.descriptor} {self.dtype} {self.threads}"

    @classmethod
    def parse(cls, text: str) -> Key:
        """The key that was written as `text`. Raises ValueError."""
        op, kind, descriptor, dtype, threads = text.split()
        mode = {"max_pool2d": "max", "avg_pool2d": "avg"}.get(kind)
        spec: Spec = PoolSpec.parse(descriptor, mode) if mode else ConvSpec.parse(descriptor)  # type: ignore[arg-type]
        return cls(spec, op, dtype, int(threads))  # type: ignore[arg-type]

    @property
    def layer(self) -> Key:
        """The same for any batch size."""
        return self._replace(spec=self.spec.with_batch(1))


def keys_of(specs: Iterable[Spec], ops: Sequence[Op] | None, dtype: str, threads: int) -> list[Key]:
    """The keys of all operations, or of `ops`, on `specs`."""
    return list(
        dict.fromkeys(
            Key(spec, op, np.dtype(dtype).name, threads)
            for spec in specs
            for op in ops_of(spec)
            if ops is None or op in ops
        )
    )


@dataclass(frozen=True)
class Choice:
    """A backend's name, and in words why it is that one."""

    backend: str
    why: str


@dataclass
class Selection:
    """All candidates by key, and what overrules them; `machine` is where they hold.

    `settled` holds, by key, the backends with which whole steps of a network were the fastest: layers that
    were measured one by one do not show what they do to each other. `forced` holds, by layer, what the user
    wants. `memory_limit` bounds the workspaces of choices, in bytes; it is not kept in the file.
    """

    machine: dict[str, str]
    entries: dict[Key, dict[str, Measured]] = field(default_factory=dict)
    settled: dict[Key, str] = field(default_factory=dict)
    forced: dict[Key, str] = field(default_factory=dict)
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        self._batches: dict[Key, list[Key]] = {}
        for key in self.entries:
            self._batches.setdefault(key.layer, []).append(key)
        self._models: dict[tuple[str, str, Op, str, int], CostModel] = {}

    def decision(self, key: Key) -> Decision:
        """What the candidates of an entry come to, those that can be used here; peers are none."""
        own = own_backends()
        usable = {name: each for name, each in self.entries[key].items() if name in own}
        return decide(usable, PREFERENCE, self.memory_limit)

    def choose(self, key: Key) -> Choice | None:
        """What is forced, settled or measured, here or at the nearest batch; else predicted; else None."""
        forced = self.forced.get(key.layer)
        if forced and forced in available_backends():
            return Choice(forced, "forced")
        decisions = {near: self.decision(near) for near in self._batches.get(key.layer, ())}
        measured = [near for near, decision in decisions.items() if decision.choice]
        if measured:
            nearest = min(measured, key=lambda near: abs(math.log(near.spec.N / max(1, key.spec.N))))
            where = "" if nearest.spec == key.spec else f" at batch {nearest.spec.N}"
            ranked = decisions[nearest].ranked
            if (settled := self.settled.get(nearest)) in ranked:
                return Choice(settled, f"settled by whole steps{where}")
            return Choice(ranked[0], f"measured{where}")
        return self._predicted(key)

    def _predicted(self, key: Key) -> Choice | None:
        asked = key.spec, key.op, np.dtype(key.dtype)
        usable = [name for name in PREFERENCE if get_backend(name).does(*asked)]
        predictions = {name: seconds for name in usable if (seconds := self.predict(key, name)) is not None}
        if len(predictions) < 2:
            return None
        return Choice(min(predictions, key=predictions.__getitem__), "predicted from other layers")

    def predict(self, key: Key, backend: str) -> float | None:
        """Seconds of a call by the cost model of `backend`, fitted to the other layers; None without one."""
        return self._model(key, backend).predict(key.spec)

    def _model(self, key: Key, backend: str) -> CostModel:
        which = (backend, key.spec.kind, key.op, key.dtype, key.threads)
        if which not in self._models:
            points = [
                (other.spec, candidates[backend].median_s)
                for other, candidates in self.entries.items()
                if (backend, other.spec.kind, other.op, other.dtype, other.threads) == which
                and backend in candidates
                and candidates[backend].samples_s
                and not candidates[backend].wrong
            ]
            self._models[which] = CostModel(points, key.dtype)
        return self._models[which]

    def merged(self, newer: Selection) -> Selection:
        """This selection with what is in `newer`, which counts where both have something.

        A key that was measured again is no longer settled.
        """
        entries = {key: dict(candidates) for key, candidates in self.entries.items()}
        for key, candidates in newer.entries.items():
            entries.setdefault(key, {}).update(candidates)
        settled = {key: backend for key, backend in self.settled.items() if key not in newer.entries}
        return Selection(self.machine, entries, {**settled, **newer.settled}, {**self.forced, **newer.forced})

    def as_json(self) -> str:
        """The content of a file."""
        return json.dumps(
            {
                "convbench_selection": VERSION,
                "machine": self.machine,
                "entries": {
                    str(key): {name: asdict(measured) for name, measured in candidates.items()}
                    for key, candidates in self.entries.items()
                },
                "settled": {str(key): backend for key, backend in self.settled.items()},
                "forced": {str(key): backend for key, backend in self.forced.items()},
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> Selection:
        """What `as_json` wrote. Raises ValueError for anything else."""
        try:
            content = json.loads(text)
            if content["convbench_selection"] != VERSION:
                raise ValueError(f"version {content['convbench_selection']}")
            entries = {
                Key.parse(key): {name: _measured(fields) for name, fields in candidates.items()}
                for key, candidates in content["entries"].items()
            }
            settled, forced = (
                {Key.parse(key): str(backend) for key, backend in content[part].items()}
                for part in ("settled", "forced")
            )
            machine = {str(name): str(value) for name, value in content["machine"].items()}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"no selection of convbench: {error}") from error
        return cls(machine, entries, settled, forced)


def _measured(fields: Mapping[str, Any]) -> Measured:
    return Measured(**{**fields, "samples_s": tuple(map(float, fields["samples_s"]))})


def default_path() -> Path:
    """$CONVBENCH_SELECTION, or the file of this machine in the user's cache."""
    given = os.environ.get(ENVIRONMENT)
    if given:
        return Path(given)
    import platformdirs

    from kernels.machine import identity

    name = f"selection-{zlib.crc32(repr(sorted(identity().items())).encode()):08x}.json"
    return Path(platformdirs.user_cache_dir("convbench")) / name


def load(path: Path) -> Selection:
    """The selection in a file; an empty one where there is none, or none that holds on this machine.

    A file that cannot be read as a selection is set aside under another name; one of another machine is left
    alone. Both are said in a warning.
    """
    from kernels.machine import identity

    here = identity()
    try:
        found = Selection.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Selection(here)
    except (ValueError, UnicodeDecodeError) as error:
        aside = _set_aside(path)
        _logger.warning(
            "%s is %s; it is now %s, and a new one begins", path, str(error).splitlines()[0], aside
        )
        return Selection(here)
    differences = foreign(found.machine, here)
    if differences:
        _logger.warning("%s is not used: it was measured with %s", path, differences)
        return Selection(here)
    return found


def foreign(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """In words, how the machine of a selection differs from this one; empty where it does not."""
    return "; ".join(
        f"{name} {there.get(name)!r} (here: {here[name]!r})" for name in here if there.get(name) != here[name]
    )


def _set_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.broken-{number}")).exists():
        number += 1
    path.rename(aside)
    return aside


def update(path: Path, newer: Selection) -> Selection:
    """Add `newer` to the file and return the whole; safe with several processes at once.

    Raises ValueError where the file is of another machine.
    """
    return _rewrite(path, lambda current: current.merged(newer))


def clear(path: Path, keys: Iterable[Key] | None, forced_only: bool = False) -> Selection:
    """Remove the entries of `keys` (all for None), with what was forced for their layers, from the file."""

    def without(current: Selection) -> Selection:
        gone = set(current.entries) | set(current.forced) if keys is None else set(keys)
        layers = {key.layer for key in gone}
        measured = set() if forced_only else gone
        return Selection(
            current.machine,
            {key: candidates for key, candidates in current.entries.items() if key not in measured},
            {key: backend for key, backend in current.settled.items() if key not in measured},
            {key: backend for key, backend in current.forced.items() if key.layer not in layers},
        )

    return _rewrite(path, without)


def _rewrite(path: Path, change: Any) -> Selection:
    import filelock

    from kernels.machine import identity

    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{path}.lock"):
        if path.exists():
            try:
                there = Selection.from_json(path.read_text(encoding="utf-8")).machine
            except ValueError:
                there = identity()  # `load` sets the file aside
            differences = foreign(there, identity())
            if differences:
                raise ValueError(
                    f"{path} was measured with {differences}; expected another file (--selection)"
                )
        changed: Selection = change(load(path))
        with replacing(path) as partial:
            partial.write_text(changed.as_json(), encoding="utf-8")
    return changed
