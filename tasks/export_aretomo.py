"""An alignment for AreTomo and for what reads its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kernels.deformation import seen_displacements
from kernels.geometry import midplane_points, raw_from_aligned
from tasks.alignment import deformation_of
from tasks.formats.aretomo import Alignment, AlnView, LocalShift, tilt_lines, write_aln
from tasks.formats.files import write_text
from tasks.formats.imod_geometry import centre_offset
from tasks.record import TiltSeries
from tasks.result import Result

PATCHES = 5  # along each side, at which a local deformation is told


def write_aretomo(
    folder: Path, record: TiltSeries, motion: Result, alignment: Result, pixel_size: float
) -> None:
    """Write NAME.aln and NAME_TLT.txt. Stretch and skew have no place there and are left out.

    Parameters
    ----------
    folder : Path
    record : TiltSeries
        With the geometry of `alignment`.
    motion, alignment : Result
        Whose images are the raw stack, and which may hold a local deformation.
    pixel_size : float
        Of the raw stack [Å].
    """
    _, ny, nx = motion.images().shape
    offset = np.array([centre_offset(nx), centre_offset(ny)])
    views, dark, local = [], [], []
    held = deformation_of(alignment)
    for i, view in enumerate(record.views):
        if view.excluded is not None:
            dark.append((i, view.tilt_angle))
            continue
        seen = record.geometry(i)
        x, y = np.array([seen.shift_x, seen.shift_y]) / pixel_size + offset
        views.append(AlnView(i, seen.tilt, seen.axis, seen.magnification, float(x), float(y)))
        if held is None:
            continue
        deformation, times = held
        sides = [np.linspace(-0.4, 0.4, PATCHES) * n * pixel_size for n in (nx, ny)]
        aligned = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)
        points = midplane_points(raw_from_aligned(aligned, seen), seen)
        moved = seen_displacements(deformation, points, times[i], seen) / pixel_size
        local += [
            LocalShift(len(views) - 1, j, *(place / pixel_size), *shift)
            for j, (place, shift) in enumerate(zip(aligned, moved, strict=True))
        ]
    write_aln(
        folder / f"{record.name}.aln",
        Alignment((nx, ny, len(record.views)), tuple(views), tuple(dark), tuple(local)),
    )
    text = tilt_lines(
        np.array([view.tilt_angle for view in record.views]),
        np.array([view.order for view in record.views]),
        np.array([view.dose for view in record.views]),
    )
    write_text(folder / f"{record.name}_TLT.txt", text)
