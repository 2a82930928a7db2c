"""The box of a tomogram: its voxels, and where it lies in the specimen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kernels.align_coarse import aligned_shape
from kernels.backproject import Projection, aligned_projection
from kernels.geometry import View, raw_from_aligned
from tasks.errors import WrongParameter
from tasks.parameters.tomogram import TomogramParameters

FINEST_VOXEL = 5.0  # Å: what binning "auto" goes up to
# The place of a box where neither the user nor a measurement has it [Å, degrees].
UNMEASURED = {"thickness": 2400.0, "z_shift": 0.0, "angle_offset": 0.0, "x_tilt": 0.0}


@dataclass(frozen=True)
class Box:
    """A box of voxels, and the frame of aligned views that it is made from.

    Attributes
    ----------
    voxel : float
        [Å]
    binning : int
        Of the images.
    frame : (rows, columns)
        Of the aligned views, a pixel as large as a voxel.
    shape : (nz, ny, nx)
    first_row : int
        Row of the frame that the box's row 0 is.
    centre : (X, Y, Z)
        Specimen coordinates of voxel n // 2 [Å].
    between : bool
        Whether the frame's centre, where the specimen's origin appears, is at (n − 1) / 2, between
        pixels, as IMOD and novaCTF have it, and not at n // 2; see `between_voxels`.
    """

    voxel: float
    binning: int
    frame: tuple[int, int]
    shape: tuple[int, int, int]
    first_row: int
    centre: tuple[float, float, float]
    between: bool = False

    @property
    def over_all_rows(self) -> tuple[int, int, int]:
        """Shape of the box lengthened to all rows of the frame: what row numbers refer to."""
        return self.shape[0], self.frame[0], self.shape[2]

    def projection(self, views: Sequence[View], turned: bool) -> Projection:
        """Return the projection into the frame of the box over all rows."""
        made = aligned_projection(
            views,
            self.over_all_rows,
            self.frame[1],
            self.voxel,
            (self.centre[0], self.centre[2]),
            rows=self.frame[0] if turned else None,
        )
        return replace(made, offset=made.offset - self.half(1)) if self.between else made

    def half(self, axis: int) -> float:
        """Return by how many pixels index n // 2 of the frame is beyond its middle: ½ or 0."""
        n = self.frame[axis]
        return n // 2 - (n - 1) / 2

    def between_voxels(self) -> Box:
        """Return the box, and the frame, with their centres at (n − 1) / 2."""
        half = (self.voxel * (n // 2 - (n - 1) / 2) for n in reversed(self.shape))
        centre = tuple(c + h for c, h in zip(self.centre, half, strict=True))
        return replace(self, centre=(centre[0], centre[1], centre[2]), between=True)

    def seen_in_frame(self, view: View) -> View:
        """Return the view as its aligned image is to be sampled."""
        if not self.between:
            return view
        x, y = raw_from_aligned([[self.voxel * self.half(1), self.voxel * self.half(0)]], view)[0]
        return replace(view, shift_x=float(x), shift_y=float(y))


def box_of(
    name: str, parameters: TomogramParameters, views: Sequence[View], images: tuple[int, int],
    pixel_size: float,
) -> Box:  # fmt: skip
    """Return the box that parameters ask for.

    Parameters
    ----------
    name : str
        Of the series.
    parameters : TomogramParameters
        Nothing of the box's place "auto" (`tasks.placing`).
    views : sequence of View
    images : (ny, nx)
        Shape of the images.
    pixel_size : float
        Of the images [Å].

    Raises
    ------
    WrongParameter
        If the box is too small, or leaves the views along the tilt axis.
    """
    binning = chosen_binning(parameters, pixel_size)
    voxel = pixel_size * binning
    rows, columns = (n // binning for n in aligned_shape(images, views[0].axis))
    if min(rows, columns) < 16:
        raise WrongParameter(
            f"{name}: binning {binning} leaves {rows}×{columns} pixels of "
            f"{images[0]}×{images[1]}: use a smaller binning"
        )
    nz = max(2, round(angstrom(parameters.thickness, voxel) / voxel))
    nx, ny = (
        default if size is None else max(2, round(angstrom(size, voxel) / voxel))
        for size, default in ((parameters.width, columns), (parameters.length, rows))
    )
    down = round(angstrom(parameters.y_shift, voxel) / voxel)
    first = rows // 2 + down - ny // 2
    if first < 0 or first + ny > rows:
        raise WrongParameter(
            f"{name}: rows {first} to {first + ny - 1} of a tomogram {ny} voxels long, shifted by "
            f"{down}, are not among the {rows} of the views: use a smaller length or y_shift"
        )
    x, z = (angstrom(shift, voxel) for shift in (parameters.x_shift, parameters.z_shift))
    return Box(voxel, binning, (rows, columns), (nz, ny, nx), first, (x, down * voxel, z))


def chosen_binning(parameters: TomogramParameters, pixel_size: float) -> int:
    """Return the binning of images of `pixel_size` [Å]: as given, or voxels of at least 5 Å."""
    if parameters.binning != "auto":
        return parameters.binning
    return max(1, math.ceil(FINEST_VOXEL / pixel_size - 1e-6))


def angstrom(length: float | str, voxel: float) -> float:
    """Return a length [Å], given as such or in voxels, as ``350px``."""
    return float(length[:-2]) * voxel if isinstance(length, str) else float(length)


def turned_specimen(views: Sequence[View], parameters: TomogramParameters) -> list[View]:
    """Return the views of the specimen turned as the parameters ask."""
    return [
        replace(
            view,
            tilt=view.tilt + float(parameters.angle_offset),
            x_tilt=view.x_tilt + float(parameters.x_tilt),
        )
        for view in views
    ]


def blocks(length: int, size: int) -> list[tuple[int, int]]:
    """Return [start, stop) of the parts of a length."""
    return [(start, min(start + size, length)) for start in range(0, length, size)]
