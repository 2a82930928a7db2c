"""Tomograms as MRC files: their values in the mode asked for, their place in the header."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from tasks.chunks.reconstruct import step_for, stored
from tasks.errors import WrongParameter
from tasks.formats.mrc import write_volume
from tasks.result import Result

SLAB_BYTES = 512 * 2**20  # of a tomogram that are read at once; its bricks are many slices deep
TYPES = {0: "int8", 1: "int16", 2: "float32", 12: "float16"}
FLOAT32 = 2  # many programs cannot read 16-bit floats


def checked_mode(mode: int | None) -> None:
    """Raise WrongParameter if a mode is none that volumes are written in."""
    if mode is not None and mode not in TYPES:
        raise WrongParameter(f"--mode {mode}: there are {', '.join(map(str, TYPES))}")


def write_tomogram(path: Path, tomogram: Result, name: str = "0", mode: int | None = None) -> None:
    """Write an array of a tomogram.

    The header's origin is where voxel (0, 0, 0) lies in the specimen's frame. Integers are
    multiples of a number that a label of the header tells, scaled by the array's own noise.

    Parameters
    ----------
    path : Path
    tomogram : Result
        Of `reconstruct` or `ctf3d`.
    name : str
        Of the array (z, y, x).
    mode : {0, 1, 2, 12}, optional
        Of MRC; by default integers as they are stored, else 2.
    """
    about, volume = tomogram.attributes(), tomogram.array(name)
    voxel = float(about["pixel_size"])
    x, y, z = (
        centre - voxel * (n // 2)
        for centre, n in zip(about["centre"], reversed(volume.shape), strict=True)
    )
    held = float(about["integer_step"]) if volume.dtype.kind == "i" else None
    slices, step = each_slice(volume), held
    if mode is not None and np.dtype(TYPES[mode]) != volume.dtype:
        # Statistics are those of level 0: halves have more noise, deconvolved voxels another scale.
        told = about.get("statistics", {}) if name == "0" else {}
        deviation = float(told.get("standard deviation", 0.0))
        step = step_for(TYPES[mode], deviation or _deviation(volume, held))
        slices = _converted(slices, TYPES[mode], held, step)
    code = mode if mode is not None else None if held else FLOAT32
    labels = ["tiltflow"] + ([f"1 stands for {step:.6g}"] if step else [])
    write_volume(path, slices, voxel, mode=code, origin=(x, y, z), labels=labels)


def _converted(
    slices: Iterable[NDArray[Any]], storage: str, held: float | None, step: float | None
) -> Iterator[NDArray[Any]]:
    """Yield sections in another number type; `held` and `step` are what 1 means before, after."""
    for one in slices:
        values = one.astype(np.float32) * np.float32(held or 1.0)
        yield stored(values, np.dtype(storage), step)


def _deviation(volume: zarr.Array[Any], step: float | None) -> float:
    nz = volume.shape[0]
    middle = np.asarray(volume[nz // 2 : nz // 2 + 1], dtype=np.float32)
    return float(middle.std()) * (step or 1.0)


def each_slice(array: zarr.Array[Any], most: int = SLAB_BYTES) -> Iterator[NDArray[Any]]:
    """Yield the sections of an array (z, y, x), as many bytes at once as is cheap to read."""
    section = array.dtype.itemsize * array.shape[1] * array.shape[2]
    depth = max(1, min(array.chunks[0], most // section))
    for start in range(0, array.shape[0], depth):
        yield from np.asarray(array[start : start + depth])
