"""Plots and pictures of the report, as data URIs of SVG and JPEG."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil, floor, log10
from statistics import median
from typing import Any

import matplotlib
import matplotlib.image
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tasks.record import TiltSeries, View

# Distinct for all kinds of colour vision (Okabe and Ito 2008).
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#8a8f98"
BAND = "#cbe1f0"  # behind blue points
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.markersize": 4.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "tiltflow",
}
SIZE = (5.6, 3.3)
PICTURE_WIDTH = 560  # pixels
PERCENTILES = (0.5, 99.5)  # of a picture's values, shown black and white
SCALE_BARS = (1, 2, 5)

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Plot:
    """An image in the page: data URI, title, and what it shows, in words."""

    uri: str
    title: str
    alt: str
    wide: bool = False


@dataclass(frozen=True)
class Picture:
    """A grey-scale image in the page, with a scale bar of `bar_percent` of its width."""

    uri: str
    title: str
    alt: str
    bar_percent: float
    bar_text: str


def shift_plot(record: TiltSeries) -> Plot | None:
    """Plot where the specimen's origin appears in each view."""
    known = [(view, view.geometry) for view in record.views if view.geometry is not None]
    if not known:
        return None
    figure, axes = against_tilt("shift [nm]")
    views = [view for view, _ in known]
    draw(axes, views, [geometry.shift_x / 10 for _, geometry in known], "x", "o", BLUE)
    draw(axes, views, [geometry.shift_y / 10 for _, geometry in known], "y", "s", ORANGE)
    legend_above(axes)
    lengths = {
        view.tilt_angle: float(np.hypot(geometry.shift_x, geometry.shift_y)) / 10
        for view, geometry in known
    }
    return Plot(svg(figure), "Shifts found by the alignment", told("Shift", lengths, "nm"))


def intensity_plot(record: TiltSeries, means: Sequence[float]) -> Plot:
    """Plot the mean of each motion-corrected image; excluded views are grey crosses."""
    figure, axes = against_tilt("mean intensity")
    draw(axes, record.views, means, "", "o", BLUE)
    axes.set_ylim(bottom=min(0.0, *means))
    values = {view.tilt_angle: mean for view, mean in zip(record.views, means, strict=True)}
    return Plot(svg(figure), "Mean intensity of the views", told("Mean intensity", values, ""))


def picture(image: Image, pixel_size: float, title: str, alt: str) -> Picture:
    """Return a picture of an image (y, x), first row at the bottom, 560 pixels wide at most.

    Parameters
    ----------
    image : (ny, nx)
    pixel_size : float
        [Å]
    title, alt : str
        Under it, and for those who cannot see it.
    """
    jpeg = _grey(shrunk(image, PICTURE_WIDTH), format="jpeg", pil_kwargs={"quality": 82})
    width = image.shape[1] * pixel_size / 10
    length = scale_bar(width)
    text = f"{length:g} nm" if length < 1000 else f"{length / 1000:g} µm"
    return Picture(_uri(jpeg, "image/jpeg"), title, alt, 100 * length / width, text)


def png(image: Image) -> bytes:
    """Return an image (y, x) as a grey-scale PNG, first row at the bottom."""
    return _grey(image, format="png").getvalue()


def _grey(image: Image, **how: Any) -> BytesIO:
    low, high = np.percentile(image, PERCENTILES)
    buffer = BytesIO()
    matplotlib.image.imsave(
        buffer, image, vmin=low, vmax=max(high, low + 1e-6), cmap="gray", origin="lower", **how
    )
    return buffer


def shrunk(image: Image, widest: int) -> Image:
    """Return an image (y, x) averaged over blocks until its longer side is ≤ `widest`."""
    factor = ceil(max(image.shape) / widest)
    ny, nx = (n // factor for n in image.shape)
    blocks = image[: ny * factor, : nx * factor].reshape(ny, factor, nx, factor)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def angle(degrees: float) -> str:
    """Return an angle for people: one decimal, a real minus sign, no minus before 0.0."""
    return f"{round(degrees, 1) + 0.0:.1f}°".replace("-", "−")


def signed(value: float, decimals: int = 0) -> str:
    """Return a number for people, with its sign."""
    return f"{round(value, decimals) + 0.0:+.{decimals}f}".replace("-", "−")


def scale_bar(width: float) -> float:
    """Return the longest of 1, 2, 5, 10, … that is at most a third of `width`."""
    power = 10.0 ** floor(log10(width / 3))
    return max(step * power for step in SCALE_BARS if step * power <= width / 3)


def against_tilt(label: str) -> tuple[Figure, Axes]:
    """Return an empty plot of something against tilt angle."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        axes.set(xlabel="tilt angle [°]", ylabel=label)
    return figure, axes


def draw(
    axes: Axes,
    views: Sequence[View],
    values: Sequence[float],
    name: str,
    marker: str,
    colour: str,
    reliable: Callable[[View], bool] = lambda view: True,
) -> None:
    """Plot values against tilt: hollow where not reliable, a grey cross where excluded."""
    points = [(v.tilt_angle, y, v) for v, y in zip(views, values, strict=True) if np.isfinite(y)]
    used = [(x, y) for x, y, view in points if view.excluded is None]
    sound = [(x, y) for x, y, view in points if view.excluded is None and reliable(view)]
    out = [(x, y) for x, y, view in points if view.excluded is not None]
    if used:
        axes.plot(*zip(*used, strict=True), color=colour, linewidth=1, alpha=0.5)
        axes.plot(*zip(*used, strict=True), marker, color=colour, markerfacecolor="white")
    axes.plot([x for x, _ in sound], [y for _, y in sound], marker, color=colour, label=name)
    if out:
        axes.plot(*zip(*out, strict=True), "x", color=GREY)


def legend_above(axes: Axes, columns: int = 3) -> None:
    """Put the legend above the axes, where it hides no point."""
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    axes.legend(ncols=columns, frameon=False, **place)


def told(what: str, values: dict[float, float], unit: str) -> str:
    """Return the median and the largest of values (tilt angle → value), in words."""
    finite = {tilt: value for tilt, value in values.items() if np.isfinite(value)}
    if not finite:
        return f"{what} against tilt angle: no values."
    most = max(finite, key=lambda tilt: finite[tilt])
    middle, largest = (f"{v:.3g} {unit}".strip() for v in (median(finite.values()), finite[most]))
    return f"{what} against tilt angle: median {middle}, largest {largest} at {angle(most)}."


def svg(figure: Figure) -> str:
    """Return a figure as a data URI."""
    buffer = BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _uri(buffer, "image/svg+xml")


def _uri(buffer: BytesIO, kind: str) -> str:
    return f"data:{kind};base64,{b64encode(buffer.getvalue()).decode()}"
