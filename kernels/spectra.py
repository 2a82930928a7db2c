"""Power spectra of the tiles of an image, on the grid and averaged over sectors of the circle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.arrays import Array, asarray_like, device, namespace, to_host
from kernels.fourier import fast_size, rfft2

# Rows and columns this near to zero frequency carry the detector's lines, not the specimen.
CROSS = 1.5

NORMAL_MAD = 1.4826  # standard deviation per median absolute deviation of a normal distribution


@dataclass(frozen=True)
class PolarSpectra:
    """Power of each tile, averaged over sectors and rings: the data of a CTF fit, in host memory.

    Attributes
    ----------
    power : (n_tiles, sectors, bins) float32
        Mean power; ring r holds the frequencies nearest to r / box cycles per pixel. The
        sectors divide the half circle counter-clockwise from image +x.
    count : (sectors, bins) float64
        Pixels of the half spectrum in each average; 0 where the power means nothing.
    k2, k2_cos, k2_sin : (sectors, bins) float64
        Means of k², k² cos 2α and k² sin 2α over those pixels, in 1/px².
    box : int
        Side of the spectra in pixels: ring r is r / box cycles per pixel.
    window : int
        Side of the tiles before they were padded to `box`.
    redundancy : float
        Samples per independent one: overlapping tiles and padding repeat what they hold.
    """

    power: NDArray[np.float32]
    count: NDArray[np.float64]
    k2: NDArray[np.float64]
    k2_cos: NDArray[np.float64]
    k2_sin: NDArray[np.float64]
    box: int
    window: int
    redundancy: float


def tile_spectra(
    image: Array, box: int = 512, overlap: float = 0.5
) -> tuple[Array, NDArray[np.float64]]:
    """Return the power spectra of overlapping tiles under a Hann window.

    Parameters
    ----------
    image : (ny, nx) float32
    box
        Side of the square tiles, in pixels, even, no larger than the image.
    overlap
        Least overlap of neighbouring tiles, as a fraction of `box`, 0 to less than 1.

    Returns
    -------
    spectra : (n_tiles, box, box // 2 + 1) float32, where `image` lives
        White noise of variance v has the mean v.
    centres : (n_tiles, 2) float64
        x, y of the tiles' centre pixels from the image's centre pixel, in pixels.

    Raises
    ------
    ValueError
        If the box is odd or exceeds the image, or the overlap is out of range.
    """
    rows, centres = _tiles(image, box, overlap)
    return namespace(image).concat([_power(tiles, box) for tiles in rows]), centres


def _tiles(image: Array, box: int, overlap: float) -> tuple[Iterator[Array], NDArray[np.float64]]:
    """Return rows of tiles (n, box, box) under the window, and the places of all of them."""
    ny, nx = image.shape
    if box % 2 or not 8 <= box <= min(ny, nx):
        raise ValueError(f"box is {box} px, expected an even number from 8 to {min(ny, nx)}")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap is {overlap}, expected 0 to less than 1")
    xp = namespace(image)
    side = hann(box)
    window = np.outer(side, side)
    weight = asarray_like((window / np.sqrt((window**2).sum())).astype(np.float32), image)
    rows, columns = (tile_starts(n, box, overlap) for n in (ny, nx))
    x, y = np.meshgrid(np.asarray(columns) - nx // 2, np.asarray(rows) - ny // 2)

    def row(y: int) -> Array:
        tiles = xp.stack([image[y : y + box, x : x + box] for x in columns])
        return (tiles - xp.mean(tiles, axis=(-2, -1), keepdims=True)) * weight

    return map(row, rows), np.stack([x.ravel(), y.ravel()], axis=1) + float(box // 2)


def _power(tiles: Array, size: int) -> Array:
    """Return the power spectra (n, size, size // 2 + 1) of tiles padded to `size`."""
    xp = namespace(tiles)
    spectra = rfft2(tiles, (size, size))
    return xp.real(spectra) ** 2 + xp.imag(spectra) ** 2


def without_extremes(image: Array, deviations: float = 3.0) -> Array:
    """Clip an image (ny, nx) at so many robust standard deviations around its median.

    Gold absorbs as well as it shifts the phase, and outshines everything else in a spectrum: left
    in, it pulls the defocus of thin rings towards smaller values.
    """
    # A sixteenth of the pixels tells the spread well enough.
    host = to_host(image[::4, ::4])
    middle = float(np.median(host))
    spread = deviations * NORMAL_MAD * float(np.median(np.abs(host - middle)))
    if spread == 0:  # most pixels are equal, as counts of a very low dose
        return image
    return namespace(image).clip(image, middle - spread, middle + spread)


def tile_box(shape: tuple[int, int], pixel_size: float, length: float = 1000.0) -> int:
    """Return a box [px] for `tile_spectra`: about `length` Å, no larger than the image.

    1000 Å is short enough that the defocus varies little within a tile at 60° of tilt, and long
    enough for the rings of 5 µm at 6 Å.
    """
    largest = min(shape) // 2 * 2
    return min(fast_size(length / pixel_size), largest)


def hann(length: int) -> NDArray[np.float64]:
    """Return the periodic Hann window, 1 at index length // 2."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def hann_autocorrelation(lag: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the autocorrelation of the Hann window at `lag`, in window lengths; 1 at lag 0.

    The spectrum of a tile is the true one convolved with the window's, so a fringe of the
    spectrum that comes from this lag is seen with this contrast.
    """
    t = np.clip(np.abs(lag), 0, 1)
    turn = 2 * np.pi * t
    return (1 - t) * (2 + np.cos(turn)) / 3 + np.sin(turn) / (2 * np.pi)


def tile_starts(length: int, box: int, overlap: float) -> list[int]:
    """Return the first indices of tiles that cover an axis evenly, edge to edge."""
    n = ceil((length - box) / (box * (1 - overlap))) + 1
    return [round(start) for start in np.linspace(0, length - box, n).tolist()]


def mean_spectrum(image: Array, scales: ArrayLike, box: int = 512, overlap: float = 0.5) -> Array:
    """Average the spectra of an image's tiles, each sampled so that their rings coincide.

    Parameters
    ----------
    image : (ny, nx) float32
    scales : (n_tiles,)
        Frequency at which a tile is sampled, over that of the average, √(Δf of the view / Δf of
        the tile); 1 leaves a tile as it is. Tiles as of `tile_spectra`.
    box, overlap
        As of `tile_spectra`.

    Returns
    -------
    (box, box // 2 + 1) float32, where `image` lives
        Linear interpolation; frequencies beyond a tile's edge repeat the edge.
    """
    xp = namespace(image)
    rows, centres = _tiles(image, box, overlap)
    factors = np.asarray(scales, dtype=np.float64)
    if factors.shape != (len(centres),):
        raise ValueError(f"{factors.shape} scales for {len(centres)} tiles, expected one for each")
    # Tiles that are sampled alike, to a quarter of a pixel at the edge, are added up first.
    alike = np.round(factors * 2 * box) / (2 * box)
    sums: dict[float, Array] = {}
    tile = 0
    for tiles in rows:
        for spectrum in _each(_power(tiles, box)):
            factor = float(alike[tile])
            sums[factor] = sums[factor] + spectrum if factor in sums else spectrum
            tile += 1
    half = box // 2 + 1
    total = xp.zeros((box, half), dtype=image.dtype, device=device(image))
    signed = np.fft.fftfreq(box, 1 / box)
    for factor, spectrum in sums.items():
        rings = _sample(spectrum, np.clip(signed * factor, -box / 2, box / 2 - 1), 0)
        total = total + _sample(rings, np.minimum(np.arange(half) * factor, half - 1), 1)
    return total / len(factors)


def _sample(tile: Array, positions: NDArray[np.float64], axis: int) -> Array:
    # Linear interpolation of rows or columns at signed positions; negative ones wrap around.
    xp = namespace(tile)
    length = tile.shape[axis]
    floor = np.floor(positions).astype(np.int64)
    rest = (positions - floor).astype(np.float32)
    upper = np.where(rest > 0, floor + 1, floor)
    fraction = asarray_like(rest[:, None] if axis == 0 else rest[None, :], tile)
    low, high = (
        xp.take(tile, asarray_like(index % length, tile), axis=axis) for index in (floor, upper)
    )
    return low + (high - low) * fraction


def polar_spectra(
    image: Array,
    box: int = 512,
    overlap: float = 0.5,
    padding: float = 1.5,
    sectors: int = 12,
    highest: float = 0.5,
) -> tuple[PolarSpectra, NDArray[np.float64]]:
    """Average the power of an image's tiles over rings, cut into sectors.

    Parameters
    ----------
    image : (ny, nx) float32
    box, overlap
        As of `tile_spectra`.
    padding : float
        Side of the transforms in boxes: at 1, rings finer than two pixels would blur.
    sectors : int
        Into which the half circle is cut.
    highest : float
        Frequency up to which the power is wanted, in cycles per pixel.

    Returns
    -------
    polar : PolarSpectra
        In host memory.
    centres : (n_tiles, 2) float64
        As of `tile_spectra`.

    Raises
    ------
    ValueError
        As by `tile_spectra`.
    """
    size = fast_size(box * padding)
    rows, centres = _tiles(image, box, overlap)
    bins = min(size // 2, ceil(highest * size) + 1)
    grid = _ring_grid(size, sectors, bins, CROSS * size / box)
    take, last = asarray_like(grid.order, image), asarray_like(grid.ends, image)
    power = [
        _sums(tile, take, last) / np.maximum(grid.count.ravel(), 1)
        for tiles in rows
        for tile in _each(_power(tiles, size))
    ]
    return PolarSpectra(
        power=np.stack(power).reshape(-1, sectors, bins).astype(np.float32),
        count=grid.count,
        k2=grid.k2,
        k2_cos=grid.k2_cos,
        k2_sin=grid.k2_sin,
        box=size,
        window=box,
        redundancy=len(power) * size**2 / _pixels_covered(image.shape, box, overlap),
    ), centres


def _pixels_covered(shape: tuple[int, ...], box: int, overlap: float) -> float:
    """Return how many pixels seen evenly would tell as much as these with faint margins."""
    total = 1.0
    for length in shape:
        seen = np.zeros(length)
        for start in tile_starts(length, box, overlap):
            seen[start : start + box] += hann(box) ** 2
        total *= seen.sum() ** 2 / (seen**2).sum()
    return float(total)


@dataclass(frozen=True)
class _RingGrid:
    """Which pixels of a half spectrum, flat and in `order`, end each sector's ring at `ends`."""

    order: NDArray[np.int64]
    ends: NDArray[np.int64]
    count: NDArray[np.float64]
    k2: NDArray[np.float64]
    k2_cos: NDArray[np.float64]
    k2_sin: NDArray[np.float64]


@lru_cache(maxsize=4)  # all views of a series have the same
def _ring_grid(size: int, sectors: int, bins: int, lines: float) -> _RingGrid:
    ky, kx = np.fft.fftfreq(size, 1 / size)[:, None], np.arange(size // 2 + 1)[None, :]
    ring = np.rint(np.hypot(ky, kx)).astype(np.int64)
    sector = np.floor(np.arctan2(ky, kx) % np.pi * sectors / np.pi).astype(np.int64) % sectors
    used = (ring < bins) & (np.abs(ky) > lines) & (kx > lines)
    label = np.where(used, sector * bins + ring, sectors * bins).ravel()
    order = np.argsort(label, kind="stable")[: int(used.sum())]
    ends = np.searchsorted(label[order], np.arange(1, sectors * bins + 1))
    count = np.diff(ends, prepend=0)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.bincount(label[order], weights=values.ravel()[order], minlength=sectors * bins)
        return (total / np.maximum(count, 1) / size**2).reshape(sectors, bins)

    return _RingGrid(
        order,
        ends,
        count.reshape(sectors, bins).astype(np.float64),
        mean(kx**2 + ky**2),
        mean(kx**2 - ky**2),
        mean(2 * kx * ky),
    )


def _each(stack: Array) -> Iterator[Array]:
    return (stack[i, ...] for i in range(stack.shape[0]))


def _sums(spectrum: Array, order: Array, ends: Array) -> NDArray[np.float64]:
    """Return the sums of a spectrum's values, taken in `order`, up to each of `ends`."""
    # A difference of running sums is a sum over each ring's sector in every array namespace.
    xp = namespace(spectrum)
    zero = xp.zeros((1,), dtype=xp.float64, device=device(spectrum))
    chosen = xp.take(xp.reshape(spectrum, (-1,)), order)
    running = xp.concat([zero, xp.cumulative_sum(xp.astype(chosen, xp.float64))])
    return np.diff(to_host(xp.take(running, ends)), prepend=0)


def radial_profile(image: Array, box: int = 256) -> NDArray[np.float64]:
    """Return the power of an image over the frequency, averaged over tiles and directions.

    Parameters
    ----------
    image : (ny, nx) float32
    box : int
        Side of the tiles in pixels, even, no larger than the image.

    Returns
    -------
    (box // 2,) float64
        Bin i holds (i + 1/2) / box cycles per pixel; the lines of the detector are left out.
    """
    spectra, _ = tile_spectra(image, box)
    power = to_host(namespace(spectra).mean(spectra, axis=0)).astype(np.float64)
    ky, kx = np.fft.fftfreq(box, 1 / box)[:, None], np.arange(box // 2 + 1)[None, :]
    used = (np.abs(ky) > CROSS) & (kx > CROSS)
    bins = np.minimum(np.hypot(ky, kx).astype(np.intp), box // 2)[used]
    sums = np.bincount(bins, weights=power[used], minlength=box // 2 + 1)
    counts = np.bincount(bins, minlength=box // 2 + 1)
    return np.asarray((sums / np.maximum(counts, 1))[: box // 2])
