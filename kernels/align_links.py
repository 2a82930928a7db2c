"""Links between views: where one view's content may lie in another, best guesses first.

Each view is turned into the aligned frame about its own centre, once; a link says where the
content of the moving view lies against the reference's, however far off. Since the correlation is
divided by what noise would give in the overlap, a peak counts as much at the field's edge as in its
middle. Several peaks are kept, so that `kernels.align_closure` can choose what closes loops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from kernels.align_coarse import BAND, PairShift, band_pass, coverage, stretch
from kernels.arrays import Array, asarray_like, namespace, to_host
from kernels.correlate import cross_correlation, find_peak
from kernels.fourier import Shape, irfft2, pad, rfft2
from kernels.geometry import View
from kernels.resample import resample, sampling

Floats = NDArray[np.float64]
Guess = tuple[float, float, float]  # dy, dx, radius

CANDIDATES = 5  # peaks of a pair that are kept; the last tells how high false ones are
APART = 0.03  # of the shorter side: peaks closer than this are one
LEAST_OVERLAP = 0.2  # of the field: displacements with less overlap are not looked at
PADDING = 1.4  # of a side: beyond that much minus a side a displacement would come back
MAGNIFICATIONS = (0.98, 0.99, 1.0, 1.01, 1.02)  # that are tried
COARSE = 8  # pixels per sample of the overlap, which is smooth


@dataclass(frozen=True)
class CentredView:
    """A view turned into the aligned frame about its own centre.

    Attributes
    ----------
    image : (ny, nx) float32
        Mean 0 and standard deviation 1 where the raw image covers the frame, faded to 0 outside.
    matrix, offset : (2, 2) and (2,) float64
        Aligned indices (y, x) to those of the raw image.
    shape : (ny, nx)
        Of the raw image.
    tilt : float
        Degrees.
    """

    image: Array
    matrix: Floats
    offset: Floats
    shape: Shape
    tilt: float


def centred_view(image: Array, view: View, pixel_size: float, out_shape: Shape) -> CentredView:
    """Level, turn and taper one view, leaving aside how it is shifted so far.

    Parameters
    ----------
    image : (ny, nx) float32
    view : View
    pixel_size : float
        Of `image` [Å].
    out_shape : (ny, nx)
        Of the aligned frame.
    """
    xp = namespace(image)
    shape = (int(image.shape[0]), int(image.shape[1]))
    centred = replace(view, shift_x=0.0, shift_y=0.0)
    matrix, offset = sampling(centred, pixel_size, shape, out_shape)
    level = image - xp.mean(image)
    level = level / (float(xp.std(level)) or 1.0)
    turned = resample(level, matrix, offset, out_shape, fill=0.0)
    turned = turned * coverage(matrix, offset, shape, out_shape, image)
    return CentredView(turned, matrix, offset, shape, view.tilt)


def stretch_matrix(length: int, ratio: float) -> NDArray[np.float32]:
    """Return what stretches the rows of an image about their centre: ``image @ matrix``.

    Pixel ix takes its value from ``ratio · (ix − n // 2) + n // 2``, band-limited (Dirichlet's
    kernel); 0 where that lies outside. (n, n) float32.
    """
    index = np.arange(length, dtype=np.float64)
    places = ratio * (index - length // 2) + length // 2
    distance = places[None, :] - index[:, None]
    # sin π(p − k) = ± sin πp: one sine per column in place of n.
    sines = np.where(index % 2 == 0, 1.0, -1.0)[:, None] * np.sin(np.pi * places)[None, :]
    angle = np.pi / length * distance
    below = np.tan(angle) if length % 2 == 0 else np.sin(angle)
    whole = np.abs(distance) < 1e-6
    kernel = np.where(whole, 1.0, sines / np.where(whole, 1.0, length * below))
    inside = (places >= 0) & (places <= length - 1)
    return np.asarray(np.where(inside[None, :], kernel, 0.0), dtype=np.float32)


def stretched_to(view: CentredView, ratio: float) -> CentredView:
    """Return the view with its content stretched by 1 / `ratio` across the axis."""
    nx = int(view.image.shape[1])
    place = np.array([0.0, (1 - ratio) * (nx // 2)])
    return replace(
        view,
        image=view.image @ asarray_like(stretch_matrix(nx, ratio), view.image),
        matrix=view.matrix @ np.diag([1.0, ratio]),
        offset=view.offset + view.matrix @ place,
    )


def padded_shape(shape: Shape) -> Shape:
    """Return the size in which views are correlated: fast, and a multiple of `COARSE`."""
    ny, nx = (
        COARSE * scipy.fft.next_fast_len(ceil(PADDING * n / COARSE), real=True) for n in shape
    )
    return ny, nx


def link_views(
    views: Mapping[int, CentredView],
    pairs: Sequence[tuple[int, int]],
    band: tuple[float, float, float] = BAND,
    guesses: Sequence[Guess | None] | None = None,
) -> list[tuple[PairShift, ...]]:
    """Correlate pairs of views, the moving one cosine-stretched to its reference.

    Parameters
    ----------
    views : mapping of int to CentredView
        Of one shape.
    pairs : sequence of (reference, moving)
    band : (float, float, float)
        As `kernels.align_coarse.band_pass` takes it.
    guesses : sequence of (dy, dx, radius), optional
        Of each pair: where to look, and how far around [pixels]; None: everywhere.

    Returns
    -------
    list of tuple of PairShift
        Of each pair its highest peaks, the highest first. `confidence` is the height over what
        noise gives in such an overlap, in its standard deviations. Empty where one is blank.

    References
    ----------
    D. N. Mastronarde, J. Struct. Biol. 120:343 (1997), doi:10.1006/jsbi.1997.3919
    """
    found: dict[int, tuple[PairShift, ...]] = {}
    first = next(iter(views.values())).image
    size = padded_shape((int(first.shape[0]), int(first.shape[1])))
    weight = band_pass(size, first, *band)
    expected: tuple[int, Array] | None = None
    for k in sorted(range(len(pairs)), key=lambda k: pairs[k]):
        r, m = pairs[k]
        if expected is None or expected[0] != r:
            expected = (r, rfft2(pad(views[r].image, size, fill=0.0)) * weight)
        moving = stretched_to(views[m], stretch(views[m].tilt) / stretch(views[r].tilt))
        correlation = cross_correlation(expected[1], rfft2(pad(moving.image, size, fill=0.0)), size)
        guess = None if guesses is None else guesses[k]
        noise = overlap_noise(views[r], moving, size)
        found[k] = peaks_of(correlation, noise, guess, APART * min(first.shape))
    return [found[k] for k in range(len(pairs))]


def overlap_noise(reference: CentredView, moving: CentredView, size: Shape) -> Floats:
    """Return the square root of the overlap at each displacement, as a share of the frame.

    Proportional to what noise scatters in a correlation.

    Returns
    -------
    (ny // COARSE, nx // COARSE) float64
        0 where the overlap is below `LEAST_OVERLAP`. Displacements wrapped, from index 0.
    """
    ny, nx = (n // COARSE for n in size)
    windows = []
    for view in (reference, moving):
        inner = tuple(-(-int(n) // COARSE) for n in view.image.shape)
        matrix = view.matrix * COARSE
        offset = view.offset + view.matrix @ np.full(2, (COARSE - 1) / 2)
        like = np.zeros(1, dtype=np.float32)
        windows.append(coverage(matrix, offset, view.shape, (inner[0], inner[1]), like) ** 2)
    spectra = [rfft2(window, (ny, nx)) for window in windows]
    overlap = irfft2(np.conj(spectra[0]) * spectra[1], (ny, nx))
    overlap = overlap / max(1e-12, float(np.sum(windows[0])))
    return np.sqrt(np.where(overlap >= LEAST_OVERLAP, overlap, 0.0))


def peaks_of(
    correlation: Array,
    noise: Floats,
    guess: Guess | None,
    apart: float,
    count: int = CANDIDATES,
) -> tuple[PairShift, ...]:
    """Return the highest peaks of a correlation over its noise.

    Parameters
    ----------
    correlation : (ny, nx)
        Origin at index (0, 0), wrapped.
    noise : (ny // COARSE, nx // COARSE)
        From `overlap_noise`.
    guess
        As in `link_views`.
    apart : float
        Least distance of two peaks [pixels].
    count : int
    """
    values = np.asarray(to_host(correlation), dtype=np.float32)
    ny, nx = values.shape
    scale = np.where(noise > 0, 1 / np.where(noise > 0, noise, 1.0), 0.0).astype(np.float32)
    blocks = values.reshape(noise.shape[0], COARSE, noise.shape[1], COARSE)
    values = (blocks * scale[:, None, :, None]).reshape(ny, nx)
    sample = values[1::5, 2::5]
    sample = sample[np.nonzero(sample)]
    if not sample.size:
        return ()
    middle = float(np.median(sample))
    sigma = 1.4826 * float(np.median(np.abs(sample - middle)))
    if not sigma > 0:
        return ()
    dy = scipy.fft.fftfreq(ny, 1 / ny)
    dx = scipy.fft.fftfreq(nx, 1 / nx)
    searched = values.copy()
    if guess is not None:
        far = (dy - guess[0])[:, None] ** 2 + (dx - guess[1])[None, :] ** 2
        searched[far > guess[2] ** 2] = 0.0
    reach, rim = ceil(apart), np.r_[0:3, -2:0]
    found: list[PairShift] = []
    for _ in range(count):
        iy, ix = divmod(int(np.argmax(searched)), nx)
        if not searched[iy, ix] > 0:
            break
        patch = values[np.ix_((iy + rim) % ny, (ix + rim) % nx)]
        near = find_peak(patch, 0.5)
        height = (float(values[iy, ix]) - middle) / sigma
        found.append(PairShift(float(dy[iy]) + near.dy, float(dx[ix]) + near.dx, height))
        around = np.arange(-reach, reach + 1)
        searched[np.ix_((iy + around) % ny, (ix + around) % nx)] = 0.0
    return tuple(found)


def link_magnifications(
    views: Mapping[int, CentredView],
    pairs: Sequence[tuple[int, int]],
    guesses: Sequence[Guess],
    band: tuple[float, float, float] = BAND,
) -> list[float]:
    """Return by how much the moving view of each pair is larger than its reference.

    Parameters
    ----------
    views, pairs, band
        As in `link_views`.
    guesses : sequence of (dy, dx, radius)
        Of each pair: where its peak lies [pixels].

    Returns
    -------
    list of float
        Within `MAGNIFICATIONS`; 1 where the peak has no maximum there.
    """
    told = []
    for (r, m), guess in zip(pairs, guesses, strict=True):
        heights = []
        for trial in MAGNIFICATIONS:
            image = views[m].image
            rows = asarray_like(stretch_matrix(int(image.shape[0]), trial), image)
            columns = asarray_like(stretch_matrix(int(image.shape[1]), trial), image)
            scaled = replace(views[m], image=rows.T @ image @ columns)
            peaks = link_views({r: views[r], m: scaled}, [(r, m)], band, [guess])[0]
            heights.append(peaks[0].confidence if peaks else 0.0)
        bend, slope, _ = np.polyfit(np.asarray(MAGNIFICATIONS) - 1, heights, 2)
        best = -slope / (2 * bend) if bend < 0 else np.inf
        told.append(1 + float(best) if abs(best) <= MAGNIFICATIONS[-1] - 1 else 1.0)
    return told


def solve_magnifications(
    pairs: Sequence[tuple[int, int]], ratios: Sequence[float], n: int
) -> Floats:
    """Return the magnification of each of `n` views, their median 1, that explains all pairs."""
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    linked = np.unique(ends)
    logs, target = np.zeros(n), np.log(np.asarray(ratios, dtype=np.float64))
    design = np.zeros((len(ends), n))
    design[np.arange(len(ends)), ends[:, 1]] += 1
    design[np.arange(len(ends)), ends[:, 0]] -= 1
    trust = np.ones(len(ends))
    for _ in range(20):  # forgiving pairs that are off
        root = np.sqrt(trust)
        logs = np.linalg.lstsq(design * root[:, None], target * root, rcond=None)[0]
        residual = np.abs(design @ logs - target)
        trust = 1 / (1 + (residual / max(1e-3, 1.5 * float(np.median(residual)))) ** 2)
    logs[linked] -= np.median(logs[linked])
    return np.asarray(np.exp(logs))
