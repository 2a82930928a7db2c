"""What the views of a series say of each other's spots.

A defect of the detector stays at one place of it through the views. A feature of the specimen
is seen in the neighbouring views, too, where the specimen around it is seen. An X-ray is alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from kernels.xray_scan import Flags, Integers
from kernels.xray_spots import Spots

FEWEST_VIEWS = 3  # that show a defect
SHARE = 0.25  # of the views that show a defect, at least
UNMISTAKABLE = 15.0  # standard deviations: no specimen is that bright
ALIKE = (0.65, 1.6)  # of a spot's height, that a counterpart may have
COUNTERPARTS = 2  # views that must show the same spot
COINCIDENCE = 1e-3  # chance, at most, of all its counterparts to be where they are
REACH = 2  # views on both sides that are asked
SEARCH = 0.1  # of the image, that the specimen may be displaced from view to view
TOLERANCE = 0.018  # of the image, and view apart, within which a counterpart is looked for
REDUCED = 256  # pixels of the longer side of views that are matched
PATCH = 64  # of these pixels, around a spot
NEARBY = 8  # of these pixels, that a spot's surroundings may be displaced beyond the whole view
BAND = (1.5, 12.0)  # of these pixels: what is smoother or finer does not count

Image = NDArray[np.float32]


def find_defects(views: Sequence[Spots]) -> Integers:
    """Return the flat indices of pixels that stand out in the same sense in many views.

    Parameters
    ----------
    views : sequence of Spots
        Of views that are used.

    Returns
    -------
    (n,) int64
        Sorted.
    """
    needed = max(FEWEST_VIEWS, int(np.ceil(SHARE * len(views))))
    defects = []
    for bright in (True, False):
        pixels = [view.chosen(view.bright == bright).pixels for view in views]
        everywhere = np.concatenate([np.empty(0, dtype=np.int64), *pixels])
        places, counts = np.unique(everywhere, return_counts=True)
        defects.append(places[counts >= needed])
    return np.unique(np.concatenate(defects))


def neighbours(view: int, views: Sequence[int]) -> dict[int, int]:
    """Return which of `views`, sorted by tilt, are asked about one, and how far apart they are."""
    place = views.index(view)
    return {
        views[k]: abs(k - place)
        for k in range(max(0, place - REACH), min(len(views), place + REACH + 1))
        if k != place
    }


def doubtful(
    views: Mapping[int, Spots], shape: tuple[int, int], defects: Integers
) -> dict[int, list[int]]:
    """Return the hits of each view that may be of the specimen, by their places in its spots.

    They are low enough, and neighbours have spots as high within the reach of the specimen's
    displacement.

    Parameters
    ----------
    views : mapping of int to Spots
        View → spots, in the order of tilt.
    shape : (int, int)
        Of the images [pixels].
    defects : (n,) int64
        Pixels that are no specimen.
    """
    reach = (SEARCH + REACH * TOLERANCE) * max(shape)
    found: dict[int, list[int]] = {}
    for view, spots in views.items():
        asked = neighbours(view, list(views))
        low = spots.hit & (spots.height < UNMISTAKABLE) & ~touched(spots, defects)
        for k in np.flatnonzero(low):
            near = [
                _counterparts(spots, int(k), views[j], (0.0, 0.0), reach, shape[1], defects)
                for j in asked
            ]
            if sum(bool(part) for part in near) >= COUNTERPARTS:
                found.setdefault(view, []).append(int(k))
    return found


def match(
    hit: Spots,
    index: int,
    other: Spots,
    images: tuple[Image, Image],
    whole: tuple[int, int],
    apart: int,
    defects: Integers,
    width: int,
    factor: float,
) -> tuple[list[int], float]:
    """Return the spots of a neighbour that are where the specimen around a hit is seen in it.

    With them comes the chance that one of its spots would be there if they were anywhere.

    Parameters
    ----------
    hit, other : Spots
        Of the view and of its neighbour.
    index : int
        Of the hit in its view.
    images : 2 arrays (ny, nx) float32
        The two views, reduced by `reduce_view`, hits and defects filled.
    whole : (int, int)
        Their `displacement`.
    apart : int
        How many views apart they are: the specimen's depth displaces by as much more.
    defects : (n,) int64
        Pixels that are no specimen.
    width : int
        Of the whole images [pixels].
    factor : float
        By which they are reduced.
    """
    place = np.array(np.divmod(hit.peak[index], width)) / factor
    displaced = _displacement(images, place, whole)
    if displaced is None:
        return [], 1.0
    shift = displaced[0] * factor, displaced[1] * factor
    tolerance = apart * TOLERANCE * factor * max(images[0].shape)
    same = _counterparts(hit, index, other, shift, tolerance, width, defects)
    alike = _counterparts(hit, index, other, shift, np.inf, width, defects)
    area = np.pi * tolerance**2 / (factor**2 * images[0].size)
    return same, min(1.0, len(alike) * area)


def of_the_specimen(
    candidates: Mapping[tuple[int, int], Mapping[int, tuple[Sequence[int], float]]],
    hits: Mapping[int, Flags],
) -> set[tuple[int, int]]:
    """Return which candidates (view, spot) are seen in enough other views.

    A counterpart counts if it stays in its view: a weak spot, or a hit that is itself of the
    specimen. So the judgement is the same when everything else has been erased.

    Parameters
    ----------
    candidates : mapping
        (view, spot) → neighbour → its spots that are counterparts, and their chance.
    hits : mapping of int to (spots,) bool
        View → which of its spots are hits.
    """
    kept = set(candidates)
    while True:
        stays = set()
        for key in kept:
            chances = [
                chance
                for j, (spots, chance) in candidates[key].items()
                if any(not hits[j][k] or (j, k) in kept for k in spots)
            ]
            if len(chances) >= COUNTERPARTS and np.prod(chances) < COINCIDENCE:
                stays.add(key)
        if stays == kept:
            return kept
        kept = stays


def reduce_view(image: Image) -> tuple[Image, float]:
    """Return a view reduced to at most 256 pixels and filtered, and the factor."""
    factor = -(-max(image.shape) // REDUCED)
    ny, nx = (n // factor for n in image.shape)
    blocks = image[: ny * factor, : nx * factor].reshape(ny, factor, nx, factor)
    small = blocks.mean(axis=(1, 3), dtype=np.float32)
    fine, smooth = (ndimage.gaussian_filter(small, width, mode="nearest") for width in BAND)
    return fine - smooth, float(factor)


def displacement(images: tuple[Image, Image]) -> tuple[int, int]:
    """Return by how many pixels the whole of the second reduced view is displaced."""
    spectra = [fft.rfft2(image) for image in images]
    shape = images[0].shape
    correlation = fft.irfft2(np.conj(spectra[0]) * spectra[1], shape)
    reach = int(SEARCH * max(shape))
    for axis, n in enumerate(shape):
        far = np.abs(fft.fftfreq(n, 1 / n)) > reach
        correlation[(slice(None),) * axis + (far,)] = -np.inf
    y, x = np.unravel_index(int(np.argmax(correlation)), shape)
    return (int(y) + shape[0] // 2) % shape[0] - shape[0] // 2, (int(x) + shape[1] // 2) % shape[
        1
    ] - shape[1] // 2


def touched(spots: Spots, defects: Integers) -> Flags:
    """Tell which spots have a pixel of a defect."""
    bad = np.isin(spots.pixels, defects)
    return np.array(
        [bad[a:b].any() for a, b in zip(spots.first[:-1], spots.first[1:], strict=True)],
        dtype=np.bool_,
    )


def _counterparts(
    spots: Spots,
    index: int,
    other: Spots,
    shift: tuple[float, float],
    reach: float,
    width: int,
    defects: Integers,
) -> list[int]:
    """Return the bright spots of `other` about as high, within `reach` of where one is shifted."""
    y, x = np.divmod(spots.peak[index], width)
    there = np.divmod(other.peak, width)
    near = np.hypot(there[0] - y - shift[0], there[1] - x - shift[1]) <= reach
    ratio = other.height / spots.height[index]
    near &= other.bright & (ratio >= ALIKE[0]) & (ratio <= ALIKE[1])
    if len(defects) and near.any():
        near &= ~touched(other, defects)
    return [int(k) for k in np.flatnonzero(near)]


def _displacement(
    images: tuple[Image, Image], place: NDArray[np.float64], guess: tuple[int, int]
) -> tuple[int, int] | None:
    """Return by how many pixels what is at `place` in one image is displaced in the other."""
    here, there = images
    size = tuple(min(PATCH, n) for n in here.shape)
    corner = [
        int(np.clip(round(p - s / 2), 0, n - s))
        for p, s, n in zip(place, size, here.shape, strict=True)
    ]
    low = [max(0, c + g - NEARBY) for c, g in zip(corner, guess, strict=True)]
    high = [
        min(n, c + g + s + NEARBY)
        for c, g, s, n in zip(corner, guess, size, there.shape, strict=True)
    ]
    if any(h - b < s for h, b, s in zip(high, low, size, strict=True)):
        return None  # it is not in the other view
    window = np.outer(*(np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in size))
    patch = here[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]
    patch = (patch - (patch * window).sum() / window.sum()) * window
    region = there[low[0] : high[0], low[1] : high[1]]
    if not patch.any() or not region.any():
        return None
    windows = np.lib.stride_tricks.sliding_window_view(region, size)
    energy = np.einsum("ijkl,kl->ij", windows**2, window**2)
    agreement = np.einsum("ijkl,kl->ij", windows, patch) / np.sqrt(energy + 1e-30)
    row, column = np.unravel_index(int(np.argmax(agreement)), agreement.shape)
    return int(row) + low[0] - corner[0], int(column) + low[1] - corner[1]
