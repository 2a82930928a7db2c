"""How the defocus changes over a view of a flat, tilted specimen, and strips of nearly one defocus.

The defocus is constant along the tilt axis, wherever that lies in the image, and changes linearly
across it. Without a pre-tilt the lines of equal defocus are those of equal x′.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, hypot

import numpy as np
from numpy.typing import NDArray

from kernels.ctf import Ctf
from kernels.fourier import Shape
from kernels.geometry import View, defocus_gradient, image_matrix, raw_from_aligned


@dataclass(frozen=True)
class Slope:
    """How the defocus changes over an image: linearly.

    Attributes
    ----------
    x, y : float
        Change per Å to the right and upwards (increasing row index) [Å/Å].
    middle : float
        Defocus at the centre pixel (index n // 2) less that of the view [Å].
    """

    x: float
    y: float
    middle: float = 0.0

    @property
    def steepness(self) -> float:
        """Change per Å across the strips."""
        return hypot(self.x, self.y)


@dataclass(frozen=True)
class Strips:
    """Which strips an image is cut into.

    Attributes
    ----------
    offsets : (n,) float64
        Defocus of each strip's middle less that of the view, ascending [Å].
    step : float
        Their distance [Å]; without meaning for one strip.
    blend : float
        Share of the distance over which neighbours are blended: 1 all of it, 0 nothing.
    """

    offsets: NDArray[np.float64]
    step: float
    blend: float


def slope_in_raw(view: View, hand: int, pretilt: tuple[float, float] = (0.0, 0.0)) -> Slope:
    """Return how the defocus changes over a raw view, whose centre has the view's own defocus.

    Parameters
    ----------
    view : View
    hand, pretilt
        As of `kernels.geometry.defocus_gradient`.
    """
    x, y = np.linalg.solve(image_matrix(view).T, defocus_gradient(view, hand, pretilt))
    return Slope(float(x), float(y))


def slope_in_aligned(view: View, hand: int, pretilt: tuple[float, float] = (0.0, 0.0)) -> Slope:
    """Return how the defocus changes over an aligned view: the tilt axis is along y.

    The centre pixel shows the specimen's origin, and not what the raw view's centre shows.
    """
    x, y = defocus_gradient(view, hand, pretilt)
    origin = raw_from_aligned([[0.0, 0.0]], view)[0]
    raw = slope_in_raw(view, hand, pretilt)
    return Slope(x, y, float(raw.x * origin[0] + raw.y * origin[1]))


def ctf_in_aligned(ctf: Ctf, view: View) -> Ctf:
    """Return the CTF of a view that is turned by its tilt axis: the astigmatism turns with it."""
    return ctf.turned(-view.axis)


def lay_strips(
    shape: Shape, pixel_size: float, slope: Slope, step: float, blend: float = 1.0
) -> Strips:
    """Lay strips evenly over an image, at a distance of at most `step`.

    Parameters
    ----------
    shape : (ny, nx)
    pixel_size : float
        In Å.
    slope : Slope
    step : float
        Largest distance in defocus [Å].
    blend : float
        Share of the distance over which strips are blended. Without blending the outermost
        strips lie within the image, with it their middles are its corners.

    Raises
    ------
    ValueError
        If the step is not positive, or the share not in [0, 1].
    """
    if not step > 0:
        raise ValueError(f"strips at a distance of {step} Å of defocus, expected more than 0")
    if not 0 <= blend <= 1:
        raise ValueError(f"strips blended over {blend} of their distance, expected 0 to 1")
    ny, nx = shape
    ends = (
        slope.middle
        + pixel_size
        * np.add.outer(
            slope.y * np.array([-(ny // 2), ny - 1 - ny // 2]),
            slope.x * np.array([-(nx // 2), nx - 1 - nx // 2]),
        ).ravel()
    )
    low, width = float(ends.min()), float(np.ptp(ends))
    count = max(1, ceil(width / step + blend - 1e-9))
    if count == 1:
        return Strips(np.array([low + width / 2]), step, blend)
    step = width / (count - blend)
    places = 0.5 * (1 - blend) + np.arange(count, dtype=np.float64)
    return Strips(np.asarray(low + step * places, dtype=np.float64), step, blend)


def step_of_width(width: float, pixel_size: float, slope: Slope) -> float:
    """Return by how much the defocus differs over `width` pixels across the strips [Å].

    Infinite where the image has one defocus.
    """
    return width * pixel_size * slope.steepness or float("inf")
