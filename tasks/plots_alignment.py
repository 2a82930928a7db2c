"""Plots of an alignment by beads: residuals, what was solved, and the beads themselves."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from kernels.geometry import project
from tasks.bead_store import read_solved, read_tracks
from tasks.plots import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SIZE,
    STYLE,
    Plot,
    angle,
    legend_above,
    scale_bar,
    svg,
)
from tasks.record import TiltSeries
from tasks.result import Result

Floats = NDArray[np.float64]

# Of what is solved: name, label.
SOLVED = (
    ("axis", "tilt axis [°]"),
    ("magnification", "magnification [‰ off]"),
    ("tilt", "tilt − nominal [°]"),
)
MONTAGE_BEADS, MONTAGE_VIEWS = 5, 9
ARROWS = 40  # a typical residual is drawn as this part of the field's width


def alignment_plots(record: TiltSeries, align: Result | None, images: Result | None) -> list[Plot]:
    """Return the plots of an alignment by beads, none without one.

    Parameters
    ----------
    record : TiltSeries
        With the geometry of `align`.
    align : Result or None
    images : Result or None
        Of the views that are shown with their beads.
    """
    if align is None:
        return []
    made = align.attributes()["decides"]["views"]
    used = {
        i
        for i, (view, own) in enumerate(zip(record.views, made, strict=True))
        if view.geometry is not None
        and own["geometry"] is not None
        and view.geometry.model_dump() == {**view.geometry.model_dump(), **own["geometry"]}
    }
    if not used:  # the branch uses another alignment
        return []
    plots = [
        residual_plot(record, align),
        solution_plot(record, align),
        field_plot(record, align),
    ]
    if images is not None:
        plots.append(bead_plot(record, align, images))
    return plots


def residual_plot(record: TiltSeries, align: Result) -> Plot:
    """Plot mean and largest residual of each view, and the mean of each bead [nm]."""
    about = align.attributes()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2 * SIZE[0], SIZE[1]), layout="constrained")
        left, right = figure.subplots(1, 2)
    rows = [row for row in about["table"] if row["beads"]]
    tilts = [record.views[row["view"] - 1].tilt_angle for row in rows]
    for name, colour, marker in (("mean", BLUE, "o"), ("largest", ORANGE, "^")):
        values = [row[f"{name} residual [nm]"] for row in rows]
        left.plot(tilts, values, marker, color=colour, label=name)
    left.set(xlabel="tilt angle [°]", ylabel="residual [nm]")
    left.set_ylim(bottom=0)
    legend_above(left)
    beads = about["beads"]
    weights = np.array([row["weight"] for row in beads])
    right.bar(
        [row["bead"] for row in beads],
        [row["mean residual [nm]"] for row in beads],
        color=[BLUE if weight >= 0.5 else ORANGE for weight in weights],
    )
    right.set(xlabel="bead", ylabel="mean residual [nm]")
    mean, apart = about["mean_residual_A"] / 10, about["left_out_residual_A"] / 10
    return Plot(
        svg(figure),
        f"Residuals of the beads: mean {mean:.3f} nm, {apart:.3f} nm for beads left out",
        f"Residual of each view against tilt angle, and of {len(beads)} beads; orange bars are "
        "beads that mostly do not fit.",
        wide=True,
    )


def solution_plot(record: TiltSeries, align: Result) -> Plot:
    """Plot axis, magnification and tilt as solved, with standard errors, against tilt."""
    about = align.attributes()
    errors = {row["view"] - 1: row for row in about["variables"]}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2 * SIZE[0], SIZE[1]), layout="constrained")
        panels = figure.subplots(1, len(SOLVED))
    for axes, (name, label) in zip(panels, SOLVED, strict=True):
        tilts, values, bars = [], [], []
        for i, row in errors.items():
            view, found = record.views[i], record.geometry(i)
            value: dict[str, float] = {
                "axis": found.axis,
                "magnification": 1000 * (found.magnification - 1),
                "tilt": found.tilt - view.tilt_angle,
            }
            tilts.append(view.tilt_angle)
            values.append(value[name])
            bars.append(row[name] * (1000 if name == "magnification" else 1))
        axes.errorbar(tilts, values, bars, fmt="o", color=BLUE, ecolor=GREY, linewidth=0.8)
        axes.set(xlabel="tilt angle [°]", ylabel=label)
    free = [name for name, mode in about["model"].items() if mode != "fixed"]
    return Plot(
        svg(figure),
        "What the alignment solved, with standard errors",
        f"Tilt axis, magnification and tilt of each view; free are shifts, {', '.join(free)}.",
        wide=True,
    )


def field_plot(record: TiltSeries, align: Result) -> Plot:
    """Plot the residuals of all places as arrows on the field of a view, magnified."""
    tracks, _ = read_tracks(align, len(record.views))
    solved = read_solved(align)
    kept = np.isfinite(solved).all(axis=1) & (solved[:, 2] > 0)
    places, arrows = tracks.xy[kept] / 10, solved[kept, :2] / 10
    typical = float(np.median(np.hypot(*arrows.T))) or 1.0
    width = float(np.ptp(places[:, 0])) or 1.0
    tilts = np.array([view.tilt_angle for view in record.views])[tracks.view[kept]]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(SIZE[0], 0.8 * SIZE[0]), layout="constrained")
        axes = figure.subplots()
    drawn = axes.quiver(
        *places.T,
        *arrows.T,
        tilts,
        cmap="viridis",
        angles="xy",
        scale_units="xy",
        scale=typical * ARROWS / width,
        width=0.002,
    )
    axes.set(xlabel="x [nm]", ylabel="y [nm]", aspect="equal")
    figure.colorbar(drawn, ax=axes, label="tilt angle [°]", shrink=0.8)
    return Plot(
        svg(figure),
        f"Residuals over the field; arrows are drawn {width / typical / ARROWS:.0f} times longer",
        f"Arrows from {len(places)} places of beads; half of the residuals exceed "
        f"{typical:.3f} nm.",
    )


def bead_plot(record: TiltSeries, align: Result, images: Result) -> Plot:
    """Plot some beads in some views: where they were found, and where the solution has them."""
    tracks, points = read_tracks(align, len(record.views))
    about = align.attributes()
    rows, columns = about["shape"]
    diameter = float(about.get("diameter_A") or 100.0)
    stack = images.images()
    pixel = float(about["pixel_size"])
    half = round(1.6 * diameter / pixel)
    counts = np.bincount(tracks.point, minlength=len(points))
    beads = np.argsort(counts, kind="stable")[::-1][:MONTAGE_BEADS]
    seen = sorted(set(tracks.view.tolist()))
    views = [seen[k] for k in np.linspace(0, len(seen) - 1, MONTAGE_VIEWS).round().astype(int)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2 * SIZE[0], 1.25 * len(beads) + 0.4), layout="constrained")
        panels = np.atleast_2d(figure.subplots(len(beads), len(views)))
    middle = np.array([columns // 2, rows // 2])
    for column, i in enumerate(dict.fromkeys(views)):
        image = np.asarray(stack[i])
        expected = project(points, record.geometry(i)) / pixel + middle
        for row, bead in enumerate(beads.tolist()):
            axes = panels[row, column]
            found = tracks.xy[(tracks.view == i) & (tracks.point == bead)] / pixel + middle
            _crop(axes, image, expected[bead], found, half, diameter / pixel / 2)
            if row == 0:
                axes.set_title(angle(record.views[i].tilt_angle), fontsize=9)
            if column == 0:
                axes.set_ylabel(f"bead {bead + 1}", fontsize=9)
    for axes in panels.ravel():
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
    bar = scale_bar(2 * half * pixel / 10)
    return Plot(
        svg(figure),
        "Beads in views: found (cross) and as solved (circle of the beads' size)",
        f"Crops of {2 * half * pixel / 10:.0f} nm around {len(beads)} beads in {len(views)} views; "
        f"a third of a crop is about {bar:g} nm.",
        wide=True,
    )


def _crop(
    axes: Any, image: NDArray[np.float32], middle: Floats, found: Floats, half: int, radius: float
) -> None:
    x, y = middle
    column, row = round(x), round(y)
    ny, nx = image.shape
    if not (half <= row < ny - half and half <= column < nx - half):
        axes.set_facecolor("#f4f5f6")
        return
    box = image[row - half : row + half + 1, column - half : column + half + 1]
    low, high = np.percentile(box, (1, 99))
    axes.imshow(box, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="none")
    axes.add_patch(
        Circle((x - column + half, y - row + half), radius, fill=False, color=GREEN, linewidth=0.9)
    )
    for place in found:
        axes.plot(place[0] - column + half, place[1] - row + half, "+", color=ORANGE, markersize=6)
