"""Statistics of the tiles of an image, and its pixels far out: the bulk of the search for hits.

Every pixel is read once or a little more often, in the order of memory, and copied on the way,
so the time is that of the memory. What follows looks at few pixels only (`kernels.xrays`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincc, ndtr

CLIP = 6.0  # standard deviations beyond which pixels do not count in the statistics
CLIP_PASSES = 12
SAMPLED = 4  # every so many rows tell the statistics: 2500 pixels of 100², 1.4 % of deviation
FEWEST_EVENTS, MOST_EVENTS = 1e-3, 1e5  # of the table of limits; beyond, counts are normal
STEPS = 240

Image = NDArray[np.float32]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Grid:
    """Tiles of an image, and between which of their centres each pixel lies.

    Attributes
    ----------
    edges : (rows + 1,) and (columns + 1,) int
    before : (ny,) and (nx,) int
        The tile centre before each pixel.
    share : (ny,) and (nx,) float64
        Of the centre after it, for linear interpolation.
    """

    edges: tuple[Integers, Integers]
    before: tuple[Integers, Integers]
    share: tuple[Floats, Floats]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns of tiles."""
        return len(self.edges[0]) - 1, len(self.edges[1]) - 1


def tile_grid(shape: tuple[int, ...], patch: int) -> Grid:
    """Divide an image into tiles of about `patch` pixels."""
    edges, before, share = [], [], []
    for n in shape:
        edge = np.linspace(0, n, max(1, round(n / patch)) + 1).astype(np.int64)
        centre = (edge[:-1] + edge[1:] - 1) / 2
        place = np.interp(np.arange(n), centre, np.arange(len(centre)))
        first = np.minimum(place.astype(np.int64), max(0, len(centre) - 2))
        edges.append(edge)
        before.append(first)
        share.append(place - first)
    return Grid((edges[0], edges[1]), (before[0], before[1]), (share[0], share[1]))


@cache
def limits(chance: float, *, low: bool = False) -> Floats:
    """Return how far out counts are with a given chance, for `STEPS` numbers of events.

    Parameters
    ----------
    chance : float
        Of one pixel to be as far out or further.
    low : bool
        Below the mean instead of above; infinite where even no event at all is likelier.

    Returns
    -------
    (STEPS,) float64
        In standard deviations, for events evenly spaced in their logarithm.
    """
    events = np.geomspace(FEWEST_EVENTS, MOST_EVENTS, STEPS)
    lowest, highest = np.zeros(STEPS), np.full(STEPS, 400.0)
    for _ in range(50):
        middle = (lowest + highest) / 2
        if low:
            count = events - middle * np.sqrt(events)
            rare = np.where(count < 0, 0.0, gammaincc(np.maximum(count, 0) + 1, events)) < chance
        else:
            rare = gammainc(events + middle * np.sqrt(events), events) < chance
        lowest, highest = np.where(rare, lowest, middle), np.where(rare, middle, highest)
    if low:
        return np.where(highest > np.sqrt(events), np.inf, highest)
    return highest


def normal_chance(deviations: float) -> float:
    """Return the chance of normal noise to be so many standard deviations over its mean."""
    return float(ndtr(-deviations))


@numba.njit(cache=True, nogil=True)
def limit_at(table, events):  # type: ignore[no-untyped-def]
    """Look a limit up for a number of events."""
    bottom, top = np.log(FEWEST_EVENTS), np.log(MOST_EVENTS)
    place = (np.log(max(events, 1e-30)) - bottom) / (top - bottom) * (len(table) - 1)
    if place <= 0:
        return table[0]
    if place >= len(table) - 1:
        return table[-1]
    i = int(place)
    if not np.isfinite(table[i]):
        return table[i]
    return table[i] + (place - i) * (table[i + 1] - table[i])


def limits_at(table: Floats, events: Floats) -> Floats:
    """Look limits up for numbers of events of any shape."""
    return np.array([limit_at(table, n) for n in events.ravel()]).reshape(events.shape)


