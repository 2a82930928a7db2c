"""A series for novaCTF: the defocus of every view at each of its planes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kernels.ctf_planes import novactf_planes
from kernels.ctf_slope import ctf_in_aligned
from tasks.ctf_views import ctf_of_views
from tasks.export_imod import turned_by
from tasks.formats.ctffind import CtffindRow
from tasks.formats.novactf import write_defocus_files
from tasks.record import TiltSeries
from tasks.result import Result

STEP = 150.0  # Å between planes where the branch has no tomogram of ctf3d


def write_planes(folder: Path, record: TiltSeries, tomogram: Result) -> list[float]:
    """Write ``defocus_file_k`` for the planes that novaCTF lays through a tomogram's box.

    Parameters
    ----------
    folder : Path
    record : TiltSeries
    tomogram : Result
        Of ctf3d or reconstruct: its box, how the specimen is turned in it, and where its middle
        is; for ctf3d also its step and hand.

    Returns
    -------
    list of float
        What each plane adds to the defocus of all views [Å], by k.

    Raises
    ------
    UnusableData
        If no view has a CTF.
    """
    made = tomogram.attributes()
    hand = int(made.get("ctf_corrected", {}).get("hand", record.hand or 1))
    offsets = plane_offsets(record, made, hand, turned_by(tomogram)[0])
    ctfs = ctf_of_views(record)
    rows = []
    for i, view in enumerate(record.views):
        ctf = ctf_in_aligned(ctfs[i].ctf, record.geometry(i))
        found = view.ctf
        rows.append(
            CtffindRow(
                view=i + 1,
                defocus_u=ctf.defocus_u,
                defocus_v=ctf.defocus_v,
                astigmatism_angle=ctf.astigmatism_angle,
                phase_shift=ctf.phase_shift,
                score=(found and found.score) or 0.0,
                fit_resolution=(found and found.fit_resolution) or 0.0,
            )
        )
    write_defocus_files(folder / "defocus_file", rows, offsets)
    return offsets


def plane_offsets(
    record: TiltSeries, made: Mapping[str, Any], hand: int, angle_offset: float = 0.0
) -> list[float]:
    """Return what novaCTF's planes add to the defocus, by the number of its files [Å].

    Of hand −1 the order is turned round, for novaCTF knows but one hand; a box above the specimen's
    middle, where the views' defoci hold, is nearer to focus, or farther, by its height at all
    tilts, as novaCTF has it. `angle_offset` is what the tomogram added to tilt angles [degrees].
    """
    step = made["parameters"].get("defocus_step", STEP)
    if step == "auto":
        step = made["planes"]["step_A"]
    nz, ny, nx = made["shape"]
    views = [record.geometry(i) for i in record.included]
    views = [replace(view, tilt=view.tilt + angle_offset) for view in views]
    voxel, z = float(made["pixel_size"]), float(made["centre"][2])
    planes = novactf_planes(views, (nz, ny, nx), voxel, step=float(step))
    # Of the middle between the voxels, where novaCTF has its box's centre.
    height = z - voxel * (nz // 2 - (nz - 1) / 2) - middle_of(made)
    number = int(planes.count[0])
    levels = hand * (number // 2 - np.arange(number))
    return [float(offset) for offset in levels * planes.step - hand * height]


def middle_of(made: Mapping[str, Any]) -> float:
    """Return Z of the specimen's middle, to which defoci belong, in a tomogram's frame [Å].

    Where nobody has measured it, that of the box's centre voxel.
    """
    return float(made.get("place", {}).get("middle_A", made["centre"][2]))
