"""Smooth deformation of the specimen during a series, such as doming under the beam.

A point at (X, Y) moves by ``D(X, Y, t)``, three components that are products of polynomials in
X and Y and of powers of the time t, which is the dose that the specimen has received, scaled to
0 … 1 over the series. View i therefore sees the point displaced, in the aligned frame, by

    (Δx′, Δy′) = first two rows of R_y(θ_i) · R_x(α_i) · D(X, Y, t_i)

(`kernels.geometry`). One set of coefficients so explains all views, whatever their tilt. What
does not depend on X and Y is a shift of the view and left out, and so is what does not depend on
t, which is where the points are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.fourier import Shape
from kernels.geometry import View, midplane_points, raw_from_aligned, tilt_rotation, tilted
from kernels.resample import Field, row_matrix

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Deformation:
    """Coefficients of a deformation.

    Attributes
    ----------
    coefficients : (3, n_space, n_time) float64
        Of X, Y, Z, of `space_powers` and of t¹, t² … [Å].
    half_width : float
        X and Y count in units of it [Å].
    """

    coefficients: Floats
    half_width: float

    @property
    def degree(self) -> int:
        """Highest total power of X and Y."""
        count = self.coefficients.shape[1]
        return next(d for d in range(1, 20) if len(space_powers(d)) == count)


def space_powers(degree: int) -> list[tuple[int, int]]:
    """Return the powers (of X, of Y) up to a total `degree`, but for the constant."""
    return [(n - k, k) for n in range(1, degree + 1) for k in range(n + 1)]


def space_terms(points: ArrayLike, half_width: float, degree: int) -> Floats:
    """Return (n, n_space): the powers of X and Y at points (n, 2 or 3) [Å]."""
    scaled = np.asarray(points, dtype=np.float64)[:, :2] / half_width
    return np.stack([scaled[:, 0] ** a * scaled[:, 1] ** b for a, b in space_powers(degree)], 1)


def time_terms(time: ArrayLike, count: int) -> Floats:
    """Return (n, count): t, t², … at times (n,), 0 to 1."""
    return np.asarray(time, dtype=np.float64)[:, None] ** np.arange(1, count + 1)


def displacements(deformation: Deformation, points: ArrayLike, time: float) -> Floats:
    """Return D (n, 3) [Å] of specimen points (n, 2 or 3) [Å] at one time."""
    space = space_terms(points, deformation.half_width, deformation.degree)
    powers = time_terms([time], deformation.coefficients.shape[2])[0]
    return space @ (deformation.coefficients @ powers).T


def seen_displacements(
    deformation: Deformation, points: ArrayLike, time: float, view: View
) -> Floats:
    """Return what a view sees of D in the aligned frame, (n, 2) as Δx′, Δy′ [Å]."""
    return displacements(deformation, points, time) @ tilt_rotation(view)[:2].T


def field_of_view(
    deformation: Deformation,
    view: View,
    time: float,
    shape: Shape,
    pixel_size: float,
    step: int = 32,
    midplane: float = 0.0,
    *,
    rows: bool = False,
    solved: View | None = None,
) -> Field:
    """Return the displacement that undoes a deformation when a view is resampled.

    Each pixel moves as the specimen's point of the mid-plane seen there does: D does not depend
    on Z, but rays cross several X, so that points off the mid-plane by Z are given the D of a
    point Z·tan θ away. Thick specimens are made in layers, each with its own mid-plane
    (`depth_alike`).

    Parameters
    ----------
    deformation : Deformation
    view : View
    time : float
        Of the view, 0 to 1.
    shape : (ny, nx)
        Of the aligned image.
    pixel_size : float
        Of the aligned image [Å].
    step : int
        Pixels between nodes.
    midplane : float
        Z of the mid-plane [Å], in the frame of `view`.
    rows : bool
        As of `resample.resample_view`.
    solved : View, optional
        The view as the alignment has it, whose frame X, Y and D are in, where `view` is that of a
        specimen turned since, such as a levelled one; by default `view`.

    Returns
    -------
    Field

    Raises
    ------
    ValueError
        If the beam runs along the mid-plane (tilt of 90°).
    """
    y, x = ((np.arange((n - 1) // step + 2) * step - n // 2) * pixel_size for n in shape)
    places = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    to_aligned = row_matrix(view) if rows else np.eye(2)
    points = midplane_points(raw_from_aligned(places @ to_aligned.T, view), view, midplane)
    solved = view if solved is None else solved
    points = tilted(points, view) @ tilt_rotation(solved)  # turned back
    seen = seen_displacements(deformation, points, time, solved) @ np.linalg.inv(to_aligned).T
    nodes = seen[:, ::-1].reshape(len(y), len(x), 2) / pixel_size
    return Field(nodes.astype(np.float32), step)


def depth_alike(deformation: Deformation, views: Sequence[View], error: float) -> float:
    """Return the depth [Å] over which one mid-plane's `field_of_view` serves all planes.

    Parameters
    ----------
    deformation : Deformation
    views : sequence of View
    error : float
        By which planes may be displaced wrongly, root mean square over depth, views and X, Y at
        the end of the series [Å].
    """
    grid = np.linspace(-1, 1, 9) * deformation.half_width
    places = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    step = np.array([0.01 * deformation.half_width, 0.0])
    ends = [displacements(deformation, places + side * step, 1.0) for side in (1, -1)]
    slope = float(np.sqrt(np.square((ends[0] - ends[1]) / (2 * step[0])).sum(axis=1).mean()))
    steep = float(np.sqrt(np.mean([np.tan(np.radians(view.tilt)) ** 2 for view in views])))
    # Planes spread evenly over a depth are off its middle by depth / sqrt 12, rms.
    return error * np.sqrt(12) / max(slope * steep, 1e-9)
