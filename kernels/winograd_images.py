"""The `winograd` backend's forward and dx of small planes: vectors along images.

A row of few tiles fills few lanes of a vector. So a vector of images is turned, a channel at a time: then
each pixel is a vector, and a tile's transform takes them as they lie. Results are turned back likewise.
Lanes along the batch are the layout of A. Krizhevsky's cuda-convnet (CHWN, 2012).
"""

from __future__ import annotations

from kernels.jit import helper
from kernels.tiled_copy import turn
from kernels.tiled_vectors import call_emitted
from kernels.winograd_products import multiply


@helper
def correlate_bands(worker, workers, images, source, u, bias, zeros, out, geometry, table, tiles, work):
    """One worker's share of the images, and of the bands of each.

    The last images may be some of their neighbours' once more: vectors are full.
    """
    g = geometry[0]
    size = work.itemsize
    v = work.ctypes.data + worker * g.work * size
    m = v + g.m * size
    bands = (g.tiles_down + g.band - 1) // g.band
    jobs = (images + g.wide - 1) // g.wide * bands
    for job in range(worker * jobs // workers, (worker + 1) * jobs // workers):
        image, down = min(job // bands * g.wide, images - g.wide), job % bands * g.band
        count = min(g.band, g.tiles_down - down)
        turned = work[worker * g.work + g.scratch : worker * g.work + g.results]
        turned[:] = 0
        for group in range(g.groups):
            for c in range(g.channels):
                plane = (image * g.groups + group) * g.channels + c
                transform_band(plane, down, count, source, geometry, turned, v + c * g.v_row * size)
            weights = u.ctypes.data + group * g.filters * g.depth * size
            multiply(g.filters, count * g.tiles_across * g.wide, weights, v, zeros, geometry, table, tiles, m)
            for k in range(g.filters):
                filter = group * g.filters + k
                transform_band_back(image, filter, down, count, bias, out, geometry, m + k * g.v_row * size,
                                    v + g.results * size)  # fmt: skip


@helper
def transform_band(plane, down, count, source, geometry, turned, v):
    """V of some rows of tiles of one channel, and a vector of images; `plane` is the first one's."""
    g = geometry[0]
    size = source.itemsize
    image_step = g.groups * g.channels * g.H * g.W
    skipped, place = max(0, -g.left), max(0, g.left)
    cols = min(g.W - skipped, g.pitch // g.wide - place)
    first = down * g.outputs - g.top
    begin, end = max(0, -first), min(count * g.outputs + g.beyond, g.H - first)
    # Rows without padding between them are turned as one.
    together = max(1, end - begin) if cols * g.wide == g.pitch == g.W * g.wide else 1
    for i in range(begin, end, together):
        row = source.ctypes.data + ((plane * g.H + first + i) * g.W + skipped) * size
        to = turned.ctypes.data + (i * g.pitch + place * g.wide) * size
        turn(source.dtype.type(0), g.turner, row, g.wide, image_step, cols * together, to, g.wide, 1)
    for i in range(count):
        call_emitted(g.data, turned.ctypes.data + i * g.outputs * g.pitch * size, g.pitch, g.tiles_across,
                     v + i * g.tiles_across * g.wide * size, g.v_step, 0, 0, 0, 0, 0, 0, 0)  # fmt: skip


@helper
def transform_band_back(image, filter, down, count, bias, out, geometry, m, results):
    """The outputs of some rows of tiles of one filter, and a vector of images."""
    g = geometry[0]
    size = out.itemsize
    filters = g.groups * g.filters
    first = down * g.outputs
    rows = min(count * g.outputs, g.OH - first)
    for i in range(count):
        call_emitted(g.result, m + i * g.tiles_across * g.wide * size, g.m_step,
                     results + i * g.outputs * g.OW * g.wide * size, g.OW * g.wide,
                     min(g.outputs, rows - i * g.outputs), g.OW, g.tiles_across,
                     bias.ctypes.data + filter * size, results + g.band * g.outputs * g.OW * g.wide * size,
                     0, 0, 0)  # fmt: skip
    place = (image * filters + filter) * g.OH + first
    turn(out.dtype.type(0), g.turner, results, rows * g.OW, g.wide, g.wide,
         out.ctypes.data + place * g.OW * size, filters * g.OH * g.OW, 0)  # fmt: skip
