"""Cross-correlation of images, and the sub-pixel place of its peak."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernels.arrays import Array, namespace, to_host
from kernels.fourier import Shape, irfft2


@dataclass(frozen=True)
class Peak:
    """The highest point of a correlation map.

    Attributes
    ----------
    dy, dx : float
        Displacement of the moving image's content relative to the reference [pixels].
    height : float
        Value of the map there.
    sharpness : float
        (height − mean) / standard deviation of the map: how far the peak stands out.
    """

    dy: float
    dx: float
    height: float
    sharpness: float


def cross_correlation(
    reference: Array, moving: Array, shape: Shape, weight: Array | None = None
) -> Array:
    """Correlate two images given by their half spectra.

    Parameters
    ----------
    reference, moving : (..., ny, nx // 2 + 1) complex
    shape : (ny, nx)
        Of the images.
    weight : (ny, nx // 2 + 1), optional
        Real filter on the product.

    Returns
    -------
    (..., ny, nx) float
        A peak at (dy, dx), counted from index 0 with wrapping, means that the content of
        `moving` is displaced by (+dy, +dx) pixels relative to `reference`.
    """
    product = moving * namespace(reference).conj(reference)
    return irfft2(product if weight is None else product * weight, shape)


def find_peak(correlation: Array, max_shift: float | None = None) -> Peak:
    """Find the highest point of a correlation map to a fraction of a pixel.

    The 3×3 neighbourhood of the maximum is fitted by a quadratic surface.

    Parameters
    ----------
    correlation : (ny, nx)
        Origin at index (0, 0), wrapped.
    max_shift : float, optional
        Only displacements up to this length are looked at [pixels].
    """
    values = np.asarray(to_host(correlation), dtype=np.float64)
    ny, nx = values.shape
    rows = np.fft.fftfreq(ny, 1 / ny)[:, None]
    columns = np.fft.fftfreq(nx, 1 / nx)[None, :]
    searched = values
    if max_shift is not None:
        searched = np.where(rows**2 + columns**2 <= max_shift**2, values, -np.inf)
    iy, ix = np.unravel_index(int(np.argmax(searched)), values.shape)
    patch = values[np.ix_((iy + np.arange(-1, 2)) % ny, (ix + np.arange(-1, 2)) % nx)]
    sub_y, sub_x = _quadratic_maximum(patch)
    spread = float(values.std()) or 1.0
    return Peak(
        dy=float(rows[iy, 0]) + sub_y,
        dx=float(columns[0, ix]) + sub_x,
        height=float(values[iy, ix]),
        sharpness=(float(values[iy, ix]) - float(values.mean())) / spread,
    )


def _quadratic_maximum(patch: np.ndarray) -> tuple[float, float]:
    """Return the maximum of the least-squares quadratic through a 3×3 patch, within ±1."""
    y, x = (g.ravel() for g in np.mgrid[-1:2, -1:2])
    design = np.column_stack([np.ones(9), y, x, y * y, x * x, x * y])
    _, by, bx, cy, cx, cxy = np.linalg.lstsq(design, patch.ravel(), rcond=None)[0]
    determinant = 4 * cy * cx - cxy * cxy
    if cy >= 0 or cx >= 0 or determinant <= 0:  # a ridge or a plateau has no maximum
        return 0.0, 0.0
    dy = (-2 * cx * by + cxy * bx) / determinant
    dx = (-2 * cy * bx + cxy * by) / determinant
    if max(abs(dy), abs(dx)) > 1:
        return 0.0, 0.0
    return float(dy), float(dx)
