"""Fits of a movie's motion: to its whole frames, and to patches of them with a smooth field."""

from __future__ import annotations

from math import pi

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import ArrayLike, NDArray

from kernels.arrays import asarray_like, namespace, to_host
from kernels.fourier import edge_window, irfft2, rfft2
from kernels.motion_fit import Motion, fit
from kernels.motion_likelihood import Floats, Weights, cross_power, likelihood_weights
from kernels.motion_spectra import HIGH_PASS, TAPER, Movie, Samples

COARSE_PIXEL = 10.0  # Å
COARSE_B_FACTOR = 3000.0  # Å²
ROUGHNESS = 2.0  # Å: first guess of the second differences of shifts
LOCAL_ROUGHNESS = 0.3  # Å: the same of the field
PATCH_DISTANCE = 230.0  # Å
FEWEST_PATCHES, MOST_PATCHES = 3, 8
HIGHEST_ORDER = 3  # of the polynomials of the field
LONGEST_WAVE = 400.0  # Å, in patches


def field_functions(y: ArrayLike, x: ArrayLike, count: int) -> Floats:
    """Return the functions of a field at places in units of the frame, −0.5 to 0.5.

    Products of Legendre polynomials without a mean over the frame and of mean square one, by
    ascending total order: y, x, then second order, …

    Parameters
    ----------
    y, x : (…)
    count : int
        Of functions: 2, 5, 9, … for orders up to 1, 2, 3, ….

    Returns
    -------
    (…, count) float64
    """
    powers = _powers(count + 1)[1:]
    highest = max(max(pair) for pair in powers)
    size = np.sqrt(2 * np.arange(highest + 1) + 1)
    places = (np.asarray(place, dtype=np.float64) for place in (y, x))
    along = [size * legendre.legvander(2 * v, highest).reshape(*v.shape, -1) for v in places]
    return np.stack([along[0][..., a] * along[1][..., b] for a, b in powers], axis=-1)


def _powers(count: int) -> list[tuple[int, int]]:
    """Return the orders along y and x of the first `count` functions."""
    powers = [(total - b, b) for total in range(count) for b in range(total + 1)]
    return powers[:count]


def fit_frames(movie: Movie, max_drift: float, b_factor: float | None) -> Motion:
    """Place the whole frames: from rest and from two kinds of drift, coarsely, then finely."""
    n = movie.count
    one, order = np.ones((1, 1)), np.zeros(1, dtype=np.intp)
    rest = np.zeros((n, 1, 2))
    widths = np.array([ROUGHNESS])
    if n == 1:
        return Motion(rest, np.zeros(1), widths, 0.0, 0.0)
    coarse = movie.reduced(COARSE_PIXEL)
    samples = coarse.samples()
    weights = _plain_weights(samples)
    drifts = [drift[:, None, :] for drift in coarse.drifts(weights.weight[0], max_drift)]
    tried = [fit(samples, one, order, start, widths, weights) for start in (rest, *drifts)]
    best = max(tried, key=lambda motion: motion.significance)
    return fit(
        movie.samples(), one, order, best.coefficients, best.widths, b_factor=b_factor or 0.0
    )


def _plain_weights(samples: Samples) -> Weights:
    """Return weights for a specimen whose power falls off by a B-factor."""
    k2 = samples.frequency**2
    shape = np.exp(-COARSE_B_FACTOR * k2 / 4) * (1 - np.exp(-k2 * HIGH_PASS**2))
    cross = cross_power(samples.spectra)[0].astype(np.float64)
    amplitude = max(float(cross @ shape / (shape @ shape)), 1e-6)
    return likelihood_weights(samples, amplitude * shape[None, :])


