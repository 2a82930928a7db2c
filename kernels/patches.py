"""Patches: where columns of the specimen appear in each view, measured without markers.

The views make a volume (`kernels.matching_reference`), undone by what is known of the specimen's
deformation. For every patch, the dense part of a column of it is projected as each view should
see it, with that view's own share taken out, and correlated with the view. The residual
displacement and its standard error become observations of a point, `kernels.tracks`: the middle
of the column's dense matter.

The standard error follows from the correlation's curvature and from the spectrum of what in the
view is not the column. Where the column shows too little, there is no observation.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from kernels.arrays import Array, to_host
from kernels.deformation import Deformation, seen_displacements
from kernels.fourier import fast_size, rfft2
from kernels.geometry import View, raw_from_aligned, tilted
from kernels.matching_reference import (
    DENSE,
    Bench,
    feature_of,
    lay_bench,
    prepare_on,
    spread_of,
)
from kernels.patch_rays import Column, Image, Rays, dense_voxels, project_column, smear_planes
from kernels.tracks import Tracks

# A peak that stands out by less, in standard deviations of the correlation, is none.
LEAST_SHARPNESS = 5.0
# Share of a column's projection that a view must show.
LEAST_COVER = 0.6
# Errors below this are not believed: interpolation, and matter that moves within a patch [Å].
FLOOR = 0.1

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Patched:
    """Patches measured in a series.

    Attributes
    ----------
    tracks : Tracks
        Observed places of the patches' points in the raw views.
    points : (n_points, 3) float64
        X, Y, Z of the middle of each column's dense matter [Å]; NaN for a patch without.
    residuals : (m, 2) float64
        Of each observation: how far in x′, y′ from where views and deformation put it [Å].
    scores : (n_views, n_points) float64
        Normalised correlation, 0 where not observed.
    """

    tracks: Tracks
    points: Floats
    residuals: Floats
    scores: Floats


def patch_grid(field: tuple[float, float], counts: tuple[int, int]) -> Floats:
    """Return centres X, Y [Å] of counts (nx, ny) cells that share a field (x, y) [Å]."""
    axes = [
        (np.arange(n) + 0.5) * length / n - length / 2
        for length, n in zip(field, counts, strict=True)
    ]
    x, y = np.meshgrid(*axes, indexing="xy")
    return np.column_stack([x.ravel(), y.ravel()])


def measure_patches(
    images: Array,
    views: Sequence[View],
    pixel_size: float,
    used: Sequence[bool],
    centres: Floats,
    size: tuple[float, float],
    thickness: float,
    deformation: Deformation | None = None,
    times: Sequence[float] | None = None,
    max_shift: float = 120.0,
    threads: int = 1,
) -> Patched:
    """Find every patch in every used view.

    Parameters
    ----------
    images : (n, ny, nx) float32
        Raw views, binned to a pixel of about 10 Å.
    views : sequence of View, n long
        Good to about 50 Å; x-axis tilt is not regarded.
    pixel_size : float
        Of `images` [Å].
    used : (n,)
    centres : (n_points, 2)
        X, Y of the patches [Å].
    size : (float, float)
        Full width of the patches at half their weight, along X and Y [Å].
    thickness : float
        Depth of the volume [Å].
    deformation : Deformation, optional
        What is known of it: measured is what remains.
    times : (n,), optional
        Of the views, 0 to 1; needed with `deformation`.
    max_shift : float
        Largest residual that is looked for [Å].
    threads : int
        The result does not depend on it.

    Raises
    ------
    ValueError
        If the numbers of images, views and flags differ, or fewer than 3 views are used.
    """
    bench = lay_bench(images, views, pixel_size, used, thickness)
    spectra, covered, features = {}, {}, {}
    for i in bench.used:
        prepared = prepare_on(images[i, ...], views[i], bench)
        spectrum = rfft2(prepared.image)
        features[i] = to_host(feature_of(spectrum, bench))
        spectra[i] = to_host(spectrum * bench.weight * bench.weight)
        covered[i] = to_host(prepared.image) != 0
    rays = {i: _rays(views[i], bench, deformation, times[i] if times else 0.0) for i in bench.used}
    columns = [_column(centre, size, bench) for centre in centres]
    nz, nx, ny = bench.volume_shape
    with ThreadPoolExecutor(threads) as pool:
        volume = np.zeros((nz, nx, ny), np.float32)
        edges = np.linspace(0, nz, threads + 1).astype(int)

        def smear(part: int) -> None:
            for i in bench.used:
                smear_planes(features[i], rays[i], edges[part], edges[part + 1], volume)

        list(pool.map(smear, range(threads)))
        count = len(bench.used) - 1
        threshold = DENSE * spread_of(volume) / count

        def match(i: int) -> list[_Match | None]:
            view = scipy.fft.irfft2(spectra[i], bench.shape)
            dense = dense_voxels(volume, features[i], rays[i], 1 / count, threshold)
            found = []
            for column in columns:
                image, centre = project_column(dense, column, features[i].shape)
                found.append(_match(-image.T, centre, view, covered[i], max_shift / pixel_size))
            return found

        matches = dict(zip(bench.used, pool.map(match, bench.used), strict=True))
    return _patched(matches, views, centres, pixel_size, deformation, times)


@dataclass(frozen=True)
class _Match:
    """Residual (dx, dy) and error of one patch in one view [pixels], score, and the centre."""

    dx: float
    dy: float
    sigma: float
    score: float
    centre: Floats


def _rays(view: View, bench: Bench, deformation: Deformation | None, time: float) -> Rays:
    _, nx, ny = bench.volume_shape
    if deformation is None or time == 0:
        none = np.zeros((nx, ny), np.float32)
        return Rays(view.tilt, none, none)
    x, y = np.meshgrid(np.arange(nx) - nx // 2, np.arange(ny) - ny // 2, indexing="ij")
    points = np.column_stack([x.ravel(), y.ravel()]) * bench.pixel_size
    seen = seen_displacements(deformation, points, time, view) / bench.pixel_size
    dx, dy = seen.T.reshape(2, nx, ny).astype(np.float32)
    return Rays(view.tilt, np.ascontiguousarray(dx), np.ascontiguousarray(dy))


def _column(centre: Floats, size: tuple[float, float], bench: Bench) -> Column:
    """Return the voxels around X, Y, weighted by a raised cosine in both directions."""
    parts = []
    for place, width, n in zip(centre, size, bench.volume_shape[1:], strict=True):
        middle, half = place / bench.pixel_size + n // 2, width / bench.pixel_size
        first = max(0, int(np.ceil(middle - half)))
        index = np.arange(first, min(n, int(np.floor(middle + half)) + 1))
        window = 0.5 + 0.5 * np.cos(np.pi * (index - middle) / half)
        parts.append((first, window.astype(np.float32)))
    (x, window_x), (y, window_y) = parts
    return Column(x, y, window_x, window_y)


def _match(
    reference: Image, centre: Floats, view: Image, covered: NDArray[np.bool_], reach: float
) -> _Match | None:
    """Correlate the projection of a column with a filtered view, both (y, x)."""
    rows, columns = (np.flatnonzero(reference.any(axis=axis)) for axis in (1, 0))
    if len(rows) < 3 or len(columns) < 3:
        return None
    margin = int(np.ceil(reach)) + 2
    y0, y1 = rows[0] - margin, rows[-1] + 1 + margin
    x0, x1 = columns[0] - margin, columns[-1] + 1 + margin
    shape = (fast_size(y1 - y0), fast_size(x1 - x0))
    whole = float(np.square(reference).sum())
    expected = _cut(reference * covered, y0, x0, shape)
    if float(np.square(expected).sum()) < LEAST_COVER * whole:
        return None
    found = _cut(view, y0, x0, shape)
    return _peak(expected, found, shape, reach, centre)


def _peak(
    expected: Image, found: Image, shape: tuple[int, int], reach: float, centre: Floats
) -> _Match | None:
    """Find the highest correlation, its place to a fraction of a pixel, and the place's error."""
    ky = 2 * np.pi * scipy.fft.fftfreq(shape[0])[:, None]
    kx = 2 * np.pi * scipy.fft.rfftfreq(shape[1])[None, :]
    r, v = scipy.fft.rfft2(expected), scipy.fft.rfft2(found)
    product = v * np.conj(r)
    correlation = scipy.fft.irfft2(product, shape)
    dy, dx = (scipy.fft.fftfreq(n, 1 / n) for n in shape)
    far = dy[:, None] ** 2 + dx[None, :] ** 2 > reach**2
    iy, ix = np.unravel_index(int(np.argmax(np.where(far, -np.inf, correlation))), shape)
    if far[iy, (ix + 1) % shape[1]] or far[iy, ix - 1] or far[(iy + 1) % shape[0], ix]:
        return None  # at the edge of what is searched
    y, x = float(dy[iy]), float(dx[ix])
    # Newton's steps to the maximum of the band-limited correlation. Its spectrum holds each pair
    # of conjugates once, but for the first column and the last.
    twice = np.full(kx.shape, 2.0)
    twice[:, 0] = 1.0
    if shape[1] % 2 == 0:
        twice[:, -1] = 1.0
    hessian = np.zeros((2, 2))
    for _ in range(4):
        turned = product * np.exp(1j * (ky * y + kx * x)) * twice
        real, slope = turned.real, -turned.imag
        gradient = np.array([(slope * ky).sum(), (slope * kx).sum()])
        cross = -(real * ky * kx).sum()
        hessian = np.array([[-(real * ky**2).sum(), cross], [cross, -(real * kx**2).sum()]])
        if not (hessian[0, 0] < 0 and np.linalg.det(hessian) > 0):
            return None
        step = -np.linalg.solve(hessian, gradient)
        y, x = y + float(step[0]), x + float(step[1])
    if np.hypot(y - dy[iy], x - dx[ix]) > 1.5:
        return None
    moved = r * np.exp(-1j * (ky * y + kx * x))
    power = twice * np.abs(r) ** 2
    height = float((twice * (v * np.conj(moved)).real).sum())
    noise = np.abs(v - height / power.sum() * moved) ** 2
    spread = np.sqrt((power * noise).sum())
    if height < LEAST_SHARPNESS * spread:
        return None
    inner = np.array(
        [
            [(power * noise * ky * ky).sum(), (power * noise * ky * kx).sum()],
            [(power * noise * ky * kx).sum(), (power * noise * kx * kx).sum()],
        ]
    )
    inverse = np.linalg.inv(hessian)
    covariance = inverse @ inner @ inverse
    sigma = float(np.sqrt(np.trace(covariance) / 2))
    score = height / np.sqrt(float(power.sum()) * float((twice * np.abs(v) ** 2).sum()))
    return _Match(x, y, sigma, float(score), centre)


