"""Gold beads in one view: dark discs of about one size, by local normalised correlation.

A bead attenuates like a sphere of gold, far more than anything biological. Correlation with its
expected image is normalised by the local mean and deviation, so that thick and thin regions, ice
and edges of carbon do not count for being dark: what is larger than a bead is flat under the
template, what is not round correlates badly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kernels.arrays import Array, asarray_like, namespace, to_host
from kernels.fourier import fast_size, irfft2, pad, rfft2, trim
from kernels.reduce import reduce_image

Floats = NDArray[np.float64]

SAMPLES = 10.0  # pixels per diameter in which beads are looked for
REACH = 0.95  # radius of the template in diameters: the bead, and what surrounds it
EDGE = 0.55  # diameters from the image's edge within which no bead is taken
# Half the path through 10 nm of gold over the mean free path of 150 Å at 300 kV; smaller
# and larger beads differ in depth, which the correlation does not see.
ATTENUATION = 0.335
LEAST_CORRELATION = 0.35


@dataclass(frozen=True)
class Candidates:
    """What may be beads in one view, the most alike first.

    Attributes
    ----------
    xy : (n, 2) float64
        x, y from the image's centre pixel [Å].
    correlation : (n,) float64
        With the expected image of a bead, −1 to 1.
    depth : (n,) float64
        How far the middle lies below the surroundings, as a fraction of the view's mean.
    """

    xy: Floats
    correlation: Floats
    depth: Floats

    def __len__(self) -> int:
        """Return their number."""
        return len(self.correlation)


def bead_profile(radius: Floats, diameter: float) -> Floats:
    """Return the expected depth, 0 to 1, at distances from a bead's centre (one unit for both)."""
    inside = np.clip(1 - (2 * radius / diameter) ** 2, 0, None)
    depth = 1 - np.exp(-2 * ATTENUATION * np.sqrt(inside))
    return depth / (1 - np.exp(-2 * ATTENUATION))


