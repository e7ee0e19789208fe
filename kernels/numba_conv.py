"""The `numba` backend's convolutions: the loops compiled, ordered for the cache and the vector unit.

Short rows, strides and batches keep plain loops from vectorising. All three are taken out of the inner
loop by the layout of its operands:

* `split_phases` pads the input and deals it out by position modulo the stride into smaller planes, one
  for each pair of remainders. In its own plane every tap moves in steps of 1, whatever the stride.
* The planes of all images stand one behind the other, and outputs are computed with their pitch. A
  filter's outputs for the whole batch are then one long run, and the inner loop is
  `run[i] += weight[t] * source[start[t] + i]`. What falls between the output rows is computed and dropped.

A run is cut into chunks that stay in the first-level cache while all taps are added: four taps for two
filters at a time, so that eight products share four loads of the source and two of the partial sums.

dx is the same loop over runs of dy: a plane of dx sums the taps that read from it. dw is a dot product
of runs. Infinite filters meet the zeros of the padding, as in every method that pads.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import prange

from kernels.arrays import grouped, readonly
from kernels.jit import Kernel, helper
from kernels.numba_rows import fill, gather, spread
from kernels.spec import ConvSpec

CHUNK = 1024
"""Elements of a run that are worked on at a time: 4 KiB in float32, with four sources as much again each."""


class Layout(NamedTuple):
    """The planes of one channel, (phases down, phases across, N, rows, pitch), and the taps in them."""

    phases: tuple[int, int]
    rows: int
    pitch: int
    plane: int
    """Elements of one phase of one channel: N * rows * pitch."""
    channel: int
    """Elements of all phases of one channel."""
    length: int
    """Elements of a run up to the last output."""
    phase: np.ndarray
    """The phase that tap (r, s) reads from, int64 (R * S,)."""
    shift: np.ndarray
    """Where in its phase the tap's run starts, int64 (R * S,)."""
    starts: np.ndarray
    """Where in its channel the tap's run starts, int64 (R * S,)."""
    terms: np.ndarray
    """The same for all channels of a group, from the first one's start on: int64 (C/groups * R * S,)."""


