"""How the `tiled` backend packs weights for its tiles, and biases: forward and dx.

The weights of a panel, the filters that a tile computes, lie side by side for each tap. Behind the panels of
all groups lies the bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numba import carray, prange

from kernels.jit import Kernel, helper, is_launched
from kernels.tiled_axis import Correlation
from kernels.tiled_copy import turn, turner
from kernels.tiled_record import Recorded, matrix, pointer
from kernels.tiled_vectors import lanes
from kernels.tiled_work import whole_lines, workspace

Panels = Sequence[tuple[int, int, int, int]]
"""First filter, how many, which of the compiled tiles for it, and how many a packed tap holds."""


@dataclass(frozen=True, eq=False)
class Packing(Recorded):
    """Where the weights come from and go to; lengths and steps in elements."""

    groups: int
    filters: int
    """Of a group."""
    outer: int
    outer_step: int
    inner: int
    """How often, and how far apart, a filter has how many weights in a row."""
    few: int
    """Whether one thread packs them, before it starts the others."""
    across_filters: int
    """Whether vectors lie along filters; then packed filters are vectors, too."""
    turner: int
    """The address of what turns squares of weights."""
    of_group: int
    """Packed weights, with which the workspace begins."""
    bias: int
    """Where the bias lies there, with zeros behind it: tiles read whole vectors."""
    end: int
    panels: np.ndarray
    """As in `Panels`; then where its weights begin, packed: intp (panels, 5)."""

    @classmethod
    def of(
        cls, asked: Correlation, groups: int, panels: Panels, across_filters: bool, dtype: np.dtype
    ) -> Packing:
        """Of the weights of a correlation, cut up like this."""
        *starts, of_group = np.cumsum([0, *(panel[-1] for panel in panels)]) * asked.weights
        bias = whole_lines(groups * int(of_group))
        end = bias + whole_lines(groups * asked.filters + 4 * lanes(dtype))
        return cls(
            groups, asked.filters, asked.weights // asked.per_filter, asked.per_channel, asked.per_filter,
            not is_launched(groups * asked.filters * asked.weights), across_filters, turner(dtype),
            int(of_group), bias, end, np.column_stack([np.array(panels, np.intp), starts]),
        )  # fmt: skip


@Kernel
def pack(w, bias, packing, memory):
    """Many weights into the workspace, by all threads."""
    for piece in prange(pieces(packing[0])):
        pack_piece(piece, w, bias, packing[0], memory)


@helper
def pack_few(w, bias, p, memory):
    """Few weights into the workspace, if they are few: by the thread that is about to start the others."""
    if p.few:
        for piece in range(pieces(p)):
            pack_piece(piece, w, bias, p, memory)


@helper
def pieces(p):
    """How many there are: rows of weights, or of a panel."""
    return p.groups * p.outer * (len(matrix(p.panels)) if p.inner > 1 else 1)


@helper
def pack_piece(piece, w, bias, p, memory):
    """Some weights of one group; filter k has them at o * outer_step + k * inner, `inner` in a row.

    They go to where the group and panel have them: (outer, inner, filters of it). The first takes the bias.
    """
    if p.inner > 1:
        pack_panel(piece, w, p, memory)
    else:
        pack_row(piece, w, p, memory)
    if piece == 0:
        for i in range(p.end - p.bias):
            memory[p.bias + i] = bias[i] if i < len(bias) else 0


@helper
def pack_panel(piece, w, p, memory):
    """The weights of one group, panel and o; whole vectors are padded with zeros."""
    panels = matrix(p.panels)
    o, panel = piece % p.outer, panels[piece // p.outer % len(panels)]
    group = piece // (p.outer * len(panels))
    size = w.itemsize
    source = group * (w.size // p.groups) + o * p.outer_step + panel[0] * p.inner
    target = group * p.of_group + panel[4] + o * p.inner * panel[3]
    if panel[3] == 1:  # of a single filter: they stay as they lie
        weights = carray(pointer(w.ctypes.data), (w.size,), w.dtype)
        for i in range(p.inner):
            memory[target + i] = weights[source + i]
        return
    turn(w.dtype.type(0), p.turner, w.ctypes.data + source * size, panel[1], p.inner, p.inner,
         memory.ctypes.data + target * size, panel[3], p.across_filters, 0)  # fmt: skip


@helper
def pack_row(row, w, p, memory):
    """The weights of one group and o, where filters have one each: they lie in a row already."""
    group, o = row // p.outer, row % p.outer
    filters = carray(pointer(w.ctypes.data), (w.size,), w.dtype)
    filters = filters[group * (w.size // p.groups) + o * p.outer_step :]
    panels = matrix(p.panels)
    for n in range(len(panels)):
        first, count, width = panels[n, 0], panels[n, 1], panels[n, 3]
        target = group * p.of_group + panels[n, 4] + o * width
        for k in range(width):
            memory[target + k] = filters[first + k] if k < count else 0


class _Plan(Protocol):
    @property
    def packing(self) -> Packing: ...

    @property
    def memory(self) -> int: ...


def room_for(plan: _Plan, w: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The workspace of a plan, with its weights and bias if they are many."""
    memory = workspace("work", plan.memory, w.dtype)
    if not plan.packing.few:
        pack(w.size, w, bias, plan.packing.record, memory)
    return memory
