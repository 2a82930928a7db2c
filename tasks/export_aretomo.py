"""An alignment for AreTomo and for what reads its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kernels.deformation import seen_displacements
from kernels.geometry import View, midplane_points, raw_from_aligned
from tasks.alignment import deformation_of
from tasks.export_imod import Say
from tasks.formats.aretomo import Alignment, AlnView, LocalShift, tilt_lines, write_aln
from tasks.formats.files import write_text
from tasks.formats.imod_geometry import centre_offset
from tasks.record import TiltSeries
from tasks.result import Result

PATCHES = 5  # along each side, at which a local deformation is told


def write_aretomo(
    folder: Path,
    record: TiltSeries,
    motion: Result,
    alignment: Result,
    pixel_size: float,
    say: Say = lambda line: None,
) -> None:
    """Write NAME.aln and NAME_TLT.txt. Rotation about x, stretch and skew have no place there.

    Parameters
    ----------
    folder : Path
    record : TiltSeries
        With the geometry of `alignment`.
    motion, alignment : Result
        Whose images are the raw stack, and which may hold a local deformation.
    pixel_size : float
        Of the raw stack [Å].
    say : callable, optional
        Called with a line for what has no place in the file.
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
    offsets = [view.tilt - record.views[view.section].tilt_angle for view in views]
    write_aln(
        folder / f"{record.name}.aln",
        Alignment(
            (nx, ny, len(record.views)),
            tuple(views),
            tuple(dark),
            tuple(local),
            alpha=float(np.median(offsets)) if offsets else 0.0,
        ),
    )
    lost = _without_place([record.geometry(v.section) for v in views])
    if lost:
        say(f"{record.name}: {', '.join(lost)}: {record.name}.aln has no place for it")
    text = tilt_lines(
        np.array([view.tilt_angle for view in record.views]),
        np.array([view.order for view in record.views]),
        np.array([view.dose for view in record.views]),
    )
    write_text(folder / f"{record.name}_TLT.txt", text)


def _without_place(views: Sequence[View]) -> list[str]:
    """Return what of the views an .aln cannot hold."""
    found = {
        "rotation about x": (max((abs(v.x_tilt) for v in views), default=0.0), "°"),
        "stretch": (max((100 * abs(v.stretch - 1) for v in views), default=0.0), " %"),
        "skew": (max((abs(v.skew) for v in views), default=0.0), "°"),
    }
    return [f"{name} of up to {most:.2g}{unit}" for name, (most, unit) in found.items() if most]