def bead_template(diameter: float, reach: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Return a bead's expected image, dark, and its circular support, both (m, m).

    Parameters
    ----------
    diameter : float
        In pixels.
    reach : float
        Radius of the support [pixels].

    Returns
    -------
    image : (m, m) float64
        Sum 0 and length 1 on the support, 0 outside; centre at index m // 2.
    support : (m, m) bool
    """
    half = int(np.ceil(reach))
    fine = (np.arange((2 * half + 1) * 5) - (5 * half + 2)) / 5
    profile = -bead_profile(np.hypot(fine[:, None], fine[None, :]), diameter)
    size = 2 * half + 1
    image = profile.reshape(size, 5, size, 5).mean(axis=(1, 3))
    image = ndimage.gaussian_filter(image, 0.5)
    steps = np.arange(size) - half
    support = np.hypot(steps[:, None], steps[None, :]) <= reach
    image = np.where(support, image - image[support].mean(), 0.0)
    return image / np.sqrt((image**2).sum()), support


def find_beads(
    image: Array,
    pixel_size: float,
    diameter: float,
    least: float = LEAST_CORRELATION,
    most: int = 250,
) -> Candidates:
    """Find what looks like a bead.

    Parameters
    ----------
    image : (ny, nx) float32
        Matter dark; of positive mean for depths to mean something.
    pixel_size, diameter : float
        In Å.
    least : float
        Correlation that a candidate needs.
    most : int
        Candidates at most, the best ones.
    """
    xp = namespace(image)
    binning = max(1.0, diameter / SAMPLES / pixel_size)
    small = reduce_image(image, binning)
    ny, nx = small.shape
    step = pixel_size * binning
    template, support = bead_template(diameter / step, REACH * diameter / step)
    mean = float(xp.mean(small)) or 1.0
    level = small - mean
    margin = template.shape[0]
    shape = (fast_size(ny + margin), fast_size(nx + margin))
    spectrum = rfft2(pad(level, shape, fill=0.0))
    mask = support / support.sum()
    kernels = np.stack([_centred(k, shape) for k in (template, mask)])
    of_template, of_mask = (rfft2(asarray_like(k, image)) for k in kernels)
    matched = irfft2(spectrum * xp.conj(of_template), shape)
    local = irfft2(spectrum * xp.conj(of_mask), shape)
    square = irfft2(rfft2(pad(level * level, shape, fill=0.0)) * xp.conj(of_mask), shape)
    variance = square - local * local
    floor = 1e-3 * float(xp.mean(level * level)) or 1.0
    variance = xp.where(variance > floor, variance, xp.ones_like(variance) * floor)
    correlation = matched / xp.sqrt(variance * float(support.sum()))
    values, heights = (to_host(trim(a, (ny, nx))) for a in (correlation, matched))
    return _peaks(values, heights, step, diameter, mean, template, least, most)


def _centred(kernel: Floats, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return a kernel in an image of `shape` with its centre at index (0, 0)."""
    out = np.zeros(shape, dtype=np.float32)
    half = kernel.shape[0] // 2
    out[: kernel.shape[0], : kernel.shape[1]] = kernel
    return np.roll(out, (-half, -half), axis=(0, 1))


def _peaks(
    values: NDArray[np.float32],
    heights: NDArray[np.float32],
    step: float,
    diameter: float,
    mean: float,
    template: Floats,
    least: float,
    most: int,
) -> Candidates:
    ny, nx = values.shape
    size = max(3, 2 * round(0.4 * diameter / step) + 1)
    tops = (values == ndimage.maximum_filter(values, size)) & (values >= least)
    edge = round(EDGE * diameter / step)
    inner = np.zeros_like(tops)
    inner[edge : ny - edge, edge : nx - edge] = True
    rows, columns = np.nonzero(tops & inner)
    order = np.argsort(values[rows, columns])[::-1][:most]
    rows, columns = rows[order], columns[order]
    # The place to a fraction of a pixel, by parabolas along both axes.
    places = np.stack([columns, rows], axis=1).astype(np.float64)
    for k, (dy, dx) in enumerate(((0, 1), (1, 0))):
        low, middle, high = (
            values[rows + s * dy, columns + s * dx].astype(np.float64) for s in (-1, 0, 1)
        )
        bend = low - 2 * middle + high
        places[:, k] += np.where(bend < 0, 0.5 * (low - high) / np.where(bend < 0, bend, 1), 0)
    xy = (places - (nx // 2, ny // 2)) * step
    # The template's own range tells how deep a bead of that height is.
    depth = heights[rows, columns] * (template.max() - template.min()) / abs(mean)
    return Candidates(xy, values[rows, columns].astype(np.float64), depth.astype(np.float64))


def bead_boxes(
    image: NDArray[np.float32], pixel_size: float, width: float, places: Floats
) -> NDArray[np.float32]:
    """Return boxes (n, m, m) of `width` [Å] around places (k, 2) [Å] that lie whole in an image."""
    ny, nx = image.shape
    half = round(width / pixel_size / 2)
    middle = np.rint(places / pixel_size).astype(np.int64).reshape(-1, 2) + np.array(
        [nx // 2, ny // 2]
    )
    whole = ((middle >= half) & (middle < np.array([nx, ny]) - half)).all(axis=1)
    steps = np.arange(-half, half + 1)
    rows, columns = middle[whole, 1, None] + steps, middle[whole, 0, None] + steps
    return image[rows[:, :, None], columns[:, None, :]]


def measured_diameter(images: Array, pixel_size: float, nominal: float) -> float | None:
    """Return the beads' diameter [Å], from the mean image of some.

    Parameters
    ----------
    images : (n, m, m) float32
        Boxes with a bead in the middle each, at least twice `nominal` wide.
    pixel_size, nominal : float
        In Å.

    Returns
    -------
    float or None
        Twice the radius at which the rotational mean has risen half-way from its bottom; None
        where it does not rise.
    """
    boxes = np.asarray(to_host(images), dtype=np.float64)
    mean = boxes.mean(axis=0)
    m = mean.shape[0]
    steps = np.arange(m) - m // 2
    radius = np.hypot(steps[:, None], steps[None, :])
    bins = np.arange(0.0, min(m // 2, 1.2 * nominal / pixel_size) + 1)
    which = np.digitize(radius.ravel(), bins + 0.5)
    counts = np.bincount(which, minlength=len(bins) + 1)[: len(bins)]
    sums = np.bincount(which, mean.ravel(), minlength=len(bins) + 1)[: len(bins)]
    profile = sums / np.maximum(counts, 1)
    bottom = profile[: max(2, round(0.15 * nominal / pixel_size))].mean()
    # Surroundings: the fringe just outside is brighter than all else, the rest levels out.
    top = float(np.median(profile[len(bins) // 2 :]))
    if not top > bottom:
        return None
    half = np.flatnonzero(profile > 0.5 * (top + bottom))
    if not len(half) or half[0] == 0:
        return None
    k = half[0]
    share = (0.5 * (top + bottom) - profile[k - 1]) / (profile[k] - profile[k - 1])
    # A sphere of gold is half as deep at 0.96 of its radius.
    at_half = np.sqrt(
        1 - (np.log(1 - 0.5 * (1 - np.exp(-2 * ATTENUATION))) / (2 * ATTENUATION)) ** 2
    )
    return float(2 * (k - 1 + share) * pixel_size / at_half)
