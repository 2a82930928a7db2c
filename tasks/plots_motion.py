"""Plots of the motion of the movies: how far, along which paths, and where in the frame."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from kernels.motion_local import LocalField
from tasks.plots import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SIZE,
    STYLE,
    Image,
    Plot,
    angle,
    scale_bar,
    shrunk,
    svg,
    told,
)
from tasks.record import TiltSeries, View

Floats = NDArray[np.floating[Any]]

MODELS = {"local": "local", "global": "whole frame", "none": "nothing found", "sum": "only summed"}
MARKERS = {"local": "o", "global": "s", "none": "X", "sum": "d"}
INK = "#1d232b"
ARROWS = 9  # along the longer side of the frame
BACKGROUND = 240  # pixels
LONGEST = 0.85  # of the distance between two arrows' starts


def motion_plot(record: TiltSeries) -> Plot | None:
    """Plot how far the specimen moved during each movie, and what each movie supports."""
    known = [(view, view.motion) for view in record.views if view.motion is not None]
    if not known or all(motion.model == "sum" for _, motion in known):
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        axes.set(xlabel="tilt angle [°]", ylabel="motion [Å]")
        handles = []
        for name, colour in (("total", BLUE), ("early", ORANGE), ("late", GREEN)):
            points = [(v, float(getattr(m, name))) for v, m in known]
            _by_model(axes, points, colour)
            title = name if name == "total" else f"{'1st' if name == 'early' else '2nd'} half"
            handles.append(Line2D([], [], color=colour, label=title))
        if any(motion.local > 0 for _, motion in known):
            axes.plot(
                [view.tilt_angle for view, m in known if m.model == "local"],
                [m.local for _, m in known if m.model == "local"],
                ".:",
                color=INK,
                linewidth=1.2,
            )
            handles.append(Line2D([], [], color=INK, linestyle=":", marker=".", label="local, rms"))
        handles += [
            Line2D([], [], color=GREY, marker=MARKERS[model], linestyle="", label=MODELS[model])
            for model in MODELS
            if any(motion.model == model for _, motion in known)
        ]
        axes.set_ylim(bottom=0)
        axes.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=4,
            frameon=False,
            borderaxespad=0.2,
            columnspacing=1.2,
            handlelength=1.4,
        )
    totals = {view.tilt_angle: motion.total for view, motion in known if view.excluded is None}
    counts = [(MODELS[m], sum(motion.model == m for _, motion in known)) for m in MODELS]
    tally = ", ".join(f"{name} {count}" for name, count in counts if count)
    return Plot(svg(figure), f"Motion during each movie ({tally})", told("Motion", totals, "Å"))


def _by_model(axes: Axes, points: Sequence[tuple[View, float]], colour: str) -> None:
    """Plot values against tilt, the marker telling the model; grey where the view is left out."""
    used = [(v.tilt_angle, y) for v, y in points if v.excluded is None and np.isfinite(y)]
    axes.plot([x for x, _ in used], [y for _, y in used], color=colour, linewidth=1, alpha=0.5)
    for view, y in points:
        if view.motion is None or not np.isfinite(y):
            continue
        shade = colour if view.excluded is None else GREY
        axes.plot(
            [view.tilt_angle],
            [y],
            MARKERS[view.motion.model],
            color=shade,
            markerfacecolor=shade if view.motion.reliable else "white",
            clip_on=False,
        )


def trajectory_plot(
    record: TiltSeries, shifts: Floats, fields: Sequence[LocalField | None]
) -> Plot | None:
    """Plot the path of the specimen during each movie, all panels on one scale.

    Parameters
    ----------
    record : TiltSeries
    shifts : (view, frame, 2)
        y, x in pixels of the raw movie; NaN for frames left out.
    fields : sequence of LocalField or None
        Local motion of each view in the frames used; faint paths show it, half-way to the corners.
    """
    pixel = record.acquisition.pixel_size
    paths = [s[np.isfinite(s).all(axis=1)] * pixel for s in shifts]
    if not any(len(path) > 1 and np.ptp(path) > 0 for path in paths):
        return None
    corners = [_corners(path, field, pixel) for path, field in zip(paths, fields, strict=True)]
    extents = [np.ptp(p, axis=0).max() for p in paths if len(p) > 1]
    # One wild view must not shrink all others to dots; it leaves its panel.
    half = max(0.5, 0.6 * float(np.percentile(extents, 90)))
    # Between 8 and 12 columns, the fewest rows with the fewest gaps.
    columns = min(range(8, 13), key=lambda n: (ceil(len(paths) / n), -len(paths) % n))
    columns = min(columns, len(paths))
    rows = ceil(len(paths) / columns)
    with matplotlib.rc_context(STYLE):
        width = 11.2 / columns
        figure = Figure(
            figsize=(11.2, (width + 0.22) * rows),
            layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01),
        )
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, view, path, around in zip(panels, record.views, paths, corners, strict=False):
            included = view.excluded is None
            missing = view.motion is not None and view.motion.model == "none"
            mark = "" if included else " ✕"
            axes.set_title(angle(view.tilt_angle) + mark, fontsize=9, pad=3)
            axes.set(xticks=[], yticks=[], aspect="equal", xlim=(-half, half), ylim=(-half, half))
            for spine in axes.spines.values():
                spine.set(visible=True, color="#d5d8dc")
            if not len(path) or missing:
                axes.text(0, 0, "no motion\nfound" if missing else "", ha="center", va="center",
                          fontsize=8, color=GREY)  # fmt: skip
                continue
            colour = BLUE if included else GREY
            middle = (path.max(axis=0) + path.min(axis=0)) / 2
            for other in around:
                axes.plot(*(other - middle).T[::-1], color=colour, linewidth=0.8, alpha=0.5)
            y, x = (path - middle).T
            axes.plot(x, y, "-", color=colour, linewidth=1.2, marker=".", markersize=3)
            axes.plot(x[:1], y[:1], "o", color=ORANGE, markersize=4.5)
        for axes in panels[len(paths) :]:
            axes.set_visible(False)
    local = any(field is not None for field in fields)
    return Plot(
        svg(figure),
        f"Path of the specimen in each movie; panels are {2 * half:.1f} Å wide, ● is the start"
        + ("; faint: half-way to the four corners" if local else ""),
        f"Small panels with the path of the specimen during each of {len(paths)} movies.",
        wide=True,
    )


def _corners(path: Floats, field: LocalField | None, pixel: float) -> list[Floats]:
    if field is None or len(field.coefficients) != len(path):
        return []
    y, x = np.array([-0.25, -0.25, 0.25, 0.25]), np.array([-0.25, 0.25, -0.25, 0.25])
    moved = field.at(y, x) * pixel
    return [path + moved[:, :, i] - moved[0, :, i] for i in range(4)]


def local_plot(
    field: LocalField, pixel: float, image: Image, image_pixel: float, tilt: float
) -> Plot:
    """Plot the local motion in one view, its paths drawn longer than they are, over the image.

    Parameters
    ----------
    field : LocalField
    pixel : float
        Of the movie [Å].
    image : (ny, nx)
        Motion-corrected, of that view.
    image_pixel : float
        [Å]
    tilt : float
        Angle of the view [°].
    """
    size = np.array(image.shape) * image_pixel / 10  # nm
    step = size.max() / ARROWS
    counts = [max(2, round(length / step)) for length in size]
    y, x = np.meshgrid(*((np.arange(n) + 0.5) / n - 0.5 for n in counts), indexing="ij")
    moved = (field.at(y, x) - field.at(y, x)[:1]) * pixel  # (n, 2, …) Å
    longest = float(np.hypot(moved[:, 0], moved[:, 1]).max())
    magnified = LONGEST * step * 10 / max(longest, 1e-6)
    magnified = float(f"{magnified:.1g}")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(SIZE[0], SIZE[0] * size[0] / size[1] + 0.2), layout="constrained")
        axes = figure.subplots()
        small = gaussian_filter(shrunk(image, BACKGROUND), 0.8)
        low, high = np.percentile(small, (1, 99))
        half = size / 2
        axes.imshow(
            small, cmap="gray", vmin=low - (high - low), vmax=high, origin="lower",
            extent=(-half[1], half[1], -half[0], half[0]), interpolation="none",
        )  # fmt: skip
        paths = moved * magnified / 10 + np.stack([y * size[0], x * size[1]])
        for path in paths.reshape(len(paths), 2, -1).transpose(2, 0, 1):
            axes.plot(path[:, 1], path[:, 0], color="white", linewidth=3, alpha=0.75)
            axes.plot(path[:, 1], path[:, 0], color=BLUE, linewidth=1.5)
            axes.plot(path[:1, 1], path[:1, 0], "o", color=ORANGE, markersize=4)
        key = scale_bar(3 * longest)
        axes.plot(
            -half[1] + 0.04 * size[1] + np.array([0, key * magnified / 10]),
            2 * [half[0] + 0.03 * size[0]],
            color=BLUE, linewidth=2.5, clip_on=False,
        )  # fmt: skip
        axes.text(
            -half[1] + 0.06 * size[1] + key * magnified / 10, half[0] + 0.03 * size[0],
            f"{key:g} Å of motion ({magnified:g} × the scale)", va="center", fontsize=9,
        )  # fmt: skip
        axes.set(xlabel="x [nm]", ylabel="y [nm]", xlim=(-half[1], half[1]))
        axes.set_ylim(-half[0], half[0])
        axes.grid(visible=False)
    return Plot(
        svg(figure),
        f"Largest local motion, {angle(tilt)}, ● is the start; "
        "what the whole frame does is taken out",
        f"Local motion of the view at {angle(tilt)}: up to {longest:.1f} Å.",
    )


def most_local(record: TiltSeries, fields: Sequence[LocalField | None]) -> int | None:
    """Return the index of the view that is used and has the largest local motion, or None."""
    sizes = {
        i: float(((field.coefficients[-1] - field.coefficients[0]) ** 2).sum())
        for i, field in enumerate(fields)
        if field is not None and record.views[i].excluded is None
    }
    return max(sizes, key=lambda i: sizes[i]) if sizes else None
