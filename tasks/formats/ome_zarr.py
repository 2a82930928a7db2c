"""OME-Zarr 0.5 metadata of a multiscale volume (z, y, x)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def multiscale(name: str, voxel: float, levels: int, about: dict[str, Any]) -> dict[str, Any]:
    """Return the attribute ``ome`` of a group whose arrays "0", "1", … halve in size.

    Parameters
    ----------
    name : str
        For people.
    voxel : float
        Of level 0 [Å].
    levels : int
        Number of arrays.
    about : dict
        How the volume was made.

    Notes
    -----
    Voxel centres at index · scale + translation: a voxel of level l is the mean of 2^l voxels per
    axis, so its centre lies (2^l − 1) / 2 voxels of level 0 further than its first one's.
    """
    return {
        "version": "0.5",
        "multiscales": [
            {
                "name": name,
                "type": "mean",
                "axes": [{"name": axis, "type": "space", "unit": "angstrom"} for axis in "zyx"],
                "datasets": [
                    {
                        "path": str(level),
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [voxel * 2**level] * 3},
                            {
                                "type": "translation",
                                "translation": [voxel * (2**level - 1) / 2] * 3,
                            },
                        ],
                    }
                    for level in range(levels)
                ],
                "metadata": about,
            }
        ],
    }


def pyramid(shape: Sequence[int], smallest: int = 64) -> list[tuple[int, ...]]:
    """Return the shapes of all levels: halved, rounded down, until the longest side is small."""
    shapes = [tuple(shape)]
    while max(shapes[-1]) > 2 * smallest and min(shapes[-1]) >= 2:
        shapes.append(tuple(n // 2 for n in shapes[-1]))
    return shapes