@numba.njit(cache=True, nogil=True)
def measure(image, y_edges, x_edges, todo, means, spreads, events):  # type: ignore[no-untyped-def]
    """Write mean, standard deviation and value of one event of the tiles `todo`.

    Outliers are cut off again and again until there are none. The value of one event is the
    third moment over the second: that of independent counts times a factor, 0 of normal noise.
    """
    width = 0
    for j in range(len(x_edges) - 1):
        width = max(width, x_edges[j + 1] - x_edges[j])
    values = np.empty((y_edges[-1] // (len(y_edges) - 1) + 2) * width, np.float32)
    for i in range(todo.shape[0]):
        for j in range(todo.shape[1]):
            if not todo[i, j]:
                continue
            left, length, n = x_edges[j], x_edges[j + 1] - x_edges[j], 0
            step = SAMPLED if y_edges[i + 1] - y_edges[i] >= 8 * SAMPLED else 1
            for y in range(y_edges[i], y_edges[i + 1], step):
                values[n : n + length] = image[y, left : left + length]
                n += length
            low, high = -np.float32(np.inf), np.float32(np.inf)
            mean, spread, third, kept = 0.0, 0.0, 0.0, -1
            origin = values[n // 2]
            for _ in range(CLIP_PASSES):
                count, one, two, three = _moments(values[:n], origin, low, high)
                if count == kept or count == 0:
                    break
                kept = count
                shift = one / count
                square = max(two / count - shift * shift, 0.0)
                mean, spread = origin + shift, np.sqrt(square)
                third = three / count - 3 * shift * two / count + 2 * shift**3
                origin = np.float32(mean)
                low, high = np.float32(mean - CLIP * spread), np.float32(mean + CLIP * spread)
            means[i, j], spreads[i, j] = mean, spread
            events[i, j] = third / (spread * spread) if spread > 0 else 0.0


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _moments(values, origin, low, high):  # type: ignore[no-untyped-def]
    count, one, two, three = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    for i in range(len(values)):
        value = values[i]
        inside = np.float32(1) if (value >= low) & (value <= high) else np.float32(0)
        v = (value - origin) * inside
        count += inside
        one += v
        two += v * v
        three += v * v * v
    return int(count), float(one), float(two), float(three)


@numba.njit(cache=True, nogil=True)
def scan(  # type: ignore[no-untyped-def]
    image, out, copied, y_edges, x_edges, todo, high, low, lowest, highest
):
    """Return the flat indices of pixels beyond limits of their tiles.

    Only tiles `todo` are looked at. Their minimum and maximum are written, and where `copied`
    their pixels to `out`.
    """
    nx = image.shape[1]
    found, n = np.empty(1024, np.int64), 0
    least, most = np.empty(nx, np.float32), np.empty(nx, np.float32)
    for i in range(todo.shape[0]):
        least[:], most[:] = image[y_edges[i]], image[y_edges[i]]
        for y in range(y_edges[i], y_edges[i + 1]):
            for j in range(todo.shape[1]):
                if not todo[i, j]:
                    continue
                left, right = x_edges[j], x_edges[j + 1]
                source = image[y, left:right]
                up, down = np.float32(high[i, j]), np.float32(low[i, j])
                bottoms, tops = least[left:right], most[left:right]
                length, beyond = right - left, np.int32(0)
                for x in range(length):
                    value = source[x]
                    beyond += np.int32((value > up) | (value < down))
                for x in range(length):  # a loop of its own: together they are no vectors
                    bottoms[x] = min(bottoms[x], source[x])
                    tops[x] = max(tops[x], source[x])
                if copied:
                    out[y, left:right] = source
                if beyond == 0:
                    continue
                if n + beyond > len(found):
                    larger = np.empty(2 * (n + beyond), np.int64)
                    larger[:n] = found[:n]
                    found = larger
                for x in range(length):
                    if (source[x] > up) | (source[x] < down):
                        found[n] = y * nx + left + x
                        n += 1
        for j in range(todo.shape[1]):
            if todo[i, j]:
                lowest[i, j] = least[x_edges[j] : x_edges[j + 1]].min()
                highest[i, j] = most[x_edges[j] : x_edges[j + 1]].max()
    return found[:n].copy()


def around(values: NDArray[Any], function: np.ufunc) -> NDArray[Any]:
    """Return the least (``np.minimum``) or largest of each tile and those beside it."""
    padded = np.pad(values, 1, mode="edge")
    rows, columns = values.shape
    parts = [padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return np.asarray(function.reduce(parts))


@numba.njit(cache=True, nogil=True)
def at_pixel(values, y, x, y_before, x_before, y_share, x_share):  # type: ignore[no-untyped-def]
    """Interpolate values of tiles (rows, columns) linearly to a pixel."""
    i, j, u, v = y_before[y], x_before[x], y_share[y], x_share[x]
    k, m = min(i + 1, values.shape[0] - 1), min(j + 1, values.shape[1] - 1)
    above = values[i, j] + v * (values[i, m] - values[i, j])
    below = values[k, j] + v * (values[k, m] - values[k, j])
    return above + u * (below - above)
