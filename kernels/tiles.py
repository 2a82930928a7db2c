"""Means of an image in tiles and along lines, robust against a few wild pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Array, asarray_like, is_numpy, namespace, to_host
from kernels.detector import true_pixels

TILE = 128  # pixels, at least, where the image is that large
APART = 3  # pixels between those compared for the noise: nearer ones may share an electron
SAMPLE = 89  # every so many pixels tell how wild pixels get

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tiles:
    """What is usual in the parts of an image.

    Attributes
    ----------
    size : (ny, nx)
    edges : (rows + 1,) and (columns + 1,) int
        Of the tiles [pixels].
    means : (rows, columns) float64
    factor : float
        Variance over mean: the value that one event adds, for independent counts.
    across : (rows, nx) float64
        Means of the columns of each row of tiles.
    along : (ny, columns) float64
        Means of the rows of each column of tiles.
    """

    size: tuple[int, int]
    edges: tuple[NDArray[np.int64], NDArray[np.int64]]
    means: Floats
    factor: float
    across: Floats
    along: Floats

    def at_columns(self, values: Floats) -> NDArray[np.float32]:
        """Repeat a row of values per tile for all pixels of the tiles, (nx,)."""
        return np.repeat(values, np.diff(self.edges[1])).astype(np.float32)

    def at(self, values: Floats, index: NDArray[np.int64]) -> Floats:
        """Return the values (rows, columns) of the tiles in which flat indices of pixels lie."""
        places = np.divmod(index, self.size[1])
        row, column = (
            np.searchsorted(edges, place, side="right") - 1
            for edges, place in zip(self.edges, places, strict=True)
        )
        return values[row, column]


def measure_tiles(image: Array) -> Tiles:
    """Measure an image (ny, nx) float32; values above twice the 99.9th percentile count as that."""
    xp = namespace(image)
    ny, nx = image.shape
    edges = (_edges(ny), _edges(nx))
    sample = to_host(xp.reshape(image, (-1,))[:: SAMPLE if ny * nx > 10**6 else 1])
    middle, high = np.quantile(sample, [0.5, 0.999])
    cap = float(high + 2 * (high - middle) + 1e-6)
    width = int(edges[1][1])
    tiles = len(edges[1]) - 1
    means, across, along, ratios = [], [], [], []
    for first, last in zip(edges[0][:-1], edges[0][1:], strict=True):
        strip = image[int(first) : int(last), :]
        strip = xp.minimum(strip, xp.full_like(strip, cap))
        means.append(_per_tile(strip, width, tiles, both=True))
        across.append(to_host(xp.mean(strip, axis=0)))
        along.append(_per_tile(strip, width, tiles, both=False))
        some = strip[::4, :]
        steps = some[:, APART:] - some[:, :-APART]
        ratios.append(_per_tile(steps * steps, width, tiles, both=True) / 2)
    mean = np.array(means, dtype=np.float64)
    counted = mean > 0
    ratio = np.array(ratios, dtype=np.float64)[counted] / mean[counted]
    factor = float(np.median(ratio)) if ratio.size else 0.0
    return Tiles((ny, nx), edges, mean, factor, np.array(across, float), np.concatenate(along))


def _edges(length: int) -> NDArray[np.int64]:
    """Return the edges of tiles of one size; the last one has what remains as well."""
    number = max(1, length // TILE)
    edges = np.arange(number + 1) * (length // number)
    edges[-1] = length
    return edges


def _per_tile(strip: Array, width: int, tiles: int, *, both: bool) -> Floats:
    """Return means over the columns of each tile, and with `both` over the rows."""
    xp = namespace(strip)
    inner = strip[:, : width * tiles] if strip.shape[1] >= width * tiles else None
    if inner is None:  # steps are a little narrower than the image
        inner, width = strip[:, : strip.shape[1] // tiles * tiles], strip.shape[1] // tiles
    parts = xp.reshape(inner, (strip.shape[0], tiles, width))
    return to_host(xp.mean(parts, axis=(0, 2) if both else 2)).astype(np.float64)


def beyond(
    image: Array, tiles: Tiles, high: Floats | None, low: Floats | None
) -> NDArray[np.int64]:
    """Return the flat indices of pixels above `high` or below `low`, one limit for each tile."""
    found = []
    for row, (first, last) in enumerate(zip(tiles.edges[0][:-1], tiles.edges[0][1:], strict=True)):
        strip = image[int(first) : int(last), :]
        out = None
        if high is not None:
            out = strip > asarray_like(tiles.at_columns(high[row]), image)[None, :]
        if low is not None:
            under = strip < asarray_like(tiles.at_columns(low[row]), image)[None, :]
            out = under if out is None else out | under
        if out is not None:
            found.append(_true(out) + int(first) * tiles.size[1])
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def _true(mask: Array) -> NDArray[np.int64]:
    if is_numpy(mask):
        return true_pixels(mask)
    xp = namespace(mask)
    return to_host(xp.nonzero(xp.reshape(mask, (-1,)))[0]).astype(np.int64)
