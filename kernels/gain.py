"""Which way a gain reference lies on the frames.

The mean of all raw frames is sensitivity × illumination × what is left of the specimen + noise,
and the sensitivity is one over the gain. All of it is compared in the cosine transform, where
the eight orientations differ by signs and a transposition, and where an uneven beam keeps to a
few terms. Host work: once per data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from kernels.arrays import Array, to_host
from kernels.detector import Flip
from kernels.illumination import drawn_in, illumination, smooth_surface

# Every turn and flip once: a flip after two more quarter turns is the other flip.
ORIENTATIONS: tuple[tuple[int, Flip], ...] = (
    (0, "none"),
    (1, "none"),
    (2, "none"),
    (3, "none"),
    (0, "up-down"),
    (0, "left-right"),
    (1, "up-down"),
    (1, "left-right"),
)
CLEAR = 5.0  # standard errors between the best and the next
LOWEST = 8  # half periods across the frame, below which all terms share one weight

Image = NDArray[np.float32]


@dataclass(frozen=True)
class OrientationScore:
    """How well a gain, turned and flipped, explains the fixed pattern of the frames.

    Attributes
    ----------
    rotation, flip
        As `detector.orient_reference` takes them.
    inverted : bool
        Whether the gain divides the counts instead of multiplying them.
    score : float
        Correlation with the pattern, every spatial frequency weighted by its noise, −1 to 1.
    behind : float
        By how many standard errors it explains less than the best; 0 for the best.
    share : float
        How much of the gain's pattern the frames show: about 1 if raw, 0 if corrected. Below a
        half, to use the gain makes the frames less even than they are.
    """

    rotation: int
    flip: Flip
    inverted: bool
    score: float
    behind: float
    share: float


def canonical(rotation: int, flip: Flip) -> tuple[int, Flip]:
    """Return which of `ORIENTATIONS` a rotation and a flip amount to.

    Raises
    ------
    ValueError
        For another rotation or flip.
    """
    if rotation not in (0, 1, 2, 3) or flip not in ("none", "up-down", "left-right"):
        raise ValueError(
            f"rotation {rotation} and flip {flip!r}: expected 0, 1, 2 or 3 quarter turns and "
            "'none', 'up-down' or 'left-right'"
        )
    if flip != "none" and rotation >= 2:
        return rotation - 2, "left-right" if flip == "up-down" else "up-down"
    return rotation, flip


def rank_orientations(mean_frame: Array, gain: Array) -> tuple[OrientationScore, ...]:
    """Rank the orientations of a gain, as it is and inverted, by the pattern of the frames.

    What a cubic surface can describe counts as illumination and is removed from both. Of the
    rest, each term of the cosine transform counts by its share in the measured power of its
    spatial frequency, so that the pattern decides on every scale where it stands out from the
    counting noise and the specimen. The standard error of a difference is the root sum of its
    squared terms: if a term is as likely to speak for one as for the other orientation, five
    standard errors have odds below 1 : 250 000 whatever the spectrum [1]_, and a few large terms,
    such as of an uneven beam, can never make them.

    Parameters
    ----------
    mean_frame : (ny, nx)
        Mean of many raw frames, best of many movies; less the dark reference if there is one.
    gain : (ny, nx) or (nx, ny)
        As it lies in its file. Pixels that are not finite or not positive do not count.

    Returns
    -------
    tuple of OrientationScore
        Best first; the eight orientations or, when not square, the four that fit, each as
        multiplied and inverted.

    Raises
    ------
    ValueError
        If the gain fits in no orientation, has no positive pixel, or the mean frame is empty.

    References
    ----------
    .. [1] B. Efron, J. Am. Stat. Assoc. 64:1278 (1969): self-normalised symmetric sums.
    """
    mean, given = to_host(mean_frame), to_host(gain)
    fits = {0: given.shape == mean.shape, 1: given.shape == mean.shape[::-1]}
    if not any(fits.values()):
        raise ValueError(
            f"the gain is {given.shape[0]}×{given.shape[1]} pixels, the frames "
            f"{mean.shape[0]}×{mean.shape[1]} (y, x): it fits in no orientation"
        )
    pattern = _cosines(_relative(mean))
    reference = _cosines(_sensitivity(given))
    weight = _weights(pattern)
    whole = _norm(pattern * pattern * weight)
    references = {
        t: np.ascontiguousarray(reference.T) if t else reference for t in (0, 1) if fits[t]
    }
    # Each term's part in the correlation, for the gain as it lies and transposed.
    parts, shown = {}, {}
    for transposed, turned in references.items():
        length = whole * _norm(turned * turned * weight)
        product = pattern * turned
        shown[transposed] = _fine(product) / (_fine(np.square(turned)).sum() or 1)
        product *= weight
        product *= np.float32(1 / length if length > 0 else 0)
        parts[transposed] = product
    sums = {t: _quarters(part) for t, part in parts.items()}
    products = {(t, t): _quarters(np.square(part)) for t, part in parts.items()}
    if len(parts) == 2:
        products[0, 1] = products[1, 0] = _quarters(parts[0] * parts[1])
    candidates = [
        (orientation[0] % 2, sign * _signs(*orientation), sign < 0, orientation)
        for orientation in ORIENTATIONS
        if fits[orientation[0] % 2]
        for sign in (1, -1)
    ]
    scores = [float(np.sum(signs * sums[t])) for t, signs, _, _ in candidates]
    first = int(np.argmax(scores))
    best, best_signs, _, _ = candidates[first]
    ranking = []
    for score, (t, signs, inverted, (rotation, flip)) in zip(scores, candidates, strict=True):
        # The sum of squares of (the best's terms − this one's).
        cross = float(np.sum(best_signs * signs * products[best, t]))
        squares = float(np.sum(products[best, best] + products[t, t])) - 2 * cross
        # Below a thousandth of its length, rounding alone tells one from the other.
        known = squares > 1e-6 * float(np.sum(products[best, best]))
        behind = (scores[first] - score) / sqrt(squares) if known else 0.0
        share = float(np.sum(signs * shown[t]))
        ranking.append(OrientationScore(rotation, flip, inverted, score, behind, share))
    return tuple(sorted(ranking, key=lambda one: (-one.score, one.behind)))


def at_one_sampling(
    mean: NDArray[Any], gain: NDArray[Any], largest: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Bin a mean frame or a gain until they have one size in some orientation, if they can.

    Parameters
    ----------
    mean : (ny, nx)
    gain : (ny, nx)
        As it lies in its file. In a binned pixel those that are positive and finite count.
    largest : int
        Both are binned by two while they have more pixels along a side, and an even number.

    Returns
    -------
    mean, gain
        As they are where one size is not 1, 2 or 4 times the other.
    """
    for factor in (2, 4):
        sizes = (mean.shape, mean.shape[::-1])
        if (gain.shape[0] * factor, gain.shape[1] * factor) in sizes:
            mean = _binned(mean, np.isfinite(mean), factor)
        elif (gain.shape[0] // factor, gain.shape[1] // factor) in sizes and not any(
            n % factor for n in gain.shape
        ):
            gain = _binned(gain, _usable(gain), factor)
    while max(mean.shape) > largest and not any(n % 2 for n in (*mean.shape, *gain.shape)):
        mean = _binned(mean, np.isfinite(mean), 2)
        gain = _binned(gain, _usable(gain), 2)
    return mean, gain


