"""Tiles row by row: what all of the `winograd` backend's ways to cut up its work share.

Tiles are numbered through all images, row by row; some of them in turn are pieces of rows. Arrays are given
by their addresses, and the dtype by a `zero` of it, as in `tiled_copy`.
"""

from __future__ import annotations

from kernels.jit import helper
from kernels.tiled_copy import lanes_of, size_of, turn
from kernels.tiled_vectors import call_emitted

PIECE = 4
"""Numbers that say where a piece goes: see `cut_vector`."""


@helper
def piece_at(at, last, tiles_down, tiles_across):
    """The image, row and column of a tile, and how many of its row there are from it on, before the last."""
    image, number = at // (tiles_down * tiles_across), at % (tiles_down * tiles_across)
    down, across = number // tiles_across, number % tiles_across
    return image, down, across, min(tiles_across - across, last - at)


@helper
def turn_rows(zero, address, source, lanes, lane_step, W, begin, end, cols, turned, pitch, ahead):
    """Turn some columns of rows `begin` to `end`, of planes a `lane_step` apart, so that pixels are vectors.

    `source` and `turned` are where row 0 begins, `pitch` is from a row to the next there, and W here.
    """
    size, wide = size_of(zero), lanes_of(zero)
    # Rows without padding between them are turned as one.
    together = max(1, end - begin) if cols == W and pitch == W * wide else 1
    for i in range(begin, end, together):
        turn(zero, address, source + i * W * size, lanes, lane_step, cols * together,
             turned + i * pitch * size, wide, 1, ahead)  # fmt: skip


@helper
def transform_channel(zero, c, first, last, source, g, scratch, v):
    """V of the tiles from `first` to `last` of one channel."""
    size = size_of(zero)
    plane = g.H * g.W * size
    at = first
    while at < last:
        image, down, across, count = piece_at(at, last, g.tiles_down, g.tiles_across)
        # Whole vectors: what goes beyond the tiles lies where the next ones, or channels, go.
        call_emitted(g.data, source + (c + image * g.groups * g.channels) * plane, down * g.step_down - g.top,
                     across * g.step_across - g.left, g.H, g.W, count, scratch, g.pitch,
                     v + (at - first) * size, g.v_step, 0, 0)  # fmt: skip
        at += count


@helper
def place_of_channel(channel, g):
    """Where in V it is. Behind each slice is room for a vector: what goes beyond the tiles."""
    return channel * g.v_row + channel // g.depth * g.wide


@helper
def size_of_weights(filters, begin, end, g):
    """Of U of some filters and channels: all slices of the channels take the same place."""
    return g.positions * filters * ((end - begin + g.depth - 1) // g.depth * g.depth)


@helper
def transform_filters(zero, first, filters, begin, end, w, g, u):
    """U (positions, slices, filters, depth) of some filters of a group, and some channels."""
    slices = (end - begin + g.depth - 1) // g.depth
    for c in range(begin, end, g.depth):
        transform_slice(zero, first, first + filters, c, w, g, u + (c - begin) * filters * size_of(zero),
                        slices * filters * g.depth)  # fmt: skip


@helper
def transform_slice(zero, first, last, c0, w, g, to, u_step):
    """U (filters, depth) of some filters of a group, a slice of channels; each position `u_step` further."""
    size = size_of(zero)
    for c in range(c0, min(c0 + g.depth, g.channels), g.wide):
        for k in range(first, last):
            place = k * g.filter_step + c * g.channel_step
            u = to + ((k - first) * g.depth + c - c0) * size
            call_emitted(g.weights, w + place * size, g.channel_step, g.channels - c, u, u_step,
                         0, 0, 0, 0, 0, 0, 0)  # fmt: skip


@helper
def lay_results(zero, filter, beyond, begin, end, count, u, v, bias, out, g, results, pieces):
    """The outputs of so many tiles, of some filters of a group, from V of some channels; or adds to them."""
    size = size_of(zero)
    plane = g.OH * g.OW
    vectors = (count + g.wide - 1) // g.wide
    for k in range(filter, beyond, g.rows):
        weights = u + size_of_weights(k - filter, begin, end, g) * size
        for n in range(0, vectors, g.along):
            address = results[min(g.rows, beyond - k), min(g.along, vectors - n), min(begin, 1)]
            call_emitted(address, v + n * g.wide * size, g.v_step, g.v_row, weights, end - begin,
                         bias + k * size, out + k * plane * size, plane, g.OW, pieces[n].ctypes.data,
                         (g.wide + 1) * PIECE, g.asks)  # fmt: skip


@helper
def cut_vector(first, last, g, pieces):
    """Where the outputs of a vector of tiles go, in a table with a row for each piece.

    Its first row holds their count. A piece's row: how far it is from the filter's first output to where the
    vector's first pixel would be; the number of the piece's first pixel; its rows of outputs; and columns.
    """
    at, count = first, 0
    while at < last:
        image, down, across, tiles = piece_at(at, last, g.tiles_down, g.tiles_across)
        row, col = down * g.outputs_down, across * g.outputs_across
        pixel = (at - first) * g.outputs_across
        count += 1
        pieces[count, 0] = (image * g.groups * g.filters * g.OH + row) * g.OW + col - pixel
        pieces[count, 1] = pixel
        pieces[count, 2] = min(g.outputs_down, g.OH - row)
        pieces[count, 3] = min(tiles * g.outputs_across, g.OW - col)
        at += tiles
    pieces[0, 0] = count