@lru_cache(maxsize=1024)
def layout_of(spec: ConvSpec) -> Layout:
    (sh, sw), (dh, dw) = spec.stride, spec.dilation
    down, across = np.arange(spec.R)[:, None] * dh, np.arange(spec.S) * dw
    phases = min(sh, spec.rows.reach), min(sw, spec.cols.reach)
    rows = spec.OH + int(down[-1, 0]) // sh
    pitch = spec.OW + int(across[-1]) // sw
    plane = spec.N * rows * pitch
    phase = (down % sh * phases[1] + across % sw).ravel()
    shift = (down // sh * pitch + across // sw).ravel()
    starts, channel = phase * plane + shift, phases[0] * phases[1] * plane
    channels = np.arange(spec.C // spec.groups)[:, None] * channel
    return Layout(
        phases,
        rows,
        pitch,
        plane=plane,
        channel=channel,
        length=((spec.N - 1) * rows + spec.OH - 1) * pitch + spec.OW,
        phase=phase,
        shift=shift,
        starts=starts,
        terms=(channels + starts).ravel(),
    )


@Kernel
def split_phases(x, H, W, top, left, sh, sw, planes):
    """Pad the flat x and deal it out into planes (C, phases down, phases across, N, rows, pitch)."""
    C, PH, PW, N, rows, pitch = planes.shape
    flat = planes.reshape(-1)
    for cn in prange(C * N):
        c, n = cn // N, cn % N
        for ph in range(PH):
            for pw in range(PW):
                # Columns begin..end - 1 of this plane lie on the input, the others on padding.
                begin = min(pitch, max(0, (left - pw + sw - 1) // sw))
                end = max(begin, min(pitch, (W - 1 + left - pw) // sw + 1))
                for row in range(rows):
                    ih = row * sh + ph - top
                    at = ((((c * PH + ph) * PW + pw) * N + n) * rows + row) * pitch
                    if ih < 0 or ih >= H:
                        fill(flat, at, pitch, 0)
                    else:
                        seen = ((n * C + c) * H + ih) * W + begin * sw + pw - left
                        fill(flat, at, begin, 0)
                        gather(x, seen, sw, flat, at + begin, end - begin)
                        fill(flat, at + end, pitch - end, 0)


def split(spec: ConvSpec, x: np.ndarray) -> np.ndarray:
    """The planes of x, flat; x itself where they are what it already is."""
    layout = layout_of(spec)
    dense = layout.phases == (1, 1) and (layout.rows, layout.pitch) == (spec.H, spec.W)
    if dense and not spec.padded and 1 in (spec.N, spec.C):
        return x.reshape(-1)
    planes = np.empty((spec.C, *layout.phases, spec.N, layout.rows, layout.pitch), x.dtype)
    flat = x.reshape(-1)
    split_phases(planes.size, flat, spec.H, spec.W, spec.rows.before, spec.cols.before, *spec.stride, planes)
    return readonly(planes.reshape(-1))


@helper
def add_products(run0, run1, source, starts, weights0, weights1, first):
    """Both runs[i] += the sum over t of weights[t] * source[starts[t] + first + i]."""
    size, terms = np.uintp(len(run0)), len(starts)
    whole = terms - terms % 4
    for t in range(0, whole, 4):
        v0, v1, v2, v3 = weights0[t], weights0[t + 1], weights0[t + 2], weights0[t + 3]
        w0, w1, w2, w3 = weights1[t], weights1[t + 1], weights1[t + 2], weights1[t + 3]
        p0, p1 = np.uintp(starts[t] + first), np.uintp(starts[t + 1] + first)
        p2, p3 = np.uintp(starts[t + 2] + first), np.uintp(starts[t + 3] + first)
        for i in range(size):
            s0, s1, s2, s3 = source[p0 + i], source[p1 + i], source[p2 + i], source[p3 + i]
            run0[i] += v0 * s0 + v1 * s1 + v2 * s2 + v3 * s3
            run1[i] += w0 * s0 + w1 * s1 + w2 * s2 + w3 * s3
    for t in range(whole, terms):
        v0, w0 = weights0[t], weights1[t]
        p0 = np.uintp(starts[t] + first)
        for i in range(size):
            run0[i] += v0 * source[p0 + i]
            run1[i] += w0 * source[p0 + i]


@helper
def place(run, first, rows, pitch, sh, sw, down, across, channel, out, M, H, W):
    """Write a chunk's rows to out[n, channel, row * sh + down, col * sw + across], where that exists.

    `out` is flat, of shape (N, M, H, W).
    """
    begin, end = max(0, (sw - 1 - across) // sw), min(pitch, (W - 1 - across) // sw + 1)
    n, row = first // pitch // rows, first // pitch % rows
    for origin in range(0, len(run), pitch):
        ih = row * sh + down
        if 0 <= ih < H:
            at = ((n * M + channel) * H + ih) * W + begin * sw + across
            spread(run, origin + begin, out, at, sw, min(end, len(run) - origin) - begin)
        row += 1
        if row == rows:
            n, row = n + 1, 0


@Kernel
def correlate(source, w, b, starts, group, length, rows, pitch, sh, sw, down, across, out, H, W):
    """Fill out (N, M, H, W), flat, with the runs b[m] + the sum over t of w[m, t] * source[starts[t] + i].

    `source` is flat, `group` elements for each group of the M; w is (M, terms), b (M,), starts (terms,)
    int64. Runs have `length` elements in rows of `pitch`, `rows` for an image, and go where `place` says.
    """
    M = len(w)
    per_group = M // (len(source) // group)
    pairs = (per_group + 1) // 2
    step = max(1, CHUNK // pitch) * pitch
    chunks = (length + step - 1) // step
    all_pairs = M // per_group * pairs
    for task in prange(chunks * all_pairs):
        g, pair = task % all_pairs // pairs, task % all_pairs % pairs
        m0 = g * per_group + 2 * pair
        m1 = min(m0 + 1, (g + 1) * per_group - 1)  # an odd last one keeps itself company
        first = task // all_pairs * step
        size = min(step, length - first)
        run0, run1 = np.full(size, b[m0]), np.full(size, b[m1])
        add_products(run0, run1, source, starts, w[m0], w[m1], first + g * group)
        place(run0, first, rows, pitch, sh, sw, down, across, m0, out, M, H, W)
        place(run1, first, rows, pitch, sh, sw, down, across, m1, out, M, H, W)


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """Every filter's taps (c, r, s), summed over the planes of x."""
    layout = layout_of(spec)
    correlate(
        spec.flops,
        split(spec, x),
        w.reshape(spec.K, -1),
        readonly(np.zeros(spec.K, x.dtype)) if b is None else b,
        layout.terms,
        spec.C // spec.groups * layout.channel,
        layout.length,
        layout.rows,
        layout.pitch,
        *(1, 1, 0, 0),
        y.reshape(-1),
        spec.OH,
        spec.OW,
    )


def dy_runs(spec: ConvSpec, dy: np.ndarray, slack: int = 0) -> np.ndarray:
    """dy as runs with the planes' pitch, zeros between the rows, flat; `slack` zeros in front."""
    layout = layout_of(spec)
    flat = np.zeros(slack + spec.K * layout.plane, dy.dtype)
    planes = flat[slack:].reshape(spec.K, spec.N, layout.rows, layout.pitch)
    planes[:, :, : spec.OH, : spec.OW] = dy.swapaxes(0, 1)
    return readonly(flat)


def conv_dx(spec: ConvSpec, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """One phase of dx at a time: the taps that read from it, summed over the runs of dy.

    A tap that reads `shift` ahead in the forward pass reads `shift` back here. What lies before a row or
    an image is the zeros at the end of the one before; before the first, the slack.
    """
    layout = layout_of(spec)
    (sh, sw), (top, left) = spec.stride, (spec.rows.before, spec.cols.before)
    slack = int(layout.shift.max())
    source = dy_runs(spec, dy, slack)
    by_channel = grouped(spec, w).swapaxes(1, 2).reshape(spec.C, spec.K // spec.groups, -1)
    zeros = readonly(np.zeros(spec.C, dx.dtype))
    filters = np.arange(spec.K // spec.groups) * layout.plane
    dx[...] = 0  # inputs that no window sees
    for ph in range(layout.phases[0]):
        for pw in range(layout.phases[1]):
            taps = np.flatnonzero(layout.phase == ph * layout.phases[1] + pw)
            weights = np.ascontiguousarray(by_channel[:, :, taps]).reshape(spec.C, -1)
            correlate(
                2 * spec.N * layout.rows * layout.pitch * weights.size,
                source,
                readonly(weights),
                zeros,
                (filters[:, None] + slack - layout.shift[taps]).ravel(),
                len(filters) * layout.plane,
                layout.plane,
                layout.rows,
                layout.pitch,
                *(sh, sw, ph - top, pw - left),
                dx.reshape(-1),
                spec.H,
                spec.W,
            )


@helper
def add_dots(runs, run0, run1, size, planes, origin, starts, dots0, dots1):
    """Both dots[t] += the dot product of `size` elements, runs from run0 or run1, planes from each tap's."""
    r0, r1, size, taps = np.uintp(run0), np.uintp(run1), np.uintp(size), len(starts)
    whole = taps - taps % 4
    for t in range(0, whole, 4):
        p0, p1 = np.uintp(origin + starts[t]), np.uintp(origin + starts[t + 1])
        p2, p3 = np.uintp(origin + starts[t + 2]), np.uintp(origin + starts[t + 3])
        u0 = u1 = u2 = u3 = v0 = v1 = v2 = v3 = dots0.dtype.type(0)
        for i in range(size):
            a, b = runs[r0 + i], runs[r1 + i]
            s0, s1, s2, s3 = planes[p0 + i], planes[p1 + i], planes[p2 + i], planes[p3 + i]
            u0 += a * s0
            u1 += a * s1
            u2 += a * s2
            u3 += a * s3
            v0 += b * s0
            v1 += b * s1
            v2 += b * s2
            v3 += b * s3
        dots0[t] += u0
        dots0[t + 1] += u1
        dots0[t + 2] += u2
        dots0[t + 3] += u3
        dots1[t] += v0
        dots1[t + 1] += v1
        dots1[t + 2] += v2
        dots1[t + 3] += v3
    for t in range(whole, taps):
        p0 = np.uintp(origin + starts[t])
        u0 = v0 = dots0.dtype.type(0)
        for i in range(size):
            u0 += runs[r0 + i] * planes[p0 + i]
            v0 += runs[r1 + i] * planes[p0 + i]
        dots0[t] += u0
        dots1[t] += v0


@Kernel
def correlate_runs(runs, planes, starts, channel, plane, length, dw):
    """dw (K, C/groups, taps) from dy's runs (K of `plane` elements), x's planes and where each tap starts."""
    K, channels, taps = dw.shape
    per_group = K // (len(planes) // (channels * channel))
    pairs = (per_group + 1) // 2
    for task in prange(K // per_group * pairs * channels):
        c, g, pair = task % channels, task // channels // pairs, task // channels % pairs
        k0 = g * per_group + 2 * pair
        k1 = min(k0 + 1, (g + 1) * per_group - 1)
        origin = (g * channels + c) * channel
        dots0, dots1 = np.zeros(taps, dw.dtype), np.zeros(taps, dw.dtype)
        for first in range(0, length, CHUNK):
            run0, run1, size = k0 * plane + first, k1 * plane + first, min(CHUNK, length - first)
            add_dots(runs, run0, run1, size, planes, origin + first, starts, dots0, dots1)
        dw[k0, c] = dots0
        dw[k1, c] = dots1


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """Each tap's dot product of dy's runs with the planes of x, over the whole batch."""
    layout = layout_of(spec)
    runs, planes = dy_runs(spec, dy), split(spec, x)
    by_tap = dw.reshape(*dw.shape[:2], -1)
    correlate_runs(
        spec.flops, runs, planes, layout.starts, layout.channel, layout.plane, layout.length, by_tap
    )
    if not np.isfinite(dw).all():
        # Between the rows a zero of dy meets an input that the tap does not see: 0 x inf must not count.
        dot_rows(spec.flops, dy, planes, layout.starts, layout.channel, layout.rows, layout.pitch, dw)


@Kernel
def dot_rows(dy, planes, starts, channel, rows, pitch, dw):
    """dw (K, C/groups, R, S) by the rows of dy alone: slower, exact where x has infinities or NaN."""
    N, K, OH, OW = dy.shape
    _, channels, R, S = dw.shape
    per_group = K // (len(planes) // (channels * channel))
    for k in prange(K):
        for c in range(channels):
            origin = (k // per_group * channels + c) * channel
            for t in range(R * S):
                total = dw.dtype.type(0)
                for n in range(N):
                    for oh in range(OH):
                        start = origin + starts[t] + (n * rows + oh) * pitch
                        for ow in range(OW):
                            total += dy[n, k, oh, ow] * planes[start + ow]
                dw[k, c, t // S, t % S] = total


@Kernel
def sum_filters(dy, db):
    """db (K,) = the sums of dy (N, K, OH, OW) over all but K."""
    N, K, OH, OW = dy.shape
    for k in prange(K):
        total = db.dtype.type(0)
        for n in range(N):
            of_image = db.dtype.type(0)  # sums of shorter sums are rounded less
            for oh in range(OH):
                for ow in range(OW):
                    of_image += dy[n, k, oh, ow]
            total += of_image
        db[k] = total


def conv_db(spec: ConvSpec, dy: np.ndarray, db: np.ndarray) -> None:
    """db[k] = the sum of dy[:, k]."""
    sum_filters(dy.size, dy, db)
