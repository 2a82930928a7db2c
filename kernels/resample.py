"""Resample a raw view into the aligned frame: one quintic B-spline interpolation.

Deformation of the specimen and x-axis tilt are undone in the same interpolation.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import map_coordinates

from kernels.arrays import Array, asarray_like, is_numpy, namespace
from kernels.fourier import Shape, bin_images, binned_shape, irfft2, rfft2
from kernels.geometry import View, image_matrix, tilt_rotation
from kernels.resample_cpu import AFTER, BEFORE, EDGE, sample

# The quintic B-spline's polynomials in the distance: within 1, from 1 to 2, from 2 to 3.
ONE = np.float32(1)
INNER = tuple(np.float32(c) for c in (11 / 20, -1 / 2, 1 / 4, -1 / 12))
MIDDLE = tuple(np.float32(c) for c in (17 / 40, 5 / 8, -7 / 4, 5 / 4, -3 / 8, 1 / 24))
OUTER = np.float32(1 / 120)
NO_NODES = np.zeros((0, 0, 2), dtype=np.float32)


@dataclass(frozen=True)
class Field:
    """A smooth displacement of the places that are sampled, linear between nodes.

    Attributes
    ----------
    nodes : (rows, columns, 2) float32
        y and x [pixels of the result], at those of its pixels that are multiples of `step`, and
        one row and column beyond; see `deformation.field_of_view`.
    step : int
        Pixels between nodes.
    """

    nodes: NDArray[np.float32]
    step: int


def resample_view(
    image: Array,
    view: View,
    pixel_size: float,
    out_shape: Shape,
    binning: float = 1.0,
    fill: float | None = None,
    *,
    rows: bool = False,
    field: Field | None = None,
    weights: Array | None = None,
) -> Array:
    """Resample a raw image into the aligned frame, where the tilt axis runs along y.

    The aligned pixel (iy, ix) stands for (x′, y′) = (ix − nx // 2, iy − ny // 2) · binning ·
    `pixel_size` and takes its value from the raw image at ``raw_from_aligned((x′, y′), view)``.

    Parameters
    ----------
    image : (ny, nx) float32
    view : View
        Its axis, magnification, stretch, skew and shift are used.
    pixel_size : float
        Of `image` [Å].
    out_shape : (ny, nx)
        Of the aligned image.
    binning : float
        Raw pixels per aligned pixel. The raw image is first reduced by Fourier cropping.
    fill : float, optional
        Value outside of the raw image; the image's mean by default.
    rows : bool
        Make the specimen's rows, for back-projection with x-axis tilt (`row_matrix`); without
        x-axis tilt they are the aligned frame's.
    field : Field, optional
        Deformation to undo.
    weights : Array, optional
        As of `resample`, of the reduced image.

    Returns
    -------
    (out ny, out nx) float32
    """
    matrix, offset = sampling(view, pixel_size, image.shape[-2:], out_shape, binning, rows=rows)
    reduced = bin_images(image, binning)
    return resample(reduced, matrix, offset, out_shape, fill, field, weights=weights)


def row_matrix(view: View) -> NDArray[np.float64]:
    """Return the 2×2 matrix that takes the specimen's rows (u, v) to aligned (x′, y′).

    Columns of constant u are the images of lines along Y, so that all of a line's points lie in
    one column; rows of constant v still run along x′, as the ramp filter needs.
    """
    along = tilt_rotation(view)[:2, 1]
    return np.array([[1.0, along[0]], [0.0, along[1]]])


def sampling(
    view: View,
    pixel_size: float,
    shape: Shape,
    out_shape: Shape,
    binning: float = 1.0,
    reduced: Shape | None = None,
    *,
    rows: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return matrix and offset that take aligned indices (iy, ix) to binned raw indices.

    Parameters
    ----------
    view : View
    pixel_size : float
        Of the raw image [Å].
    shape, out_shape : (ny, nx)
        Of the raw image and of the aligned image.
    binning : float
        Raw pixels per aligned pixel.
    reduced : (ny, nx), optional
        Of the raw image reduced by `binning`; that of `fourier.bin_images` by default.
    rows : bool
        As of `resample_view`.

    Returns
    -------
    matrix : (2, 2) float64
        Raw index = matrix @ aligned index + offset, both (y, x).
    offset : (2,) float64
    """
    new = reduced or binned_shape(shape, binning)[0]
    # geometry speaks (x, y), arrays (y, x): both axes of the matrix are reversed.
    both = image_matrix(view) @ row_matrix(view) if rows else image_matrix(view)
    matrix = both[::-1, ::-1]
    shift = np.array([view.shift_y, view.shift_x]) / (pixel_size * binning)
    centre, out_centre = (np.array([n // 2 for n in s], dtype=np.float64) for s in (new, out_shape))
    return matrix, centre + shift - matrix @ out_centre


def resample(
    image: Array,
    matrix: ArrayLike,
    offset: ArrayLike,
    out_shape: Shape,
    fill: float | None = None,
    field: Field | None = None,
    *,
    weights: Array | None = None,
) -> Array:
    """Interpolate an image at ``matrix @ (iy, ix) + offset`` by quintic B-splines.

    With a field it is interpolated at ``matrix @ ((iy, ix) + field(iy, ix)) + offset``.

    Parameters
    ----------
    image : (ny, nx) float32
    matrix : (2, 2)
        Acts on (y, x) indices of the result.
    offset : (2,)
        Index (y, x) in `image` of the result's pixel (0, 0).
    out_shape : (ny, nx)
    fill : float, optional
        Value of pixels that fall outside of `image`; its mean by default.
    field : Field, optional
    weights : (ny, nx // 2 + 1) float32, optional
        Factor of the image's half spectrum, such as `dose.exposure_weights`: the spline's own
        transforms serve it, too.

    Returns
    -------
    out_shape float32

    Raises
    ------
    ValueError
        If the image is no image, or the field's nodes do not cover the result.

    Notes
    -----
    The prefilter is a division in Fourier space, so that the spline passes through the pixels.
    Over all sub-pixel places it keeps 0.976 of an amplitude at 0.35 cycles per pixel; a cubic
    spline keeps 0.92, linear interpolation 0.66 [1]_.

    References
    ----------
    .. [1] M. Unser, IEEE Signal Processing Magazine 16(6):22 (1999), doi:10.1109/79.799930
    """
    if image.ndim != 2:
        raise ValueError(f"image has {image.ndim} axes, expected 2: (ny, nx)")
    expected = field and tuple((n - 1) // field.step + 2 for n in out_shape)
    if field is not None and field.nodes.shape != (*(expected or ()), 2):
        raise ValueError(f"nodes are {field.nodes.shape}, expected {expected} with y and x")
    xp = namespace(image)
    host_matrix = np.ascontiguousarray(matrix, dtype=np.float64)
    host_offset = np.ascontiguousarray(offset, dtype=np.float64)
    outside = float(xp.mean(image)) if fill is None else float(fill)
    coefficients = spline_coefficients(image, weights)
    if is_numpy(image):
        out = np.empty(out_shape, dtype=np.float32)
        wrapped = np.pad(coefficients, ((BEFORE, AFTER), (BEFORE, AFTER)), mode="wrap")
        nodes, step = (NO_NODES, 1) if field is None else (field.nodes, field.step)
        nodes = np.ascontiguousarray(nodes)
        sample(wrapped, host_matrix, host_offset, nodes, step, np.float32(outside), out)
        return out
    return sample_reference(coefficients, host_matrix, host_offset, out_shape, outside, field)


def spline_coefficients(image: Array, weights: Array | None = None) -> Array:
    """Return the periodic quintic B-spline coefficients (ny, nx) of an image (ny, nx).

    `weights` are factors of its half spectrum.
    """
    ny, nx = image.shape
    y, x = 2 * pi * scipy.fft.fftfreq(ny), 2 * pi * scipy.fft.rfftfreq(nx)
    y, x = ((60 / (33 + 26 * np.cos(k) + np.cos(2 * k))).astype(np.float32) for k in (y, x))
    spectrum = rfft2(image)
    if weights is not None:
        spectrum *= weights
    spectrum *= asarray_like(y[:, None], image)
    spectrum *= asarray_like(x, image)
    return irfft2(spectrum, (ny, nx))


def sample_reference(
    coefficients: Array,
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    out_shape: Shape,
    fill: float,
    field: Field | None = None,
) -> Array:
    """Evaluate a spline in any array namespace: the reference of the compiled body.

    Parameters
    ----------
    coefficients : (ny, nx) float32
        From `spline_coefficients`.
    matrix, offset, out_shape, fill, field
        As in `resample`.
    """
    xp = namespace(coefficients)
    ny, nx = coefficients.shape
    # Positions in double precision on the host: float32 is only good to 1e-4 px at 2000 px.
    rows, columns = np.indices(out_shape, dtype=np.float64)
    if field is not None:
        places = [rows / field.step, columns / field.step]
        down, across = (
            map_coordinates(field.nodes[..., i].astype(np.float64), places, order=1) for i in (0, 1)
        )
        rows, columns = rows + down, columns + across
    y = matrix[0, 0] * rows + matrix[0, 1] * columns + offset[0]
    x = matrix[1, 0] * rows + matrix[1, 1] * columns + offset[1]
    inside = (y >= -EDGE) & (y <= ny - 1 + EDGE) & (x >= -EDGE) & (x <= nx - 1 + EDGE)
    iy, ix = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    weights_y, weights_x = _weights(y - iy), _weights(x - ix)
    flat = xp.reshape(coefficients, (-1,))
    total = asarray_like(np.zeros(rows.size, dtype=np.float32), coefficients)
    for j in range(6):
        for i in range(6):
            index = ((iy + j - 2) % ny) * nx + (ix + i - 2) % nx
            weight = (weights_y[j] * weights_x[i]).astype(np.float32)
            values = xp.take(flat, asarray_like(index.ravel(), coefficients), axis=0)
            total = total + values * asarray_like(weight.ravel(), coefficients)
    kept = asarray_like(inside.ravel(), coefficients)
    outside = asarray_like(np.full(rows.size, fill, dtype=np.float32), coefficients)
    return xp.reshape(xp.where(kept, total, outside), out_shape)


def _weights(t: Any) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Return the quintic B-spline at distances 2 + t, 1 + t, t, 1 − t, 2 − t, 3 − t."""
    s = ONE - t
    return (_outer(s), _middle(ONE + t), _inner(t), _inner(s), _middle(ONE + s), _outer(t))


def _inner(d: Any) -> Any:
    square = d * d
    return INNER[0] + square * (INNER[1] + square * (INNER[2] + d * INNER[3]))


def _middle(d: Any) -> Any:
    higher = MIDDLE[2] + d * (MIDDLE[3] + d * (MIDDLE[4] + d * MIDDLE[5]))
    return MIDDLE[0] + d * (MIDDLE[1] + d * higher)


def _outer(d: Any) -> Any:
    square = d * d
    return OUTER * d * square * square
