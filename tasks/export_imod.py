"""The text files of an IMOD export: transforms, angles, commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path

from kernels.align_coarse import aligned_shape
from kernels.geometry import image_matrix
from tasks.alignment import deformation_of
from tasks.box import UNMEASURED, chosen_binning
from tasks.formats.imod import write_tilts, write_xf
from tasks.formats.imod_commands import write_newst, write_tilt
from tasks.formats.imod_geometry import aligned_origin, tilt_volume, xf_from_view
from tasks.parameters import ReconstructParameters
from tasks.record import TiltSeries
from tasks.result import Result

Say = Callable[[str], None]


def write_angles(
    folder: Path, record: TiltSeries, alignment: str | None, x_tilt: float = 0.0
) -> None:
    """Write the nominal tilt angles as .rawtlt, and as .tlt and .xtilt what was refined.

    `x_tilt`, by which the tomogram was turned further, is in the .xtilt.
    """
    write_tilts(folder / f"{record.name}.rawtlt", [view.tilt_angle for view in record.views])
    if alignment is None:
        return
    views = [record.geometry(i) for i in range(len(record.views))]
    write_tilts(folder / f"{record.name}.tlt", [view.tilt for view in views])
    if has_x_tilt(record, x_tilt):
        write_tilts(folder / f"{record.name}.xtilt", [view.x_tilt + x_tilt for view in views])


def has_x_tilt(record: TiltSeries, more: float = 0.0) -> bool:
    """Tell whether views of a tomogram that was turned by `more` have a rotation about x."""
    known = (view.geometry for view in record.views if view.geometry is not None)
    return more != 0 or any(geometry.x_tilt != 0 for geometry in known)


def turned_by(tomogram: Result | None) -> tuple[float, float]:
    """Return what was added to tilt angles and rotation about x of a tomogram [degrees]."""
    made = {} if tomogram is None else tomogram.attributes()
    place = made.get("place") or made.get("parameters", {})
    given = (place.get(name) for name in ("angle_offset", "x_tilt"))
    offset, x_tilt = (0.0 if value in (None, "auto") else float(value) for value in given)
    return offset, x_tilt


def write_reconstruction(
    folder: Path,
    record: TiltSeries,
    size: tuple[int, int],
    pixel_size: float,
    tomogram: Result | None,
    alignment: Result | None = None,
    say: Say = lambda line: None,
) -> None:
    """Write .xf, newst.com and tilt.com, by which IMOD makes our tomogram from the stack.

    The values of IMOD's tomogram have another scale, and its views are not dose-weighted; what
    else it does otherwise is said.

    Parameters
    ----------
    folder : Path
    record : TiltSeries
    size : (nx, ny)
        Of the images in the stack.
    pixel_size : float
        Of the stack [Å].
    tomogram : Result or None
        Without one, the commands are for the tomogram that default parameters make.
    alignment : Result, optional
        Which may hold a local deformation.
    say : callable, optional
        Called with a line for each thing of the tomogram that the commands leave out.
    """
    name = record.name
    views = [record.geometry(i) for i in range(len(record.views))]
    parameters = ReconstructParameters()
    if tomogram is not None:
        made = tomogram.attributes()
        known = made["parameters"].items()  # of ctf3d there are others, too
        known = {name: value for name, value in known if name in ReconstructParameters.model_fields}
        parameters = ReconstructParameters.model_validate(known)
        binning, shape, centre = made["binning"], made["shape"], made["centre"]
    else:
        binning = chosen_binning(parameters, pixel_size)
        voxel = pixel_size * binning
        rows, columns = aligned_shape((size[1], size[0]), views[record.included[0]].axis)
        depth = max(2, round(UNMEASURED["thickness"] / voxel))
        shape, centre = (depth, rows // binning, columns // binning), (0.0, 0.0, 0.0)
    x, y, z = (c / pixel_size for c in centre)
    # The aligned stack is as large as the tomogram, and reaches as far where that is off-centre.
    stack = (
        shape[2] + 2 * ceil(abs(x) / binning),
        shape[1] + 2 * ceil(abs(y) / binning),
    )
    plain = parameters.method == "wbp"
    exact = plain and parameters.weighting == "exact"
    for line in _left_out(parameters, alignment):
        say(f"{name}: {line}")
    offset, x_tilt = turned_by(tomogram)
    volume = tilt_volume(*stack, (shape[0], shape[1], shape[2]), binning, (x, y, z))
    transforms = [
        xf_from_view(
            image_matrix(view),
            view.shift_x / pixel_size,
            view.shift_y / pixel_size,
            *size,
            aligned_origin(view.tilt + offset, view.x_tilt + x_tilt, volume.origin_y),
            binning,
        )
        for view in views
    ]
    write_xf(folder / f"{name}.xf", [a for a, _ in transforms], [d for _, d in transforms])
    write_newst(
        folder / "newst.com",
        stack=f"{name}.st",
        aligned=f"{name}.ali",
        transforms=f"{name}.xf",
        size=stack,
        binning=binning,
    )
    write_tilt(
        folder / "tilt.com",
        aligned=f"{name}.ali",
        output=f"{name}_full.rec",
        tilt_file=f"{name}.tlt",
        volume=volume,
        xtilt_file=f"{name}.xtilt" if has_x_tilt(record, x_tilt) else None,
        angle_offset=offset,
        excluded=[i for i, view in enumerate(record.views, 1) if view.excluded is not None],
        radial=(parameters.radial_cutoff, parameters.radial_falloff),
        hamming_from=parameters.radial_cutoff
        if plain and parameters.weighting == "hamming"
        else None,
        exact_size=shape[0] * binning if exact else None,
        sirt_like_iterations=parameters.sirt_like_iterations if plain and not exact else 0,
        logarithm=parameters.logarithm,
        scale=(0.0, -1.0 if parameters.invert else 1.0),
    )


def _left_out(parameters: ReconstructParameters, alignment: Result | None) -> Iterator[str]:
    """Yield what our tomogram has, and IMOD's commands do not."""
    if alignment is not None and deformation_of(alignment) is not None:
        yield "tilt.com does not undo the local deformation, as our tomogram does"
    if parameters.images == "ctf2d":
        yield "newst.com takes the views as they are, our tomogram those corrected by ctf2d"
    if parameters.erase_gold:
        yield "newst.com leaves the beads in the views, our tomogram is without"
    if parameters.method != "wbp":
        yield (
            f"tilt.com back-projects with the plain ramp, our tomogram is of {parameters.method}, "
            f"{parameters.iterations} iterations"
        )
    elif parameters.weighting == "exact" and parameters.sirt_like_iterations:
        yield "tilt.com has the exact filter without the SIRT-like one: IMOD takes one of them"
