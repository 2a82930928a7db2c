"""Clusters of the pixels that are far out, and how each stands out from what is around it."""

from __future__ import annotations

import numba
import numpy as np

from kernels.xray_scan import at_pixel, limit_at

BORDER = 3  # pixels around a cluster that tell what is underneath
DIRECTIONS = 8  # of the half planes in which surroundings are compared
CLIP_BORDER = 5.0  # standard deviations at which the surroundings' pixels are cut: other hits
GIANT_RADIUS = 2.0  # times the usual radius, for hits of overwhelming height
GIANT_PEAK = 12.0  # standard deviations, at least, of their peak
NOTHING, WEAK, HIT = 0, 1, 2


@numba.njit(cache=True, nogil=True)
def confirm(image, found, high, low, before, share):  # type: ignore[no-untyped-def]
    """Return of flat indices those beyond the limits interpolated to them, and their signs."""
    nx = image.shape[1]
    kept, sign, n = np.empty_like(found), np.empty(len(found), np.int8), 0
    for index in found:
        y, x = index // nx, index % nx
        value = image[y, x]
        if value > at_pixel(high, y, x, before[0], before[1], share[0], share[1]):
            kept[n], sign[n] = index, 1
            n += 1
        elif value < at_pixel(low, y, x, before[0], before[1], share[0], share[1]):
            kept[n], sign[n] = index, -1
            n += 1
    return kept[:n], sign[:n]


@numba.njit(cache=True, nogil=True)
def _root(parent, k):  # type: ignore[no-untyped-def]
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = parent[k]
    return k


@numba.njit(cache=True, nogil=True)
def link(index, sign, nx):  # type: ignore[no-untyped-def]
    """Return the cluster of each of sorted flat indices: the position of its first pixel.

    Pixels of one sign are linked to their eight neighbours.
    """
    parent = np.arange(len(index))
    above = 0
    for k in range(len(index)):
        here, x = index[k], index[k] % nx
        if k > 0 and x > 0 and index[k - 1] == here - 1 and sign[k - 1] == sign[k]:
            parent[k] = _root(parent, k - 1)
        while above < k and index[above] < here - nx - 1:
            above += 1
        other = above
        while other < k and index[other] <= here - nx + 1:
            beside = index[other] % nx - x
            if -1 <= beside <= 1 and sign[other] == sign[k]:
                one, two = _root(parent, other), _root(parent, k)
                parent[max(one, two)] = min(one, two)
            other += 1
    for k in range(len(index)):
        parent[k] = _root(parent, k)
    return parent


