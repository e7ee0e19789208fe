"""What a choice costs where nothing was tuned: made without a network, or a batch size, and judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from kernels.choice import fallback
from kernels.selection import Key, Selection

OTHER_BATCH = "as at the nearest other batch size"
COST_MODEL = "as the cost model predicts from other networks"
FALLBACK = "the fallback, without a cost model"
WAYS = (OTHER_BATCH, COST_MODEL, FALLBACK)


@dataclass(frozen=True)
class Regret:
    """The time of a choice that was made in one of `WAYS`, over that of the best backend."""

    way: str
    key: Key
    chosen: str
    best: str
    regret: float


def regrets(selection: Selection, networks: Mapping[str, Sequence[Key]]) -> Iterator[Regret]:
    """Judge choices for the networks' operations, each as if it had not been measured."""
    for keys in networks.values():
        without_network = _without(selection, layers={key.layer for key in keys})
        for key in keys:
            if key not in selection.entries or selection.decision(key).choice is None:
                continue
            without_batch = _without(selection, keys={key})
            if any(other.layer == key.layer for other in without_batch.entries):
                yield from _judged(selection, key, OTHER_BATCH, without_batch)
            yield from _judged(selection, key, COST_MODEL, without_network)
            yield from _judged(selection, key, FALLBACK, Selection(selection.machine))


def _without(selection: Selection, keys: Set[Key] = frozenset(), layers: Set[Key] = frozenset()) -> Selection:
    """The selection as if some operations, or some layers at any batch size, had never been measured."""
    kept = {
        key: candidates
        for key, candidates in selection.entries.items()
        if key not in keys and key.layer not in layers
    }
    return Selection(selection.machine, kept)


def _judged(selection: Selection, key: Key, way: str, knowing: Selection) -> Iterator[Regret]:
    """What would be chosen `knowing` only a part, against what was measured; nothing if it was not."""
    choice = knowing.choose(key)
    chosen = choice.backend if choice else fallback(key.spec, key.op, np.dtype(key.dtype))
    candidates = selection.entries[key]
    best = min(selection.decision(key).ranked, key=lambda name: candidates[name].median_s)
    if chosen in candidates:
        yield Regret(way, key, chosen, best, candidates[chosen].median_s / candidates[best].median_s)