def _usable(gain: NDArray[Any]) -> NDArray[np.bool_]:
    return np.isfinite(gain) & (gain > 0)


def _binned(values: NDArray[Any], good: NDArray[np.bool_], factor: int) -> Image:
    """Return the means of the good values of blocks, 0 where there are none."""
    total = np.zeros([n // factor for n in values.shape], np.float32)
    number = np.zeros(total.shape, np.float32)
    for y in range(factor):
        for x in range(factor):
            part = (slice(y, None, factor), slice(x, None, factor))
            np.add(total, values[part], out=total, where=good[part], casting="unsafe")
            number += good[part]
    return np.asarray(total / np.maximum(number, 1), dtype=np.float32)


def lead(ranking: tuple[OrientationScore, ...]) -> float:
    """Return by how many standard errors the best is ahead of whatever is nearest to it."""
    return min(one.behind for one in ranking[1:])


def _relative(mean: NDArray[np.floating]) -> Image:
    """Return how far each pixel is from the illumination, relative to it."""
    values = mean.astype(np.float32)
    good = np.isfinite(values)
    if not (good.any() and np.mean(values[good], dtype=np.float64) > 0):
        raise ValueError("the mean frame holds no electrons, expected a positive mean")
    return drawn_in(values / illumination(values, good) - 1, good)


def _sensitivity(gain: NDArray[np.floating]) -> Image:
    """Return −log(gain) without its smooth part; 0 where the gain says nothing."""
    values = gain.astype(np.float32)
    good = _usable(values)
    if not good.any():
        raise ValueError("the gain has no positive pixel, expected sensitivities around 1")
    values = -np.log(np.where(good, values, np.float32(1)))
    values = np.where(good, values - np.mean(values[good]), np.float32(0))
    return drawn_in(values - smooth_surface(values, good), good)


def _cosines(image: Image) -> Image:
    transform = scipy.fft.dctn(image, norm="ortho")
    transform[0, 0] = 0
    return transform


def _signs(rotation: int, flip: Flip) -> NDArray[np.float64]:
    """Return how turning changes the signs of even and odd terms, after any transposition."""
    # To reverse an axis changes the sign of every other term.
    y = -1 if (rotation in (2, 3)) != (flip == "up-down") else 1
    x = -1 if (rotation in (1, 2)) != (flip == "left-right") else 1
    return np.array([[1.0, x], [y, y * x]])


def _quarters(image: Image) -> NDArray[np.float64]:
    """Return the sums over terms of even and odd order (y, x)."""
    parts = [[image[y::2, x::2] for x in (0, 1)] for y in (0, 1)]
    return np.array([[np.sum(part, dtype=np.float64) for part in row] for row in parts])


def _fine(image: Image) -> NDArray[np.float64]:
    """Return `_quarters` without the lowest terms, where beam and specimen are strong."""
    return _quarters(image) - _quarters(image[: 2 * LOWEST, : 2 * LOWEST])


def _weights(cosines: Image) -> Image:
    """Return 1 / power of each term's neighbours in frequency: axes apart, by half octaves."""
    ny, nx = cosines.shape
    size = max(ny, nx)
    octaves = 2 * int(np.log2(2 * size / LOWEST) + 2)
    bands = np.empty(cosines.shape, np.int8)
    for y in range(ny):
        radius = np.hypot(y / ny, np.arange(nx) / nx) * (size / LOWEST)
        bands[y] = 1 + np.maximum(-1, np.floor(2 * np.log2(np.maximum(radius, 0.5))))
    # Rows and columns of a detector are brighter or darker as a whole; few terms hold that.
    bands[0, 1:] = octaves + bands[0, 1:] // 2
    bands[1:, 0] = octaves + octaves // 2 + bands[1:, 0] // 2
    power = np.zeros(2 * octaves + 1)
    number = np.zeros(2 * octaves + 1)
    for y in range(ny):
        row = np.square(cosines[y], dtype=np.float64)
        power += np.bincount(bands[y], weights=row, minlength=len(power))
        number += np.bincount(bands[y], minlength=len(power))
    power /= np.maximum(number, 1)
    inverse = np.where(power > 1e-12 * power.max(), 1 / np.maximum(power, 1e-30), 0)
    return inverse.astype(np.float32)[bands]


def _norm(squares: Image) -> float:
    return sqrt(float(np.sum(squares, dtype=np.float64)))
