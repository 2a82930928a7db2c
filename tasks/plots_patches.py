"""Plot of an alignment without markers: its patches, and how well each view is known."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from tasks.plots import BLUE, GREEN, ORANGE, SIZE, STYLE, Plot, legend_above, svg
from tasks.record import TiltSeries
from tasks.result import Result


def patch_plots(record: TiltSeries, markerfree: Result | None) -> list[Plot]:
    """Return the plot of patches and views, none where none were measured.

    Parameters
    ----------
    record : TiltSeries
    markerfree : Result or None
    """
    about = {} if markerfree is None else markerfree.attributes()
    patches = [row for row in about.get("patches", []) if row["views"]]
    if not patches:
        return []
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2 * SIZE[0], SIZE[1]), layout="constrained")
        left, right = figure.subplots(1, 2)
    drawn = left.scatter(
        [row["X [Å]"] / 10 for row in patches],
        [row["Y [Å]"] / 10 for row in patches],
        s=[20 + 180 * row["views"] / len(record.included) for row in patches],
        c=[row["residual [Å]"] for row in patches],
        cmap="viridis",
    )
    for row in patches:
        place = (row["X [Å]"] / 10, row["Y [Å]"] / 10)
        left.annotate(str(row["patch"]), place, ha="center", va="center", fontsize=7, color="white")
    left.set(xlabel="X [nm]", ylabel="Y [nm]", aspect="equal")
    left.margins(0.15)
    figure.colorbar(drawn, ax=left, label="residual [Å]", shrink=0.8)
    columns = (
        ("patches' residual [Å]", "patches' residual", BLUE, "o"),
        ("error of shift x [Å]", "error of shift x", ORANGE, "^"),
        ("error of shift y [Å]", "error of shift y", GREEN, "s"),
    )
    for column, label, colour, marker in columns:
        known = [row for row in about["table"] if row.get(column) is not None]
        tilts = [record.views[row["view"] - 1].tilt_angle for row in known]
        right.plot(tilts, [row[column] for row in known], marker, color=colour, label=label)
    right.set(xlabel="tilt angle [°]", ylabel="[Å]")
    right.set_ylim(bottom=0)
    legend_above(right)
    residuals = [row["residual [Å]"] for row in patches]
    seen = [row["views"] for row in patches]
    return [
        Plot(
            svg(figure),
            f"Patches: residual of each, {np.median(residuals):.2f} Å in the middle",
            f"{len(patches)} patches seen in {min(seen)} to {max(seen)} views; larger discs are "
            "seen in more. Right, of each view, the patches' residual and the shift's standard "
            "error, from leaving patches out.",
            wide=True,
        )
    ]
