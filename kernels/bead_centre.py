"""Centres of beads where they are expected: matched filter with the view's own mean bead.

Boxes around the expected places are correlated with the mean of all beads of the view, made
rotationally even, fringes of the CTF included, both divided by the power of the background: the
maximum-likelihood place in coloured noise, whose standard error follows from the same spectra.
The peak is found between pixels by Newton's method on the exact Fourier series.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from kernels.arrays import Array, to_host
from kernels.bead_find import bead_profile
from kernels.reduce import reduce_image

Floats = NDArray[np.float64]

BOX = 3.0  # width of a box in diameters
SAMPLES = 22.0  # pixels per diameter at which beads are centred; finer ones are reduced
EDGE = 0.45  # diameters from the image's edge within which no bead is centred
INNER = 1.15  # diameters around the centre within which the bead and its first fringe lie
OVERLAP = 0.6  # diameters between centres below which two beads spoil each other
ROUNDS = 3  # of mean bead and centres
LEAST_BEADS = 3  # for a mean of their own
NOISE_BOXES = 7  # along each side of the image


@dataclass(frozen=True)
class Centred:
    """Beads of one view, one for each expected place.

    Attributes
    ----------
    xy : (n, 2) float64
        x, y from the image's centre pixel [Å]; NaN where none was found.
    sigma : (n,) float64
        Standard error of each coordinate [Å].
    correlation : (n,) float64
        Of the box with the mean bead, within a diameter.
    strength : (n,) float64
        Height relative to the mean bead: 1 for one as strong.
    significance : (n,) float64
        Height over its standard error.
    """

    xy: Floats
    sigma: Floats
    correlation: Floats
    strength: Floats
    significance: Floats

    @classmethod
    def none(cls, n: int) -> Centred:
        """Return nothing for `n` places."""
        empty = np.full(n, np.nan)
        return cls(np.full((n, 2), np.nan), empty, np.zeros(n), np.zeros(n), np.zeros(n))


def box_size(diameter: float) -> int:
    """Return the width of a box [pixels], even and fast to transform."""
    return 2 * int(scipy.fft.next_fast_len(int(np.ceil(0.5 * BOX * diameter)), True))


def centre_beads(
    image: Array,
    pixel_size: float,
    diameter: float,
    expected: Floats,
    reach: float,
) -> Centred:
    """Find beads near where they are expected.

    Parameters
    ----------
    image : (ny, nx) float32
        Matter dark.
    pixel_size, diameter : float
        In Å.
    expected : (n, 2)
        Places of all beads of the specimen, x and y from the image's centre pixel [Å]; those
        outside of the image are not found, of course.
    reach : float
        How far from there they are looked for [Å].

    Returns
    -------
    Centred
        One for each expected place. What other beads add to a box is taken out of it, and where a
        box leaves the image the bead itself fills it, both as they are known so far; of beads that
        overlap too much none is found.
    """
    binning = max(1.0, diameter / SAMPLES / pixel_size)
    host = np.asarray(to_host(reduce_image(image, binning)), dtype=np.float32)
    step = pixel_size * binning
    ny, nx = host.shape
    size, m = diameter / step, box_size(diameter / step)
    result = Centred.none(len(expected))
    middle = np.array([nx // 2, ny // 2], dtype=np.float64)
    around = expected / step + middle
    inside = ((around >= EDGE * size) & (around <= np.array([nx, ny]) - 1 - EDGE * size)).all(
        axis=1
    )
    chosen = np.flatnonzero(inside)
    if not len(chosen):
        return result
    start = around[chosen]
    boxes = _Boxes.cut(host, start, m)
    radius = _radius(m)
    window, inner = _window(radius), radius <= INNER * size
    noise = _noise(host, m, window, start, size)
    apart = cKDTree(start)
    pairs = apart.query_pairs(0.71 * m + INNER * size, output_type="ndarray").reshape(-1, 2)
    crowded = np.zeros(len(chosen), bool)
    crowded[apart.query_pairs(1.6 * size, output_type="ndarray").ravel()] = True
    fit = _Fit(start - boxes.middle, np.ones(len(chosen)), np.zeros(len(chosen)), 1.0)
    profile = np.interp(np.arange(m), *_first_profile(size))
    found = np.ones(len(chosen), bool)
    for count in range(ROUNDS):
        clean = boxes.cleaned(fit, profile, pairs if count else pairs[:0], found)
        mean = np.interp(radius, np.arange(m), profile)
        fit = _matched(
            scipy.fft.fft2(clean * window), scipy.fft.fft2(mean * window), noise,
            start - boxes.middle, reach / step, fit.places if count else None,
        )  # fmt: skip
        found = np.isfinite(fit.height)
        good = found & ~crowded & ~boxes.cut_off
        good = good if good.sum() >= LEAST_BEADS else found
        if good.sum() < LEAST_BEADS:
            break
        if count < ROUNDS - 1:
            typical = float(np.median(fit.height[good]))
            good &= (fit.height > 0.6 * typical) & (fit.height < 1.6 * typical)
            if good.any():
                change = _mean_profile(clean[good], fit.places[good], radius, inner)
                fit, profile = fit.scaled(profile, change), change
    if not found.any():
        return result
    places = fit.places + boxes.middle
    close = cKDTree(places[found]).query_pairs(OVERLAP * size, output_type="ndarray").ravel()
    found[np.flatnonzero(found)[close]] = False
    kept = chosen[found]
    correlation = _correlation(clean[found], fit.places[found], mean, inner)
    result.xy[kept] = (places[found] - middle) * step
    result.sigma[kept] = step / np.sqrt(np.maximum(fit.curvature[found], 1e-12))
    result.correlation[kept], result.strength[kept] = correlation, fit.height[found]
    result.significance[kept] = fit.height[found] / fit.unit
    return result


@dataclass(frozen=True)
class _Fit:
    """Places in their boxes (n, 2) from the middle, heights, curvatures, a height's error."""

    places: Floats
    height: Floats
    curvature: Floats
    unit: float

    def scaled(self, before: Floats, after: Floats) -> _Fit:
        """Return the fit with heights in units of another profile."""
        share = float(before @ before) / max(float(before @ after), 1e-30)
        return _Fit(self.places, self.height * share, self.curvature, self.unit)


