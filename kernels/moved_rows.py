"""Rows of a volume moved plane by plane, as x-axis tilt moves them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from kernels.arrays import Array, device, namespace


def moved_rows(volume: Array, shifts: ArrayLike, start: int, count: int) -> Array:
    """Return rows start + y + shifts[z] of each plane z of a volume, y = 0 … count − 1.

    Linear between rows. What a row is does not depend on which others are asked for.

    Parameters
    ----------
    volume : (nz, rows, nx) float32
    shifts : (nz,)
    start, count : int

    Returns
    -------
    (nz, count, nx) float32
        0 where rows lie outside of the volume.
    """
    xp = namespace(volume)
    nz, rows, nx = volume.shape
    out = xp.zeros((nz, count, nx), dtype=xp.float32, device=device(volume))
    whole = np.floor(np.asarray(shifts, dtype=np.float64))
    parts = (np.asarray(shifts) - whole).astype(np.float32)
    for z, part in enumerate(parts.tolist()):
        at = start + int(whole[z])
        more = 1 if part else 0  # rows beyond the one below
        low, high = max(0, -at), min(count, rows - more - at)
        if low >= high:
            continue
        near = volume[z, at + low : at + high, :]
        if more:
            near = near + part * (volume[z, at + low + 1 : at + high + 1, :] - near)
        out[z, low:high, :] = near
    return out