def _cut(image: Image, y0: int, x0: int, shape: tuple[int, int]) -> Image:
    """Return a part of an image (y, x) that begins at (y0, x0), 0 beyond the image."""
    part = np.zeros(shape, np.float32)
    ny, nx = image.shape
    top, left = max(0, y0), max(0, x0)
    bottom, right = min(ny, y0 + shape[0]), min(nx, x0 + shape[1])
    part[top - y0 : bottom - y0, left - x0 : right - x0] = image[top:bottom, left:right]
    return part


def _patched(
    matches: dict[int, list[_Match | None]],
    views: Sequence[View],
    centres: Floats,
    pixel_size: float,
    deformation: Deformation | None,
    times: Sequence[float] | None,
) -> Patched:
    """Turn residuals into observations of one point for each patch."""
    n = len(centres)
    points = np.full((n, 3), np.nan)
    for j in range(n):
        seen = [match.centre for of_view in matches.values() if (match := of_view[j]) is not None]
        if seen:
            points[j] = np.median(np.array(seen)[:, :3], axis=0) * pixel_size
    rows, scores = [], np.zeros((len(views), n))
    for i, of_view in matches.items():
        for j, match in enumerate(of_view):
            if match is None:
                continue
            residual = np.array([match.dx, match.dy]) * pixel_size
            aligned = tilted(points[j][None], views[i])[0, :2] + residual
            if deformation is not None and times is not None:
                aligned += seen_displacements(deformation, points[j][None], times[i], views[i])[0]
            raw = raw_from_aligned(aligned[None], views[i])[0]
            sigma = np.hypot(match.sigma * pixel_size, FLOOR)
            rows.append((i, j, raw, sigma, residual))
            scores[i, j] = match.score
    tracks = Tracks(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 2),
        np.array([row[3] for row in rows], dtype=np.float64),
        len(views),
        n,
    )
    residuals = np.array([row[4] for row in rows], dtype=np.float64).reshape(-1, 2)
    return Patched(tracks, points, residuals, scores)