@numba.njit(cache=True, nogil=True)
def judge(  # type: ignore[no-untyped-def]
    image, index, start, stop, sign, means, spreads, event, before, share, tables, criteria
):
    """Judge the clusters ``index[start:stop]`` of bright (`sign` 1) or dark (−1) pixels.

    Parameters
    ----------
    image : (ny, nx) float32
    index : (n,) int64
        Flat indices, cluster by cluster.
    start, stop : (clusters,) int64
    sign : (clusters,) int8
    means, spreads : (rows, columns) float64
        Of the tiles.
    event : float
        Value of one event, 0 of normal noise.
    before, share
        Of the `Grid`.
    tables : 4 arrays
        Limits of hits, of weak bright spots, of weak dark ones, of hits whose second pixel is
        also beyond that of weak spots.
    criteria : 5 floats
        Least height, least difference, largest radius, least height of the giants' brightest
        quarter, largest radius of dark spots.

    Returns
    -------
    kind : (clusters,) int8
        HIT, WEAK (worth to be compared with other views) or NOTHING.
    height : (clusters,) float64
        Of the farthest pixel over the surroundings [their standard deviations].
    peak : (clusters,) int64
        Flat index of this pixel.
    """
    ny, nx = image.shape
    number = len(start)
    kind, height = np.zeros(number, np.int8), np.zeros(number)
    peaks = np.zeros(number, np.int64)
    least, difference, largest, quarter, dark_radius = criteria
    room = int(2 * GIANT_RADIUS * largest) + 2 * BORDER + 4
    inside, near = np.zeros((room, room), np.int8), np.zeros((room, room), np.int8)
    sums, counts = np.zeros(2 * DIRECTIONS), np.zeros(2 * DIRECTIONS)
    for c in range(number):
        pixels, s = index[start[c] : stop[c]], sign[c]
        top, bottom = pixels[0] // nx, pixels[-1] // nx
        left, right, farthest, second, peak = nx, 0, -np.inf, -np.inf, pixels[0]
        for p in pixels:
            left, right = min(left, p % nx), max(right, p % nx)
            value = s * image[p // nx, p % nx]
            if value > farthest:
                farthest, second, peak = value, farthest, p
            else:
                second = max(second, value)
        if max(bottom - top, right - left) > 2 * GIANT_RADIUS * largest:
            continue
        middle_y, middle_x, radius = (top + bottom) / 2, (left + right) / 2, 0.0
        for p in pixels:
            radius = max(radius, np.hypot(p // nx - middle_y, p % nx - middle_x))
        if radius > GIANT_RADIUS * largest or (s < 0 and radius > dark_radius):
            continue
        y_peak, x_peak = peak // nx, peak % nx
        mean = at_pixel(means, y_peak, x_peak, before[0], before[1], share[0], share[1])
        spread = at_pixel(spreads, y_peak, x_peak, before[0], before[1], share[0], share[1])
        # The surroundings: all within BORDER pixels of the cluster, as a whole and by halves.
        inside[:], near[:] = 0, 0
        for p in pixels:
            u, v = p // nx - top + BORDER, p % nx - left + BORDER
            inside[u, v] = 1
            near[u - BORDER : u + BORDER + 1, v - BORDER : v + BORDER + 1] = 1
        total, count = 0.0, 0
        sums[:], counts[:] = 0, 0
        for u in range(bottom - top + 2 * BORDER + 1):
            y = u + top - BORDER
            if y < 0 or y >= ny:
                continue
            for v in range(right - left + 2 * BORDER + 1):
                x = v + left - BORDER
                if x < 0 or x >= nx or inside[u, v] == 1 or near[u, v] == 0:
                    continue
                value = image[y, x]
                value = min(max(value, mean - CLIP_BORDER * spread), mean + CLIP_BORDER * spread)
                total += value
                count += 1
                for d in range(DIRECTIONS):
                    angle = np.pi * d / DIRECTIONS
                    side = (y - middle_y) * np.sin(angle) + (x - middle_x) * np.cos(angle)
                    if abs(side) > 0.5:
                        half = 2 * d + (1 if side > 0 else 0)
                        sums[half] += value
                        counts[half] += 1
        if count == 0:
            continue
        below = total / count
        alike = s * below  # the half most like the cluster
        for half in range(2 * DIRECTIONS):
            if counts[half] >= 4:
                alike = max(alike, s * sums[half] / counts[half])
        variance = max(spread * spread + event * (below - mean), 0.25 * spread * spread)
        deviation = np.sqrt(variance)
        if not deviation > 0:
            continue
        events = variance / (event * event) if event > 0 else np.inf
        rise = (farthest - s * below) / deviation
        clear = (farthest - alike) / deviation
        height[c], peaks[c] = rise, peak
        weak = limit_at(tables[1] if s > 0 else tables[2], events)
        if rise > weak and clear > weak - 1:
            kind[c] = WEAK
        paired = (second - s * below) / deviation > weak
        limit = limit_at(tables[3] if paired else tables[0], events)
        if s < 0 or rise <= max(least, limit) or clear <= difference:
            continue
        small = radius <= largest or len(pixels) <= 0.5 * np.pi * largest * largest
        if not small:
            values = np.empty(len(pixels))
            for k in range(len(pixels)):
                values[k] = image[pixels[k] // nx, pixels[k] % nx]
            values.sort()
            bright = values[-max(1, len(values) // 4) :].mean()
            small = rise > GIANT_PEAK and bright - below > quarter * deviation
        if small:
            kind[c] = HIT
    return kind, height, peaks
