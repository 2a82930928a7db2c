"""Plot of the specimen's faces on the middle slices of the quick tomogram."""

from __future__ import annotations

from math import hypot, radians, tan

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tasks.chunks.thickness import XZ, YZ
from tasks.plots import BLUE, ORANGE, PERCENTILES, STYLE, Plot, svg
from tasks.position import Position, found
from tasks.result import Result

WIDTH, HEIGHT = 11.2, 6.0


def faces(position: Position, along_x: bool, ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Z (2, n) of the lower and the upper face at `ends` along x, or along y [Å]."""
    slope_x, slope_y = -tan(radians(position.pitch)), tan(radians(position.x_tilt))
    middle = position.z_centre + ends * (slope_x if along_x else slope_y)
    half = 0.5 * position.thickness * hypot(1.0, slope_x, slope_y)
    return np.array([middle - half, middle + half])


def thickness_plot(result: Result | None) -> Plot | None:
    """Plot XZ and YZ slices with the faces that were found, None without a result."""
    if result is None or XZ not in result.group():
        return None
    position, voxel = found(result), float(result.attributes()["pixel_size"])
    images = {name: np.asarray(result.array(name)[:]) for name in (XZ, YZ)}
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        flat = 2 * images[XZ].shape[0] < images[XZ].shape[1]
        panels = figure.subplots(*((2, 1) if flat else (1, 2)))
    for axes, (name, image) in zip(panels, images.items(), strict=True):
        _slice(axes, image, voxel)
        axes.set(xlabel=f"{name[0].upper()} [nm]", ylabel="Z [nm]")
        _faces(axes, position, name == XZ)
    return Plot(
        svg(figure),
        f"Specimen in a quick tomogram, middle XZ and YZ slices; {position.verdict}",
        f"Slices of the quick tomogram with the specimen's faces. {result.attributes()['message']}",
        wide=True,
    )


def _slice(axes: Axes, image: NDArray[np.float32], voxel: float) -> None:
    nz, nx = image.shape
    low, high = np.percentile(image, PERCENTILES)
    edges = [(edge - 0.5) * voxel / 10 for edge in (-(nx // 2), nx - nx // 2)]
    edges += [(edge - 0.5) * voxel / 10 for edge in (-(nz // 2), nz - nz // 2)]
    axes.imshow(
        image,
        cmap="gray",
        vmin=low,
        vmax=max(high, low + 1e-6),
        origin="lower",
        extent=(edges[0], edges[1], edges[2], edges[3]),
    )


def _faces(axes: Axes, position: Position, along_x: bool) -> None:
    ends = np.array(axes.get_xlim()) * 10
    if not np.isfinite(faces(position, along_x, ends)).all():
        return
    colour = BLUE if position.verdict == "good" else ORANGE
    for face in faces(position, along_x, ends):
        axes.plot(ends / 10, face / 10, color=colour, linewidth=1.4)
    axes.set_xlim(*(ends / 10))
