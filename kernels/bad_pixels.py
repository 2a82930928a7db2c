"""Bad pixels of a detector, found in sums of frames, and what hits single frames.

A bad pixel differs from nearly all places on a circle around it by more than counting allows.
Specimen, gold and carbon edges do not: a good part of a circle around any of their pixels is as
dark or as bright as the pixel. Lines of bad pixels are found in the means of columns and rows
(`kernels.bad_lines`). Arrays may live anywhere; the few candidates are judged on the host.
"""

from __future__ import annotations

from math import pi

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincc

from kernels.arrays import Array, asarray_like, namespace, to_host
from kernels.bad_lines import bad_columns
from kernels.tiles import Floats, Tiles, beyond, measure_tiles

RADII = (2, 4, 6)  # of the circles [pixels]; clusters up to about the largest are seen whole
FACTOR = 2.0  # beyond the first circle, by which a pixel must differ: fringes are as narrow
DIRECTIONS = 16
AGREEING = 4  # places on a circle that agree with a pixel make it specimen
CANDIDATE = 1e-6  # chance of a good pixel to be looked at more closely
CHANCE = 1e-8  # chance of a good pixel to be as far out as one that is called bad: 5.6 σ
NEIGHBOUR = 1e-5  # the same for pixels beside a bad one: defects spill over
NOISY = 1e-12  # the same for the variance from frame to frame, whose tail is longer
FEWEST_EVENTS = 50.0  # per pixel, for its variance to tell anything
BATCH = 100_000


def find_bad_pixels(
    total: Array, squares: Array | None = None, count: int | None = None
) -> NDArray[np.bool_]:
    """Return where the detector is hot, dead or noisy, alone, in clusters or in lines.

    What can be seen depends on the events in the sum. One movie of 1.4 events per pixel shows
    hot pixels and dead lines; dead single pixels need about 25 events, so the sum of all movies
    of a series or more, which also blurs the specimen.

    Parameters
    ----------
    total : (ny, nx) float32
        Sum of gain-corrected frames: independent counts times a factor nearly the same
        everywhere, which is measured.
    squares : (ny, nx) float32, optional
        Sum of the squares of the same frames, to find also noisy pixels of right mean. It is not
        looked at below 50 events per pixel.
    count : int, optional
        Number of frames, with `squares`.

    Returns
    -------
    (ny, nx) bool
        True at bad pixels, in host memory, for `detector.replace_pixels`.

    Raises
    ------
    ValueError
        If `squares` comes without a `count` of two or more, or the shapes differ.
    """
    if squares is not None and (count is None or count < 2 or squares.shape != total.shape):
        raise ValueError(
            f"squares {tuple(squares.shape)} of {count} frames with a sum {tuple(total.shape)}: "
            "shapes must agree, frames be two or more"
        )
    tiles = measure_tiles(total)
    bad = _outlying(total, tiles, CHANCE, low=True)
    bad |= bad_columns(tiles.across, tiles.edges[0], tiles.factor)
    bad |= bad_columns(tiles.along.T, tiles.edges[1], tiles.factor).T
    events = float(np.median(tiles.means)) / tiles.factor if tiles.factor > 0 else 0.0
    if squares is not None and count is not None and events >= FEWEST_EVENTS:
        variance = (squares - total * total / count) / (count - 1)
        bad |= _outlying(variance, measure_tiles(variance), NOISY, low=False)
    return bad


def find_spikes(frame: Array, usual: Tiles | None = None) -> NDArray[np.bool_]:
    """Return where a single frame is hit by X-rays or cosmic rays, or a pixel flares up.

    Parameters
    ----------
    frame : (ny, nx) float32
        Gain-corrected, its bad pixels replaced.
    usual : Tiles, optional
        Of another frame of the same movie, to save measuring this one.

    Returns
    -------
    (ny, nx) bool
        True at pixels hit, in host memory, for `detector.replace_pixels`.
    """
    return _outlying(frame, usual or measure_tiles(frame), CHANCE, low=False)