@dataclass(frozen=True)
class _Boxes:
    """Boxes of an image around some places, levels and slopes taken out.

    Attributes
    ----------
    values : (n, m, m)
    outside : (n, m, m) bool
        What lies beyond the image.
    middle : (n, 2)
        x, y in the image of the boxes' index m // 2.
    """

    values: Floats
    outside: NDArray[np.bool_]
    middle: Floats

    @property
    def cut_off(self) -> NDArray[np.bool_]:
        """Which boxes leave the image."""
        return np.array(self.outside.any(axis=(1, 2)))

    @classmethod
    def cut(cls, image: NDArray[np.float32], places: Floats, m: int) -> _Boxes:
        ny, nx = image.shape
        middle = np.rint(places).astype(np.int64)
        steps = np.arange(m) - m // 2
        rows, columns = middle[:, 1, None] + steps, middle[:, 0, None] + steps
        outside = ((rows < 0) | (rows >= ny))[:, :, None] | ((columns < 0) | (columns >= nx))[
            :, None
        ]
        at = np.clip(rows, 0, ny - 1)[:, :, None], np.clip(columns, 0, nx - 1)[:, None, :]
        boxes = image[at].astype(np.float64)
        border = _radius(m) > 0.42 * m
        x, y = steps[None, :] + np.zeros((m, 1)), steps[:, None] + np.zeros((1, m))
        whole = ~outside.any(axis=(1, 2))
        design = np.stack([np.ones(border.sum()), y[border], x[border]], axis=1)
        planes = np.linalg.lstsq(design, boxes[:, border].T, rcond=None)[0].T
        for i in np.flatnonzero(~whole):
            seen = border & ~outside[i]
            some = np.stack([np.ones(seen.sum()), y[seen], x[seen]], axis=1)
            planes[i] = np.linalg.lstsq(some, boxes[i][seen], rcond=None)[0]
        boxes -= planes[:, 0, None, None] + planes[:, 1, None, None] * y
        boxes -= planes[:, 2, None, None] * x
        boxes[outside] = 0.0
        return cls(boxes, outside, middle.astype(np.float64))

    def cleaned(
        self, fit: _Fit, profile: Floats, pairs: NDArray[np.intp], known: NDArray[np.bool_]
    ) -> Floats:
        """Return the boxes without other beads, and with their own beyond the image."""
        m = self.values.shape[-1]
        steps = np.arange(m) - m // 2
        clean = self.values.copy()
        places = fit.places + self.middle

        def drawn(box: int, bead: int) -> Floats:
            x, y = places[bead] - self.middle[box]
            distance = np.hypot(steps[:, None] - y, steps[None, :] - x)
            return fit.height[bead] * np.interp(distance, np.arange(m), profile)

        for a, b in pairs.tolist():
            if known[a]:
                clean[b] -= drawn(b, a)
            if known[b]:
                clean[a] -= drawn(a, b)
        for i in np.flatnonzero(self.cut_off & known).tolist():
            clean[i][self.outside[i]] = drawn(i, i)[self.outside[i]]
        return clean


