"""Planes of equal defocus across a tomogram, orthogonal to the beam, for each view its own.

A voxel's defocus differs from its view's by ``−hand · (z′ − z′_ref)`` (`kernels.geometry`), linear
in the voxel's indices. In units of the planes' distance that is the voxel's *level*: 0 at the
view's own defocus, p on plane p. Each view needs the planes that its volume crosses at that tilt:
few at 0°, more towards the edges of the field at high tilt.

References
----------
.. [1] B. Turoňová et al., J. Struct. Biol. 199:187 (2017): 3-D CTF correction by such planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import floor

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.ctf import wavelength
from kernels.geometry import View, reference_depth, tilt_rotation

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Shape = tuple[int, int, int]

# A voxel on the outermost plane must not ask for one beyond, for rounding.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Planes:
    """Which planes each view of a box has, and the level of every voxel.

    Attributes
    ----------
    step : float
        Distance of planes [Å].
    x, y, z, offset : (n_views,) float64
        Level of a voxel = x · ix + y · iy + z · iz + offset, indices of the whole box.
    first, count : (n_views,) int64
        Planes first … first + count − 1 are those that the box crosses.
    blend : bool
        Whether a voxel takes the two planes around its level, linearly, or the nearest one.
    """

    step: float
    x: Floats
    y: Floats
    z: Floats
    offset: Floats
    first: Counts
    count: Counts
    blend: bool

    def defocus_offsets(self, view: int) -> Floats:
        """Return what the planes of a view add to its defocus, (count,) [Å]."""
        return self.step * (self.first[view] + np.arange(self.count[view], dtype=np.float64))


def automatic_step(resolution: float, voltage: float) -> float:
    """Return the distance d² / 4λ [Å] of planes for a resolution d [Å].

    The largest error of defocus, half of it, is then a quarter of what turns the phase by ½π.
    """
    return resolution**2 / (4 * wavelength(voltage))


def lay_planes(
    views: Sequence[View],
    shape: Shape,
    pixel_size: float,
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
    *,
    step: float = 150.0,
    hand: int = 1,
    midplane: float = 0.0,
    depths: ArrayLike | None = None,
    blend: bool = True,
) -> Planes:
    """Lay the planes of a box.

    Parameters
    ----------
    views : sequence of View
    shape : (nz, ny, nx)
        Of the whole box.
    pixel_size : float
        Of a voxel [Å].
    centre : (X, Y, Z)
        Specimen coordinates of the box's centre voxel (index n // 2) [Å].
    step : float
        Distance of planes [Å].
    hand : {+1, −1}
        As of `kernels.geometry.defocus_offset`.
    midplane : float
        Z of the specimen's mid-plane, to which the views' defoci belong [Å].
    depths : (n_views,), optional
        z′_ref of each view in place of that, as of a specimen that is not level in the box [Å].
    blend : bool

    Raises
    ------
    ValueError
        If the step is not positive, or the hand neither +1 nor −1.
    """
    rows = np.stack([tilt_rotation(view)[2] for view in views])
    if depths is None:
        depths = [reference_depth(view, midplane) for view in views]
    return _planes(
        rows, np.asarray(depths, dtype=np.float64), shape, pixel_size, centre, step, hand, blend
    )


def _planes(
    rows: Floats,
    depths: Floats,
    shape: Shape,
    pixel_size: float,
    centre: tuple[float, float, float],
    step: float,
    hand: int,
    blend: bool,
) -> Planes:
    if not step > 0:
        raise ValueError(f"step of the defocus planes is {step} Å, expected more than 0")
    if hand not in (1, -1):
        raise ValueError(f"hand is {hand}, not +1 or -1")
    slopes = -hand * rows / step  # per Å along X, Y, Z
    nz, ny, nx = shape
    origin = np.asarray(centre) - pixel_size * np.array([nx // 2, ny // 2, nz // 2])
    offset = slopes @ origin + hand * depths / step
    x, y, z = pixel_size * slopes.T
    corners = np.array(list(product((0, nx - 1), (0, ny - 1), (0, nz - 1))), dtype=np.float64)
    levels = corners @ np.stack([x, y, z]) + offset  # (8, n_views)
    low, high = levels.min(axis=0) + ROUNDING, levels.max(axis=0) - ROUNDING
    first = np.floor(low) if blend else np.ceil(low - 0.5)
    last = np.ceil(high) if blend else np.ceil(high - 0.5)
    first, count = first.astype(np.int64), (np.maximum(last, first) - first + 1).astype(np.int64)
    return Planes(step, x, y, z, offset, first, count, blend)


def novactf_planes(
    views: Sequence[View],
    shape: Shape,
    pixel_size: float,
    z_shift: float = 0.0,
    *,
    step: float = 150.0,
    hand: int = 1,
    minimal: bool = False,
) -> Planes:
    """Lay the planes as novaCTF does: as many for all views, defocus of the volume's centre.

    Parameters
    ----------
    views, shape, pixel_size, step, hand
        As of `lay_planes`.
    z_shift : float
        SHIFT along z: how much higher the box's centre is than where the defoci hold, which is
        nearer to focus for hand +1, farther for −1, by that whatever the tilt [Å]. The box's own
        centre is between its voxels, at (n − 1) / 2.
    minimal : bool
        Planes across the thickness alone, novaCTF's MINIMAL.

    Returns
    -------
    Planes
        Nearest planes; N = ⌊T / step⌋, made odd by −1, at a distance of T / N, with T the depth
        of the box along the beam at the tilt where it is deepest.
    """
    nz, _, nx = shape
    tilts = np.radians([view.tilt for view in views])
    extent = np.max(nx * np.abs(np.sin(tilts)) + nz * np.cos(tilts)) * pixel_size
    if minimal:
        extent = nz * pixel_size
    number = max(1, floor(extent / step))
    number -= 1 - number % 2
    width = extent / number
    rows = np.stack([tilt_rotation(View(view.tilt, 0.0))[2] for view in views])
    # The box's centre, z′ = 0, is to have −hand · (0 − z′_ref) = −hand · z_shift.
    depths = np.full(len(views), -z_shift)
    x, y, z = (pixel_size * (n // 2 - (n - 1) / 2) for n in reversed(shape))
    made = _planes(rows, depths, shape, pixel_size, (x, y, z), width, hand, False)
    count = np.full(len(views), number)
    return Planes(width, made.x, made.y, made.z, made.offset, -(count // 2), count, False)