def _outlying(image: Array, tiles: Tiles, chance: float, *, low: bool) -> NDArray[np.bool_]:
    """Return the pixels too high for their surroundings, with `low` also those too low."""
    bad = np.zeros(tiles.size, dtype=np.bool_)
    if tiles.factor <= 0 or not (tiles.means > 0).any():
        return bad  # nothing was counted
    flat = namespace(image).reshape(image, (-1,))
    high_limit, low_limit = _limits(tiles)
    for sign in (1, -1) if low else (1,):
        limits = (high_limit, None) if sign > 0 else (None, low_limit)
        index = beyond(image, tiles, *limits)
        found = _judged(flat, tiles, index, chance, sign)
        if not len(found):
            continue
        mark = np.zeros(tiles.size, dtype=np.bool_)
        mark.reshape(-1)[found] = True
        beside = np.flatnonzero(_grown(mark, found) & ~mark)
        mark.reshape(-1)[_judged(flat, tiles, beside, NEIGHBOUR, sign)] = True
        bad |= mark
    return bad


def _grown(mark: NDArray[np.bool_], index: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return `mark`, true at the flat indices `index`, grown by a pixel all around."""
    grown = np.zeros_like(mark)
    y, x = np.divmod(index, mark.shape[1])
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            rows = np.clip(y + dy, 0, mark.shape[0] - 1)
            grown[rows, np.clip(x + dx, 0, mark.shape[1] - 1)] = True
    return grown


def _limits(tiles: Tiles) -> tuple[Floats, Floats]:
    """Return for each tile the values beyond which counts have the chance `CANDIDATE`."""
    most = float(tiles.means.max()) / tiles.factor
    events = np.maximum(np.linspace(0, np.sqrt(most), 200) ** 2, 1e-3)
    lowest, highest = events, events + 10 * np.sqrt(events) + 40
    for _ in range(30):  # P(X ≥ k) = gammainc(k, mean)
        middle = (lowest + highest) / 2
        rare = gammainc(middle, events) < CANDIDATE
        lowest, highest = np.where(rare, lowest, middle), np.where(rare, middle, highest)
    high = highest
    lowest, highest = np.full_like(events, -1.0), events
    for _ in range(30):  # P(X ≤ k) = gammaincc(k + 1, mean)
        middle = (lowest + highest) / 2
        rare = gammaincc(middle + 1, events) < CANDIDATE
        lowest, highest = np.where(rare, middle, lowest), np.where(rare, highest, middle)
    places = tiles.means / tiles.factor
    low = np.interp(places, events, lowest)
    low = np.where(low < 0, -np.inf, low)  # even nothing at all would be likely
    return np.interp(places, events, high) * tiles.factor, low * tiles.factor


def _judged(
    flat: Array, tiles: Tiles, index: NDArray[np.int64], chance: float, sign: int
) -> NDArray[np.int64]:
    """Return those of the pixels `index` that stand out from one of the circles around them."""
    kept = [index[:0]]
    for first in range(0, len(index), BATCH):
        part = index[first : first + BATCH]
        values = _values(flat, part) / tiles.factor
        usual = tiles.at(tiles.means, part) / tiles.factor
        out = np.zeros(len(part), dtype=np.bool_)
        y, x = np.divmod(part, tiles.size[1])
        for radius in RADII:
            factor = 1.0 if radius == RADII[0] else FACTOR
            angle = 2 * pi * np.arange(DIRECTIONS) / DIRECTIONS
            rows = y[:, None] + np.rint(radius * np.sin(angle)).astype(np.int64)
            columns = x[:, None] + np.rint(radius * np.cos(angle)).astype(np.int64)
            rows, columns = (
                np.where(i < 0, -i, np.where(i >= n, 2 * n - 2 - i, i)).clip(0, n - 1)
                for i, n in zip((rows, columns), tiles.size, strict=True)
            )
            circle = _values(flat, (rows * tiles.size[1] + columns).reshape(-1))
            circle = np.sort(circle.reshape(rows.shape) / tiles.factor, axis=1)
            if sign > 0:
                events = np.maximum(np.maximum(circle[:, -AGREEING], usual), 1e-3)
                far = values > events * factor
                out |= far & (gammainc(np.maximum(values, 1e-3), events) < chance)
            else:
                events = np.minimum(circle[:, AGREEING - 1], usual)
                far = (events > 0) & (values < events / factor)
                rest = np.maximum(values, -0.999) + 1
                out |= far & (gammaincc(rest, np.maximum(events, 1e-3)) < chance)
        kept.append(part[out])
    return np.concatenate(kept)


def _values(flat: Array, index: NDArray[np.int64]) -> Floats:
    taken = namespace(flat).take(flat, asarray_like(index, flat), axis=0)
    return to_host(taken).astype(np.float64)