def _radius(m: int) -> Floats:
    steps = np.arange(m) - m // 2
    return np.hypot(steps[:, None], steps[None, :])


def _window(radius: Floats) -> Floats:
    """Return 1 within, falling to 0 at the border of a box, by the radius."""
    m = radius.shape[0]
    share = np.clip((0.5 * m - radius) / (0.12 * m), 0, 1)
    return 0.5 - 0.5 * np.cos(np.pi * share)


def _first_profile(diameter: float) -> tuple[Floats, Floats]:
    """Return radii [pixels] and the profile of a bead without fringes."""
    radii = np.arange(0.0, diameter + 1, 0.25)
    return radii, -bead_profile(radii, diameter)


def _noise(
    image: NDArray[np.float32], m: int, window: Floats, beads: Floats, diameter: float
) -> Floats:
    """Return the power of the background by frequency (m, m), from boxes without beads."""
    ny, nx = image.shape
    y, x = (np.linspace(m // 2, n - m // 2, NOISE_BOXES).astype(int) for n in (ny, nx))
    places = np.stack([a.ravel() for a in np.meshgrid(x, y)], axis=1).astype(np.float64)
    distance, _ = cKDTree(beads).query(places)
    clear = distance > 0.5 * m + 0.6 * diameter
    if clear.sum() < 8:
        clear = distance >= np.sort(distance)[-8]
    boxes = _Boxes.cut(image, places[clear], m).values
    power = np.abs(scipy.fft.fft2(boxes * window)) ** 2 / np.mean(window**2)
    # The median over boxes forgives what is in a few of them.
    typical = np.median(power, axis=0) / np.log(2)
    ring = np.rint(np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(m, 1 / m)]))).astype(int)
    sums = np.bincount(ring.ravel(), typical.ravel()) / np.bincount(ring.ravel())
    return sums[ring] + 1e-12 * sums.max() + 1e-30