def fit_patches(
    movie: Movie,
    removed: Floats,
    group: int,
    patches: tuple[int, int] | None,
    b_factor: float | None,
    width: float,
) -> Motion:
    """Fit shifts and a field to patches of frames moved back by `removed` (n, 2) [Å].

    Patches take `group` frames at a time. The shifts' second differences are about `width` [Å].
    """
    lengths = [n * pixel for n, pixel in zip(movie.shape, movie.pixel, strict=True)]
    numbers = patches or tuple(
        int(np.clip(round(length / PATCH_DISTANCE), FEWEST_PATCHES, MOST_PATCHES))
        for length in lengths
    )
    samples, functions = _cut(movie, removed, group, (numbers[0], numbers[1]))
    # Six coefficients need more than four patches to differ.
    highest = min(HIGHEST_ORDER, min(numbers))
    orders = np.array([a + b for a, b in _powers((highest + 1) * (highest + 2) // 2)])
    basis = functions[:, : len(orders)]
    start = np.zeros((samples.count, len(orders), 2))
    at = np.stack([removed[i : i + group].mean(axis=0) for i in range(0, len(removed), group)])
    start[:, 0] = at
    first = np.concatenate([[width], np.full(highest, LOCAL_ROUGHNESS)])
    return fit(
        samples,
        basis,
        orders,
        start,
        first,
        b_factor=b_factor or 0.0,
        removed=at - at.mean(axis=0),
    )


def _cut(
    movie: Movie, removed: Floats, group: int, numbers: tuple[int, int]
) -> tuple[Samples, Floats]:
    """Return the samples of overlapping patches, and the functions' means over each."""
    (ys, windows_y), (xs, windows_x) = (
        _windows(n, count) for n, count in zip(movie.shape, numbers, strict=True)
    )
    box = windows_y.shape[1], windows_x.shape[1]
    ky = 2 * pi * np.fft.fftfreq(box[0], movie.pixel[0])[:, None]
    kx = 2 * pi * np.fft.rfftfreq(box[1], movie.pixel[1])[None, :]
    wave = np.hypot(ky, kx)
    limit = pi / max(movie.pixel)
    chosen = ((wave < limit) & (wave > 2 * pi / LONGEST_WAVE) & (kx > 0)).ravel()
    like = movie.spectra[0]
    xp = namespace(like)
    index = asarray_like(np.nonzero(chosen)[0], like)
    band = asarray_like(np.sqrt(movie.band), like)
    window = asarray_like(windows_y[:, None, :, None] * windows_x[None, :, None, :], like)
    spectra = []
    for i in range(0, movie.count, group):
        parts = movie.part(i, i + group).aligned((removed - removed.mean(axis=0))[i : i + group])
        image = irfft2(sum(parts) * band, movie.shape)
        tiles = xp.stack(
            [
                xp.stack([image[y : y + box[0], x : x + box[1]] for x in xs.tolist()])
                for y in ys.tolist()
            ]
        )
        flat = xp.reshape(rfft2(tiles * window), (len(ys) * len(xs), -1))
        spectra.append(xp.take(flat, index, axis=1))
    power = sum(to_host(xp.mean(abs(f) ** 2, axis=1)) for f in spectra) / len(spectra)
    root = asarray_like((1 / np.sqrt(np.maximum(power, 1e-30)))[:, None].astype(np.float32), like)
    # The whole frame's taper is part of the outer windows.
    taper = to_host(edge_window(movie.shape, int(TAPER * min(movie.shape)), like))
    scale, functions = [], []
    for y, wy in zip(ys, windows_y, strict=True):
        for x, wx in zip(xs, windows_x, strict=True):
            seen = (wy[:, None] * wx * taper[y : y + box[0], x : x + box[1]]) ** 2
            scale.append(seen.mean())
            at_y = movie.origin[0] + movie.step[0] * np.arange(y, y + box[0])
            at_x = movie.origin[1] + movie.step[1] * np.arange(x, x + box[1])
            values = field_functions(at_y[:, None], at_x[None, :], 9)
            functions.append([1.0, *np.einsum("yx,yxk->k", seen / seen.sum(), values)])
    waves = np.stack([k.ravel()[chosen] for k in np.broadcast_arrays(ky, kx)])
    samples = Samples(
        [f * root for f in spectra],
        waves.astype(np.float32),
        np.rint(wave.ravel()[chosen] * min(box) * min(movie.pixel) / (2 * pi)).astype(np.intp),
        np.array(scale),
    )
    return samples, np.array(functions)


def _windows(length: int, count: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the starts of `count` windows, and the windows: their squares sum to one."""
    box = 2 * round(length / (count + 1)) if count > 1 else length
    starts = np.round(np.linspace(0, length - box, count)).astype(np.intp)
    centres = starts + box / 2
    place = np.arange(length) + 0.5
    windows = []
    for i, start in enumerate(starts):
        window = np.ones(length)
        if i > 0:
            rise = (place - centres[i - 1]) / (centres[i] - centres[i - 1])
            window = window * np.sin(pi / 2 * np.clip(rise, 0, 1))
        if i < count - 1:
            fall = (place - centres[i]) / (centres[i + 1] - centres[i])
            window = window * np.cos(pi / 2 * np.clip(fall, 0, 1))
        windows.append(window[start : start + box])
    return starts, np.stack(windows).astype(np.float32)
