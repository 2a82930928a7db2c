"""Pictures of a tomogram: its central slices and its projections, as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.export_volume import each_slice
from tasks.plots import png
from tasks.result import Result

WIDEST = 1024  # voxels of the level that is shown
SLAB = 50.0  # Å that are averaged for a slice


def write_pictures(folder: Path, name: str, tomogram: Result) -> None:
    """Write ``NAME_xy.png``, of the middle 50 Å, and ``NAME_xy_projection.png``; likewise xz, yz.

    The first letter of a plane runs to the right, the second up. They are made of the finest level
    whose sides have 1024 voxels at most, read once.
    """
    for plane, (slice_, projection) in pictures(tomogram).items():
        (folder / f"{name}_{plane}.png").write_bytes(png(slice_))
        (folder / f"{name}_{plane}_projection.png").write_bytes(png(projection))


def pictures(tomogram: Result) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return the central slice and the projection of each plane, means along the third axis."""
    arrays = [array for name, array in tomogram.group().arrays() if name.isdigit()]
    arrays.sort(key=lambda array: -array.shape[0] * array.shape[1] * array.shape[2])
    volume = next((array for array in arrays if max(array.shape) <= WIDEST), arrays[-1])
    voxel = float(tomogram.attributes()["pixel_size"]) * arrays[0].shape[2] / volume.shape[2]
    nz, ny, nx = volume.shape
    z, y, x = (_middle(n, voxel) for n in volume.shape)
    found = {
        plane: (np.zeros(shape, np.float32), np.zeros(shape, np.float32))
        for plane, shape in (("xy", (ny, nx)), ("xz", (nz, nx)), ("yz", (nz, ny)))
    }
    for i, section in enumerate(each_slice(volume)):
        values = section.astype(np.float32)
        found["xy"][1][...] += values / np.float32(nz)
        if z.start <= i < z.stop:
            found["xy"][0][...] += values / np.float32(z.stop - z.start)
        found["xz"][0][i], found["xz"][1][i] = values[y].mean(axis=0), values.mean(axis=0)
        found["yz"][0][i], found["yz"][1][i] = values[:, x].mean(axis=1), values.mean(axis=1)
    return found


def _middle(n: int, voxel: float) -> slice:
    """Return the middle `SLAB` of an axis of `n` voxels, one at least."""
    depth = min(n, max(1, round(SLAB / voxel)))
    return slice((n - depth) // 2, (n - depth) // 2 + depth)
