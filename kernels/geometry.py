"""Where a point of the specimen appears in a tilted view, and at which depth.

All conventions of geometry are decided here and nowhere else:

* Specimen coordinates X, Y, Z in Å, right-handed, y along the tilt axis, z towards the
  electron source at zero tilt; the origin is fixed by the alignment.
* Tilted specimen: ``(x′, y′, z′) = R_y(θ) · R_x(α) · (X, Y, Z)``. Without x-axis tilt α::

      x′ =  X cos θ + Z sin θ        y′ = Y        z′ = −X sin θ + Z cos θ

* Raw image: ``(x, y) = R(φ) · m · S · (x′, y′) + shift``, in Å from the centre pixel (index
  n // 2 of each axis), x to the right, y along increasing row index, φ the tilt-axis angle
  counter-clockwise from image +y, m the magnification, ``S = (s cos δ, 0; s sin δ, 1)`` what
  stretch s and skew δ do to the image across the tilt axis (the unit matrix unless solved).
* Underfocus is positive. A point has ``Δf = Δf_view − hand · (z′ − z′_ref)``, z′_ref being the
  depth at which the ray through the raw image's centre meets the specimen's mid-plane.

Checked on IMOD's own solutions of its BBa sample (0.27 px rms; the other sign of Z: 43 px).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import atan2, cos, degrees, hypot, radians, sin

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """How one view looks at the specimen.

    Attributes
    ----------
    tilt : float
        Tilt angle θ [degrees].
    axis : float
        Tilt-axis angle φ, counter-clockwise from image +y [degrees].
    shift_x, shift_y : float
        Where the specimen's origin appears, from the raw image's centre pixel [Å].
    magnification : float
        Size of the raw image relative to the specimen.
    x_tilt : float
        Rotation α of the specimen about x before tilting [degrees].
    stretch : float
        Size s of the raw image across the tilt axis, relative to that along it.
    skew : float
        Angle δ by which the direction across the tilt axis leaves the right angle [degrees].
    """

    tilt: float
    axis: float
    shift_x: float = 0.0
    shift_y: float = 0.0
    magnification: float = 1.0
    x_tilt: float = 0.0
    stretch: float = 1.0
    skew: float = 0.0


def in_plane_rotation(angle: float) -> Matrix:
    """Return the 2×2 matrix that turns (x, y) counter-clockwise by `angle` degrees."""
    c, s = cos(radians(angle)), sin(radians(angle))
    return np.array([[c, -s], [s, c]])


def image_matrix(view: View) -> Matrix:
    """Return the 2×2 matrix that takes aligned (x′, y′) to raw (x, y): R(φ) · m · S."""
    angles = radians(view.axis), radians(view.skew)
    return image_matrices(angles[0], view.magnification, view.stretch, angles[1])


def image_matrices(
    axis: ArrayLike, magnification: ArrayLike, stretch: ArrayLike, skew: ArrayLike
) -> Matrix:
    """Return `image_matrix` (n, 2, 2) of many views, or (2, 2); angles (n,) in radians."""
    c, s = np.cos(axis), np.sin(axis)
    # Across the tilt axis the image is stretched, and turned by the skew.
    along_x, along_y = stretch * np.cos(skew), stretch * np.sin(skew)
    rows = [[c * along_x - s * along_y, -s], [s * along_x + c * along_y, c]]
    return (
        np.moveaxis(np.array(np.broadcast_arrays(*rows[0], *rows[1])), 0, -1).reshape(
            *np.shape(c), 2, 2
        )
        * np.asarray(magnification)[..., None, None]
    )


def view_parts(matrix: ArrayLike) -> tuple[float, float, float, float]:
    """Return axis [degrees], magnification, stretch and skew [degrees]: `image_matrix` undone.

    Raises
    ------
    ValueError
        If the matrix (2, 2) has no inverse or mirrors.
    """
    a = np.asarray(matrix, dtype=np.float64)
    if not np.linalg.det(a) > 0:
        raise ValueError(f"matrix {a.tolist()} is singular or mirrors")
    # The second column is m (−sin φ, cos φ): along the tilt axis nothing is distorted.
    axis = degrees(atan2(-a[0, 1], a[1, 1]))
    magnification = hypot(a[0, 1], a[1, 1])
    across, along = in_plane_rotation(-axis) @ a[:, 0] / magnification
    return axis, magnification, hypot(across, along), degrees(atan2(along, across))


def tilt_rotation(view: View) -> Matrix:
    """Return the 3×3 matrix that takes specimen (X, Y, Z) to tilted (x′, y′, z′)."""
    return tilt_rotations(radians(view.tilt), radians(view.x_tilt))


def tilt_rotations(tilt: ArrayLike, x_tilt: ArrayLike) -> Matrix:
    """Return `tilt_rotation` (n, 3, 3) of many views, or (3, 3); angles (n,) in radians."""
    c, s, ca, sa = np.cos(tilt), np.sin(tilt), np.cos(x_tilt), np.sin(x_tilt)
    none = np.zeros_like(c)
    entries = (c, s * sa, s * ca, none, ca, -sa, -s, c * sa, c * ca)
    return np.moveaxis(np.array(np.broadcast_arrays(*entries)), 0, -1).reshape(*np.shape(c), 3, 3)


def turned_frame(x_tilt: float, angle_offset: float, more: float) -> Matrix:
    """Return the 3×3 matrix that takes X, Y, Z to the frame of views turned further.

    Parameters
    ----------
    x_tilt : float
        Of the views [degrees].
    angle_offset, more : float
        What is added to their tilt angles and to their x-axis tilt [degrees].
    """
    before = tilt_rotation(View(0.0, 0.0, x_tilt=x_tilt))
    after = tilt_rotation(View(angle_offset, 0.0, x_tilt=x_tilt + more))
    return np.asarray(after.T @ before, dtype=np.float64)


def image_derivatives(
    axis: ArrayLike, magnification: ArrayLike, stretch: ArrayLike, skew: ArrayLike
) -> Matrix:
    """Return derivatives (n, 4, 2, 2) of `image_matrices`.

    By axis and skew, per radian, and by the logarithms of magnification and stretch, in the order
    axis, magnification, stretch, skew.
    """
    matrices = image_matrices(axis, magnification, stretch, skew)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    first = np.diag([1.0, 0.0])
    quarter = np.asarray(skew) + np.pi / 2  # a derivative by an angle is a quarter turn
    bent = image_matrices(axis, magnification, stretch, quarter)
    return np.stack([turn @ matrices, matrices, matrices @ first, bent @ first], axis=-3)


def tilt_derivatives(tilt: ArrayLike, x_tilt: ArrayLike) -> Matrix:
    """Return derivatives (n, 2, 3, 3) of `tilt_rotations` by tilt and x-axis tilt, per radian."""
    whole = tilt_rotations(tilt, x_tilt)
    about_y = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    about_x = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    # A rotation's generator commutes with it: R_y′ = G_y R_y and R_x′ = R_x G_x.
    return np.stack([about_y @ whole, whole @ about_x], axis=-3)


def across(tilt: float) -> tuple[float, float]:
    """Return (a, b) of ``x′ = a·X + b·Z`` at a tilt [degrees], without x-axis tilt."""
    row = tilt_rotation(View(tilt, 0.0))[0]
    return float(row[0]), float(row[2])


def tilted(points: ArrayLike, view: View) -> Matrix:
    """Return points (n, 3) as X, Y, Z [Å] in the tilted frame, (n, 3) as x′, y′, z′ [Å]."""
    return np.asarray(points, dtype=np.float64) @ tilt_rotation(view).T


def depth(points: ArrayLike, view: View) -> Matrix:
    """Return the depth z′ along the beam, (n,) [Å], of points (n, 3) as X, Y, Z [Å]."""
    return tilted(points, view)[:, 2]


def raw_from_aligned(aligned: ArrayLike, view: View) -> Matrix:
    """Map aligned coordinates x′, y′ (n, 2) [Å] to raw image coordinates x, y (n, 2) [Å]."""
    shift = np.array([view.shift_x, view.shift_y])
    return np.asarray(aligned, dtype=np.float64) @ image_matrix(view).T + shift


def aligned_from_raw(raw: ArrayLike, view: View) -> Matrix:
    """Map raw image coordinates x, y (n, 2) [Å] to aligned coordinates x′, y′ (n, 2) [Å]."""
    shift = np.array([view.shift_x, view.shift_y])
    return (np.asarray(raw, dtype=np.float64) - shift) @ np.linalg.inv(image_matrix(view)).T


def project(points: ArrayLike, view: View) -> Matrix:
    """Return where specimen points appear in the raw image.

    Parameters
    ----------
    points : (n, 3)
        X, Y, Z in the specimen frame [Å].
    view : View

    Returns
    -------
    (n, 2) float64
        x, y in the raw image, from its centre pixel (index n // 2) [Å].
    """
    return raw_from_aligned(tilted(points, view)[:, :2], view)


def with_origin(view: View, point: ArrayLike) -> View:
    """Return the view of a specimen whose origin is moved to `point` (X, Y, Z) [Å]."""
    x, y = project(np.asarray(point)[None], view)[0]
    return replace(view, shift_x=float(x), shift_y=float(y))


def reference_depth(view: View, midplane: float = 0.0) -> float:
    """Return z′_ref, where the ray through the raw centre meets the mid-plane Z = `midplane`.

    The view's own defocus, in the record and in exports, belongs to this depth [Å].
    Only the flat mid-plane of design §4 is meant: x-axis tilt turns it with the specimen.
    """
    x, y = aligned_from_raw([[0.0, 0.0]], view)[0]
    matrix = tilt_rotation(view)
    # The ray (x, y, z′) meets the plane where the third row of the inverse gives Z_s.
    row = matrix.T[2]
    return float((midplane - row[0] * x - row[1] * y) / row[2])


def defocus_offset(
    points: ArrayLike, view: View, hand: int = 1, midplane: float = 0.0
) -> NDArray[np.float64]:
    """Return Δf − Δf_view at specimen points: what depth adds to a view's defocus.

    Parameters
    ----------
    points : (n, 3)
        X, Y, Z in the specimen frame [Å].
    view : View
    hand : {+1, −1}
        +1: at positive tilt the right side (x′ > 0) is more underfocused, as in IMOD's
        non-inverted convention.
    midplane : float
        Z of the specimen's mid-plane [Å].

    Returns
    -------
    (n,) float64
        In Å, positive = more underfocus.

    Raises
    ------
    ValueError
        If `hand` is neither +1 nor −1.
    """
    if hand not in (1, -1):
        raise ValueError(f"hand is {hand}, not +1 or -1")
    return -hand * (depth(points, view) - reference_depth(view, midplane))


def defocus_gradient(
    view: View, hand: int = 1, pretilt: tuple[float, float] = (0.0, 0.0)
) -> tuple[float, float]:
    """Return how the defocus of the specimen's plane changes over x′ and y′, in Å per Å.

    Parameters
    ----------
    view : View
    hand : {+1, −1}
        As of `defocus_offset`.
    pretilt : (float, float)
        How the plane lies in the specimen frame [degrees]: α adds to the tilt angle,
        Z = −X tan α, and γ is its rise along the tilt axis, Z = Y tan γ.

    Returns
    -------
    (float, float)

    Raises
    ------
    ValueError
        If `hand` is neither +1 nor −1, or the beam runs along the plane.
    """
    if hand not in (1, -1):
        raise ValueError(f"hand is {hand}, not +1 or -1")
    slope = np.array([-np.tan(radians(pretilt[0])), np.tan(radians(pretilt[1]))])
    # Along the plane: two directions in it, tilted, are dx′, dy′ and dz′ of one slope.
    plane = np.array([[1.0, 0.0, slope[0]], [0.0, 1.0, slope[1]]])
    seen = tilted(plane, view)
    if abs(np.linalg.det(seen[:, :2])) < 1e-6:
        raise ValueError(f"tilt is {view.tilt}°: the beam runs along the specimen's plane")
    gx, gy = -hand * np.linalg.solve(seen[:, :2], seen[:, 2])
    return float(gx), float(gy)


def midplane_points(raw: ArrayLike, view: View, midplane: float = 0.0) -> Matrix:
    """Return the mid-plane points (n, 3) [Å] seen at raw coordinates x, y (n, 2) [Å].

    Raises
    ------
    ValueError
        If the beam runs along the mid-plane (tilt of 90°).
    """
    matrix = tilt_rotation(view)
    if abs(matrix[2, 2]) < 1e-6:
        raise ValueError(f"tilt is {view.tilt}°: the beam runs along the specimen's plane")
    aligned = aligned_from_raw(raw, view)
    row = matrix.T[2]
    z = (midplane - aligned @ row[:2]) / row[2]
    return np.column_stack([aligned, z]) @ matrix


def fit_points(raw: ArrayLike, seen: ArrayLike, views: Sequence[View]) -> Matrix:
    """Return the 3-D points that fit their raw positions in many views best.

    Parameters
    ----------
    raw : (n_views, n_points, 2)
        Observed x, y [Å].
    seen : (n_views, n_points) bool
        Which observations exist.
    views : sequence of View, n_views long

    Returns
    -------
    (n_points, 3) float64
        Least-squares X, Y, Z [Å]; NaN where fewer than two views see the point.
    """
    observed = np.stack(
        [aligned_from_raw(r, v) for r, v in zip(np.asarray(raw), views, strict=True)]
    )
    rows = np.stack([tilt_rotation(view)[:2] for view in views])
    used = np.asarray(seen, dtype=bool)
    points = np.full((observed.shape[1], 3), np.nan)
    for j in range(observed.shape[1]):
        if used[:, j].sum() >= 2:
            a = rows[used[:, j]].reshape(-1, 3)
            points[j] = np.linalg.lstsq(a, observed[used[:, j], j].ravel(), rcond=None)[0]
    return points
