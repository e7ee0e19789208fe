"""The `winograd` backend's forward and dx of small planes: vectors along images.

A row of few tiles fills few lanes of a vector. So a vector of images is turned, a channel at a time: then
each pixel is a vector, and a tile's transform takes them as they lie. Results are turned back likewise.
Lanes along the batch are the layout of A. Krizhevsky's cuda-convnet (CHWN, 2012).
"""

from __future__ import annotations

from kernels.jit import helper
from kernels.tiled_copy import clear, size_of, turn
from kernels.tiled_vectors import call_emitted
from kernels.winograd_tiles import size_of_weights, transform_filters, turn_rows


@helper
def correlate_bands(zero, worker, workers, images, source, u, bias, out, g, results, work):
    """One worker's share of the images, and of the bands of each.

    The last images may be some of their neighbours' once more: vectors are full.
    """
    size = size_of(zero)
    v = work + worker * g.work * size
    bands = (g.tiles_down + g.band - 1) // g.band
    jobs = (images + g.wide - 1) // g.wide * bands
    for job in range(worker * jobs // workers, (worker + 1) * jobs // workers):
        image, down = min(job // bands * g.wide, images - g.wide), job % bands * g.band
        count = min(g.band, g.tiles_down - down)
        turned = v + g.scratch * size
        clear(zero, turned, g.results - g.scratch)
        for group in range(g.groups):
            for c in range(g.channels):
                plane = (image * g.groups + group) * g.channels + c
                transform_band(zero, plane, down, count, source, g, turned, v + c * g.v_row * size)
            results_of_band(zero, group, image, down, count, u, v, bias, out, g, results)


@helper
def transform_band(zero, plane, down, count, source, g, turned, v):
    """V of some rows of tiles of one channel, and a vector of images; `plane` is the first one's."""
    size = size_of(zero)
    image_step = g.groups * g.channels * g.H * g.W
    skipped, place = max(0, -g.left), max(0, g.left)
    cols = min(g.W - skipped, g.pitch // g.wide - place)
    first = down * g.step_down - g.top
    begin, end = max(0, -first), min(count * g.step_down + g.beyond, g.H - first)
    turn_rows(zero, g.turner, source + ((plane * g.H + first) * g.W + skipped) * size, g.wide, image_step,
              g.W, begin, end, cols, turned + place * g.wide * size, g.pitch, g.H * g.W)  # fmt: skip
    for i in range(count):
        call_emitted(g.data, turned + i * g.step_down * g.pitch * size, g.pitch, g.tiles_across,
                     v + i * g.tiles_across * g.v_tile * size, g.v_tile, g.v_step,
                     0, 0, 0, 0, 0, 0)  # fmt: skip


@helper
def results_of_band(zero, group, image, down, count, u, v, bias, out, g, results):
    """The outputs of some rows of tiles, of a group's filters and a vector of images, from their V."""
    size = size_of(zero)
    made = v + g.results * size
    row = g.OW * g.wide
    step = g.band * g.outputs_down * row
    spare = made + g.rows * step * size
    first = down * g.outputs_down
    rows = min(count * g.outputs_down, g.OH - first)
    for k in range(group * g.filters, (group + 1) * g.filters, g.rows):
        filters = min(g.rows, (group + 1) * g.filters - k)
        weights = u + size_of_weights(k, 0, g.channels, g) * size
        if g.own:
            weights = v + g.own * size
            transform_filters(zero, k - group * g.filters, filters, 0, g.channels,
                              u + group * g.group_step * size, g, weights)  # fmt: skip
        for i in range(count):
            for j in range(0, g.tiles_across, g.along):
                place = i * g.outputs_down * row + j * g.outputs_across * g.wide
                call_emitted(results[filters, min(g.along, g.tiles_across - j), 0],
                             v + (i * g.tiles_across + j) * g.v_tile * size, g.v_tile, g.v_step, weights,
                             g.channels, bias + k * size, made + place * size, step, row,
                             rows - i * g.outputs_down, g.OW - j * g.outputs_across, spare)  # fmt: skip
        for n in range(filters):
            place = (image * g.groups * g.filters + k + n) * g.OH + first
            turn(zero, g.turner, made + n * step * size, rows * g.OW, g.wide, g.wide,
                 out + place * g.OW * size, g.groups * g.filters * g.OH * g.OW, 0, 0)  # fmt: skip