def _matched(
    spectra: NDArray[np.complex128],
    bead: NDArray[np.complex128],
    noise: Floats,
    start: Floats,
    limit: float,
    before: Floats | None,
) -> _Fit:
    """Return the places of highest likelihood within `limit` of `start`, or near those `before`."""
    m = spectra.shape[-1]
    filtered = np.conj(bead) / noise
    norm = float((np.abs(bead) ** 2 / noise).sum())
    # Both have their middle at index m // 2: the phases cancel.
    products = spectra * filtered
    maps = np.fft.fftshift(scipy.fft.ifft2(products).real, axes=(-2, -1)) * m * m
    steps = np.arange(m) - m // 2
    limit = max(limit, 1.0)
    near, radius = (
        (start, limit) if before is None else (np.where(np.isfinite(before), before, start), 2.0)
    )
    far = (steps[None, None, :] - near[:, 0, None, None]) ** 2
    far = far + (steps[None, :, None] - near[:, 1, None, None]) ** 2
    best = np.where(far <= radius**2, maps, -np.inf).reshape(len(maps), -1).argmax(axis=1)
    places = np.stack([steps[best % m], steps[best // m]], axis=1).astype(np.float64)
    k = np.fft.fftfreq(m)
    for _ in range(4):
        wave_x = np.exp(2j * np.pi * k[None, :] * places[:, :1])
        wave_y = np.exp(2j * np.pi * k[None, :] * places[:, 1:])
        moments = [
            np.einsum("nyx,nx->ny", products, wave_x * (2j * np.pi * k) ** p) for p in (0, 1, 2)
        ]

        def of(p: int, q: int, moments: list[Floats] = moments, wave: Floats = wave_y) -> Floats:
            return (moments[p] * wave * (2j * np.pi * k) ** q).sum(axis=1).real

        gx, gy, hxx, hyy, hxy = of(1, 0), of(0, 1), of(2, 0), of(0, 2), of(1, 1)
        determinant = hxx * hyy - hxy**2
        good = (hxx < 0) & (hyy < 0) & (determinant > 0)
        safe = np.where(good, determinant, 1.0)
        move = np.stack([-(hyy * gx - hxy * gy), -(hxx * gy - hxy * gx)], axis=1) / safe[:, None]
        places = places + np.where(good[:, None], np.clip(move, -0.7, 0.7), 0)
    height = of(0, 0) / norm
    good &= (np.hypot(*(places - start).T) <= limit + 0.5) & (height > 0)
    places = np.where(good[:, None], places, start)
    height = np.where(good, height, np.nan)
    # Fisher information of a coordinate of a bead of that height.
    slope = float(((2 * np.pi * k[None, :]) ** 2 * np.abs(bead) ** 2 / noise).sum())
    return _Fit(places, height, slope * np.maximum(height, 1e-6) ** 2, 1 / np.sqrt(norm))


def _mean_profile(
    boxes: Floats, places: Floats, radius: Floats, inner: NDArray[np.bool_]
) -> Floats:
    """Return the radial profile (m,) of boxes moved to their centres, 0 beyond the fringes."""
    m = boxes.shape[-1]
    moved = _moved(boxes, places)
    mean = np.median(moved, axis=0) if len(moved) > 6 else moved.mean(axis=0)
    ring = np.rint(radius).astype(int).ravel()
    profile = np.bincount(ring, mean.ravel())[:m] / np.bincount(ring)[:m]
    profile = np.pad(profile, (0, m - len(profile)))
    end = radius[inner].max()
    outer = slice(int(np.ceil(end)), max(int(0.45 * m), int(np.ceil(end)) + 2))
    profile = profile - profile[outer].mean()
    # Beyond the first fringes lies nothing but noise: a soft end.
    return profile * np.clip((1.25 * end - np.arange(m)) / (0.25 * end), 0, 1)


def _moved(boxes: Floats, places: Floats) -> Floats:
    """Return boxes with what is at `places` brought to the middle."""
    k = np.fft.fftfreq(boxes.shape[-1])
    wave_x = np.exp(2j * np.pi * k[None, :] * places[:, :1])
    wave_y = np.exp(2j * np.pi * k[None, :] * places[:, 1:])
    return scipy.fft.ifft2(scipy.fft.fft2(boxes) * wave_x[:, None, :] * wave_y[:, :, None]).real


def _correlation(boxes: Floats, places: Floats, mean: Floats, inner: NDArray[np.bool_]) -> Floats:
    """Return the correlation of each box with the mean bead, moved to its place."""
    moved = _moved(boxes, places)
    a = moved[:, inner] - moved[:, inner].mean(axis=1, keepdims=True)
    b = mean[inner] - mean[inner].mean()
    return (a @ b) / np.sqrt((a**2).sum(axis=1) * (b**2).sum() + 1e-30)
