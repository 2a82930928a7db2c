"""Plot of the views' extreme pixels before and after erasing."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from tasks.plots import BLUE, GREY, ORANGE, SIZE, STYLE, Plot, angle, legend_above, svg
from tasks.record import TiltSeries
from tasks.result import Result

EXTREMES = (("maximum", ORANGE, "^"), ("minimum", BLUE, "v"))


def extremes_plot(record: TiltSeries, erase: Result | None) -> Plot | None:
    """Plot minimum and maximum of each view, hollow before erasing; excluded views are crosses."""
    if erase is None or not (table := erase.attributes()["table"]):
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
    axes.set(xlabel="tilt angle [°]", ylabel="extreme pixels")
    used = np.array([view.excluded is None for view in record.views])
    tilts = np.array([view.tilt_angle for view in record.views])
    after: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
    for name, colour, marker in EXTREMES:
        before = np.array([row[f"{name} before"] for row in table], dtype=np.float64)
        after[name] = np.array([row[f"{name} after"] for row in table], dtype=np.float64)
        changed = used & (before != after[name])
        plain: dict[str, Any] = {"linestyle": "", "marker": marker, "color": colour}
        axes.vlines(tilts[changed], after[name][changed], before[changed], colour, linewidth=0.8)
        axes.plot(
            tilts[used], before[used], markerfacecolor="white", label=f"{name} before", **plain
        )
        axes.plot(tilts[used], after[name][used], label=f"{name} after", **plain)
        axes.plot(tilts[~used], after[name][~used], "x", color=GREY)
    # Hits are hundreds of times as bright as noise: all that is left would be a line at zero.
    axes.set_yscale("symlog", linthresh=float(max(1e-6, np.abs(list(after.values())).max())))
    legend_above(axes, columns=2)
    hits, pixels = (sum(row[what] for row in table) for what in ("hits", "pixels"))
    most = max(range(len(table)), key=lambda i: int(table[i]["hits"]))
    told = f"{hits} hits, {pixels} pixels erased; most, {table[most]['hits']}, at "
    return Plot(
        svg(figure),
        "Extreme pixels before and after erasing",
        f"Minimum and maximum of the views against tilt angle: {told}{angle(tilts[most])}.",
    )
