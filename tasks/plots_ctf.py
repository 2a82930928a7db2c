"""Plots of the CTF along a series: defocus, reach of the fits, phase shift, defocus gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kernels.geometry import View as Geometry
from kernels.geometry import defocus_gradient
from tasks.plots import (
    BAND,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SIZE,
    STYLE,
    Plot,
    against_tilt,
    draw,
    legend_above,
    signed,
    svg,
    told,
)
from tasks.record import CtfEstimate, TiltSeries, View
from tasks.tables import ANGSTROM_PER_MICROMETRE

Row = Mapping[str, Any]
Known = Sequence[tuple[View, CtfEstimate]]

STEEPEST = 85.0  # degrees up to which a gradient is drawn
HEIGHT = {1: 3.3, 2: 4.4, 3: 5.6}  # inches, by panels


def ctf_plot(record: TiltSeries, expected: Sequence[Row] = ()) -> Plot | None:
    """Plot defocus along and across the astigmatism, the reach of the fits, and phase shifts.

    Parameters
    ----------
    record : TiltSeries
    expected : sequence of mapping
        What the other views expect of view `view` (from 0): `defocus` and `sigma` [Å].
    """
    known = [(view, view.ctf) for view in record.views if view.ctf is not None]
    if not known:
        return None
    used = [(view, ctf) for view, ctf in known if view.excluded is None]
    defoci = {v.tilt_angle: ctf.defocus / ANGSTROM_PER_MICROMETRE for v, ctf in used}
    panels = [(3, _defocus, "Defocus", told("Defocus", defoci, "µm"))]
    if any(ctf.fit_resolution for _, ctf in known):
        values = {v.tilt_angle: ctf.fit_resolution or nan for v, ctf in used}
        panels.append((2, _reach, "reach of the fits", told("Reach of the fit", values, "Å")))
    if any(ctf.phase_shift for _, ctf in known):
        values = {v.tilt_angle: ctf.phase_shift for v, ctf in used}
        panels.append((2, _phase, "phase shift", told("Phase shift", values, "°")))
    ratios, draws, names, words = (list(column) for column in zip(*panels, strict=True))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(SIZE[0], HEIGHT[len(panels)]), layout="constrained")
        column = figure.subplots(len(panels), 1, sharex=True, height_ratios=ratios, squeeze=False)
        for axes, panel in zip(column[:, 0], draws, strict=True):
            panel(axes, known)
        _band(column[0, 0], record, expected)
        legend_above(column[0, 0])
        column[-1, 0].set_xlabel("tilt angle [°]")
        figure.align_ylabels()
    doubtful = sum(not ctf.reliable for _, ctf in used)
    if doubtful:
        words.append(f"{doubtful} of {len(used)} views are not reliable.")
    title = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return Plot(svg(figure), title, " ".join(words))


def _reliable(view: View) -> bool:
    return view.ctf is not None and view.ctf.reliable


def _defocus(axes: Axes, known: Known) -> None:
    views = [view for view, _ in known]
    for name, marker, colour, values in (
        ("U", "o", BLUE, [ctf.defocus_u for _, ctf in known]),
        ("V", "s", ORANGE, [ctf.defocus_v for _, ctf in known]),
    ):
        heights = [value / ANGSTROM_PER_MICROMETRE for value in values]
        errors = [(ctf.uncertainty or nan) / ANGSTROM_PER_MICROMETRE for _, ctf in known]
        _bars(axes, views, heights, errors, colour)
        draw(axes, views, heights, f"defocus {name}", marker, colour, _reliable)
    axes.set_ylabel("underfocus [µm]")


def _reach(axes: Axes, known: Known) -> None:
    views = [view for view, _ in known]
    draw(axes, views, [c.fit_resolution or nan for _, c in known], "", "D", GREEN, _reliable)
    axes.set_ylabel("fit reaches [Å]")
    axes.invert_yaxis()


def _phase(axes: Axes, known: Known) -> None:
    views = [view for view, _ in known]
    draw(axes, views, [ctf.phase_shift for _, ctf in known], "", "o", BLUE, _reliable)
    axes.set_ylabel("phase shift [°]")


def _bars(
    axes: Axes,
    views: Sequence[View],
    heights: Sequence[float],
    errors: Sequence[float],
    colour: str,
) -> None:
    """Draw one standard error up and down, of views that are not left out."""
    bars = [
        (view.tilt_angle, y - error, y + error)
        for view, y, error in zip(views, heights, errors, strict=True)
        if view.excluded is None and isfinite(y) and isfinite(error)
    ]
    if bars:
        axes.vlines(*zip(*bars, strict=True), color=colour, linewidth=1.2)


def _band(axes: Axes, record: TiltSeries, expected: Sequence[Row]) -> None:
    """Draw behind the points what the other views expect, ± one standard deviation."""
    told = {row["view"]: row for row in expected if row["sigma"] and isfinite(row["sigma"])}
    shown = [told.get(i) for i, view in enumerate(record.views) if view.excluded is None]
    tilts = [view.tilt_angle for view in record.views if view.excluded is None]
    if not told:
        return
    # The points decide what is shown: where the others know little, the band leaves the panel.
    limits = axes.get_ylim()
    middle = np.array([row["defocus"] if row else nan for row in shown]) / ANGSTROM_PER_MICROMETRE
    sigma = np.array([row["sigma"] if row else nan for row in shown]) / ANGSTROM_PER_MICROMETRE
    axes.fill_between(
        tilts, middle - sigma, middle + sigma,
        color=BAND, linewidth=0, zorder=0.5, label="mean, by other views",
    )  # fmt: skip
    axes.set_ylim(limits)


def gradient_plot(record: TiltSeries, gradients: Sequence[Row]) -> Plot | None:
    """Plot the measured defocus gradient across the tilt axis, and what either hand predicts.

    Parameters
    ----------
    record : TiltSeries
    gradients : sequence of mapping
        `gradient_x` and `gradient_x_error` [Å of defocus per Å of x′] of view `view` (from 0).
    """
    rows = [row for row in gradients if record.views[row["view"]].excluded is None]
    if not rows:
        return None
    views = [record.views[row["view"]] for row in rows]
    measured = [float(row["gradient_x"]) for row in rows]
    errors = [float(row["gradient_x_error"]) for row in rows]
    pretilt = record.pretilt
    plane = (pretilt.about_axis, pretilt.across_axis) if pretilt else (0.0, 0.0)
    tilts = np.linspace(views[0].tilt_angle, views[-1].tilt_angle, 121)
    tilts = tilts[np.abs(tilts + plane[0]) < STEEPEST]
    curves = {
        hand: np.array([defocus_gradient(Geometry(tilt, 0.0), hand, plane)[0] for tilt in tilts])
        for hand in (1, -1)
    }
    figure, axes = against_tilt("defocus gradient over x′ [Å/Å]")
    with matplotlib.rc_context(STYLE):
        for hand, colour in ((1, GREEN), (-1, ORANGE)):
            believed = hand == (record.handedness or record).hand  # of the axis as imported
            axes.plot(
                tilts, curves[hand], "-" if believed else "--",
                color=colour, linewidth=2 if believed else 1.2, label=f"hand {signed(hand)}",
            )  # fmt: skip
        _bars(axes, views, measured, errors, GREY)
        _points(axes, views, measured)
        # A view without rings may show anything: it must not flatten the others.
        steepest = max(float(np.abs(curve).max(initial=0.1)) for curve in curves.values())
        known = [abs(y) for y, e in zip(measured, errors, strict=True) if e < steepest]
        limit = 1.15 * max([steepest, *known])
        axes.set_ylim(-limit, limit)
        legend_above(axes)
    at = [defocus_gradient(Geometry(view.tilt_angle, 0.0), 1, plane)[0] for view in views]
    nearer = sum(y * expected > 0 for y, expected in zip(measured, at, strict=True))
    words = (
        f"Defocus gradient across the tilt axis of {len(rows)} views: {nearer} lie nearer to "
        f"hand +1, {len(rows) - nearer} nearer to hand −1."
    )
    return Plot(svg(figure), f"Defocus gradient: {what_hand(record)}", words)


def _points(axes: Axes, views: Sequence[View], values: Sequence[float]) -> None:
    x = [view.tilt_angle for view in views]
    axes.plot(x, values, "o", color=BLUE, markerfacecolor="white")
    sound = [(v.tilt_angle, y) for v, y in zip(views, values, strict=True) if _reliable(v)]
    axes.plot([x for x, _ in sound], [y for _, y in sound], "o", color=BLUE, label="measured")


def what_hand(record: TiltSeries) -> str:
    """Return in words which hand is used, how sure it is, and the specimen's pre-tilt."""
    seen = record.handedness
    words = f"hand {signed(record.hand)}" if record.hand else "hand unknown"
    if seen is not None:
        shown = "cannot tell" if seen.measured is None else f"show {signed(seen.measured)}"
        sure = f"{min(100 * seen.confidence, 99.9):.1f} %"
        if seen.hand and record.hand == -seen.hand:
            words += f", the axis turned by 180° for {signed(seen.hand)} ({sure})"
        elif seen.hand and not seen.forced and seen.measured is None:
            words += " as the file has it"
        elif seen.forced:
            words += f" as given; the spectra {shown} ({sure})"
        else:
            words += f" ({'' if seen.confidence < 0.999 else '> '}{sure})"
    if record.pretilt is not None:
        angle, error = record.pretilt.about_axis, record.pretilt.about_error
        words += f", pre-tilt {signed(angle, 1)} ± {error:.1f}°"
    return words
