"""Forecasts: how long a call will take, so that what would break the budget is skipped, not waited for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from kernels.measure import MIN_ROUNDS, FirstCalls, seconds_of
from kernels.problem import Problem
from kernels.registry import Op
from kernels.spec import ConvSpec, PoolSpec, Spec

TIMED_CALLS = MIN_ROUNDS + 1
"""Calls that a timed case cannot do without: one to check the result, the others to time."""
_FIRST_PROBE_FLOPS = 20_000
_GROWTH = 16
_NOISY_S = 0.01
"""A probe shorter than this is run again: the first call also pays for cold caches."""


@dataclass(frozen=True)
class Forecast:
    """The seconds that one call is expected to take, and whether the case fits its budget."""

    call_s: float
    fits: bool


class Forecaster:
    """Predicts a call's time from what the same backend did before on the same layer.

    From a smaller batch the time is scaled up with the batch. Where there is none, the layer itself is
    shrunk to something that surely fits, timed, and grown step by step for as long as the next step fits:
    a probe's overhead weighs less with each step, so that fast backends are not misjudged.
    """

    def __init__(
        self,
        budget_s: float,
        calls: int = TIMED_CALLS,
        make_problem: Callable[[Spec, Op, str], Problem] = Problem.random,
    ) -> None:
        self.make_problem = make_problem
        self.first_calls = FirstCalls()
        self.allowed_s = budget_s / calls
        self._image_s: dict[tuple[Spec, Op, str, str], float] = {}

    def forecast(self, layer: Spec, op: Op, backend: str, dtype: str) -> Forecast:
        key = self._key(layer, op, backend, dtype)
        if key not in self._image_s:
            self._image_s[key] = self._probe(layer, op, backend, dtype) / layer.N
        call_s = self._image_s[key] * layer.N
        return Forecast(call_s, call_s <= self.allowed_s)

    def record(self, layer: Spec, op: Op, backend: str, dtype: str, call_s: float) -> None:
        """Take note of a measured call."""
        self._image_s[self._key(layer, op, backend, dtype)] = call_s / layer.N

    @staticmethod
    def _key(layer: Spec, op: Op, backend: str, dtype: str) -> tuple[Spec, Op, str, str]:
        return layer.with_batch(1), op, backend, dtype

    def _probe(self, layer: Spec, op: Op, backend: str, dtype: str) -> float:
        limit = _FIRST_PROBE_FLOPS
        while True:
            small = shrink(layer, limit)
            problem = self.make_problem(small, op, dtype)
            seconds, _ = self.first_calls.run(problem, backend)
            if seconds < _NOISY_S:
                seconds = min(seconds, seconds_of(partial(problem.run, backend))[0])
            predicted = seconds * layer.flops / small.flops
            if predicted <= self.allowed_s or small == layer or seconds * _GROWTH > self.allowed_s:
                return predicted
            limit *= _GROWTH


def shrink(layer: Spec, flops: int) -> Spec:
    """A smaller layer of the same kind with at most about `flops` operations: batch, image, then channels."""
    small = layer.with_batch(max(1, min(layer.N, layer.N * flops // max(1, layer.flops))))
    while small.flops > flops:
        smaller = _smaller(small)
        if smaller == small:
            break
        small = smaller
    return small


def _smaller(layer: Spec) -> Spec:
    """`layer` with its image or its channels halved; itself where nothing is left to halve."""
    height = max(layer.R, layer.rows.reach, layer.H // 2)
    width = max(layer.S, layer.cols.reach, layer.W // 2)
    if layer.OH * layer.OW > 4 and (height < layer.H or width < layer.W):
        return replace(layer, H=min(height, layer.H), W=min(width, layer.W))
    if isinstance(layer, PoolSpec):
        return replace(layer, C=max(1, layer.C // 2))
    return _fewer_channels(layer)


def _fewer_channels(layer: ConvSpec) -> ConvSpec:
    groups, per_group, filters = layer.groups, layer.C // layer.groups, layer.K // layer.groups
    if groups > 1:
        groups = int(np.ceil(groups / 2))
    elif per_group >= filters:
        per_group = max(1, per_group // 2)
    else:
        filters = max(1, filters // 2)
    return replace(layer, C=groups * per_group, K=groups * filters, groups=groups)
