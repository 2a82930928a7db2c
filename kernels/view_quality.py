"""What one image tells of its quality: brightness in blocks, and how much detail it shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Array, asarray_like, namespace, to_host
from kernels.fourier import Shape, rfft2, taper
from kernels.spectra import without_extremes

SECTORS = 6  # of the directions of waves, 30° each: a drift blurs those along it only
DETAIL = (1 / 50, 1 / 15)  # 1/Å: where a specimen in ice stands out and a drift of 30 Å blurs
HIGHEST_DETAIL = 0.3  # cycles per pixel
NOISE = (0.36, 0.48)  # cycles per pixel: where there is hardly anything but noise
FADE = 0.06  # share of a side over which an image fades towards its edges
BLOCKS = 24  # along the longer side
ROWS = 256  # of a spectrum looked at together


@dataclass(frozen=True)
class Detail:
    """How much stronger the waves of an image are than its noise.

    Attributes
    ----------
    ratios : (SECTORS,) float64
        Power of a wave of `DETAIL` over that of one of `NOISE`, by the wave's direction
        counter-clockwise from x; 1 in an image of nothing but white noise, 0 in an empty one.
    errors : (SECTORS,) float64
        Standard error of that power, in the same unit.
    noise : float
        Variance that the waves of `NOISE` would give to the pixels, if all waves had their power.
    """

    ratios: NDArray[np.float64]
    errors: NDArray[np.float64]
    noise: float


def block_means(image: Array, blocks: int = BLOCKS) -> NDArray[np.float64]:
    """Return the means of an image (ny, nx) in about square blocks, so many along a side.

    Returns
    -------
    (rows, columns) float64
        On the host; `columns` or `rows` is `blocks`, or as many as there are pixels.
    """
    xp = namespace(image)
    ny, nx = image.shape
    side = max(1, max(ny, nx) // blocks)
    rows, columns = max(1, ny // side), max(1, nx // side)
    y, x = (ny - rows * side) // 2, (nx - columns * side) // 2
    if min(ny, nx) < side:
        return np.full((1, 1), float(xp.mean(image)))
    inner = image[y : y + rows * side, x : x + columns * side]
    means = xp.mean(xp.reshape(inner, (rows, side, columns, side)), axis=(1, 3))
    return np.asarray(to_host(means), dtype=np.float64)


def measure_detail(image: Array, pixel_size: float) -> Detail:
    """Compare the power of an image's detail with that of its noise, by direction.

    Parameters
    ----------
    image : (ny, nx) float32
        Not filtered: its noise must be the detector's.
    pixel_size : float
        [Å]

    Raises
    ------
    ValueError
        If the image has not two axes, or the pixel is not positive.
    """
    if image.ndim != 2 or not pixel_size > 0:
        raise ValueError(f"image of {image.ndim} axes, pixel of {pixel_size} Å: expected 2 and > 0")
    xp = namespace(image)
    shape = (int(image.shape[0]), int(image.shape[1]))
    clean = without_extremes(image)
    if float(xp.std(clean)) == 0:  # most pixels have the same few counts
        clean = image
    spectrum = rfft2(taper(clean - xp.mean(clean), max(1, round(FADE * min(shape)))))
    zero = asarray_like(np.float32(0), image)
    sums, counts = np.zeros(SECTORS + 1), np.zeros(SECTORS + 1)
    for part in _parts(shape, float(pixel_size)):
        waves = spectrum[part.rows, : part.sectors.shape[1]]
        power = xp.real(waves) ** 2 + xp.imag(waves) ** 2
        for sector in part.found:
            mask = part.sectors == sector
            counts[sector] += mask.sum()
            chosen = xp.where(asarray_like(mask, image), power, zero)
            sums[sector] += float(xp.sum(chosen, dtype=xp.float64))
    means = sums / np.maximum(counts, 1)
    noise = means[SECTORS]
    if not (noise > 0 and counts.all()):
        return Detail(np.zeros(SECTORS), np.zeros(SECTORS), 0.0)
    ratios = means[:SECTORS] / noise
    # The fade makes neighbouring waves depend on each other.
    alone = np.sqrt(counts[:SECTORS] * (1 - 2 * FADE) ** 2)
    return Detail(ratios, ratios / alone, float(noise) / (shape[0] * shape[1]))


@dataclass(frozen=True)
class _Part:
    """Some rows of a half spectrum: the sector of each wave, SECTORS for noise, −1 for neither."""

    rows: slice
    sectors: NDArray[np.int8]
    found: tuple[int, ...]


@lru_cache(maxsize=2)  # all views of a series have the same
def _parts(shape: Shape, pixel_size: float) -> tuple[_Part, ...]:
    ny, nx = shape
    low = min(DETAIL[0] * pixel_size, 0.3 * HIGHEST_DETAIL)
    high = min(DETAIL[1] * pixel_size, HIGHEST_DETAIL)
    kx = np.fft.rfftfreq(nx)[None, :]
    parts = []
    for start in range(0, ny, ROWS):
        rows = slice(start, min(ny, start + ROWS))
        ky = np.fft.fftfreq(ny)[rows, None]
        k = np.hypot(ky, kx)
        sectors = np.where((k >= NOISE[0]) & (k <= NOISE[1]), SECTORS, -1).astype(np.int8)
        if float(np.abs(ky).min()) <= high:
            direction = np.degrees(np.arctan2(ky, kx)) % 180
            detail = (k >= low) & (k <= high)
            sectors[detail] = np.minimum(direction // (180 / SECTORS), SECTORS - 1)[detail]
        sectors[:, 0] = -1  # the first column is its own mirror image
        found = tuple(int(n) for n in np.unique(sectors) if n >= 0)
        parts.append(_Part(rows, sectors, found))
    return tuple(parts)
