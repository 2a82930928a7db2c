"""Plot of one view's CTF: spectrum beside the fitted rings, and averages along equal phase."""

from __future__ import annotations

from math import ceil
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, map_coordinates

from kernels.ctf import Ctf, coefficients, ctf_2d
from kernels.ctf_rings import Optics, contrast
from tasks.plots import BAND, BLUE, GREEN, GREY, ORANGE, SIZE, STYLE, Plot, angle, svg
from tasks.record import Acquisition, CtfEstimate, TiltSeries
from tasks.tables import ANGSTROM_PER_MICROMETRE

Floats = NDArray[np.floating[Any]]

CURVES = ("frequency", "average", "equiphase", "fit", "correlation", "noise")
LOWEST, HIGHEST = 1 / 30, 1 / 5  # 1/Å, shown where no profile tells what was fitted
LINES = 1.5  # pixels from the axes that hold the detector's lines
DIRECTIONS = 180  # of a half circle, in which the power is averaged
ARC = 3.0  # degrees: standard deviation of that average
NEAR = 0.7  # rings: standard deviation of the average that tells how strong they are
WHITE = 1.8  # strengths above the mean that are shown white, and below it black
LEVELS = 15  # of grey: more would only make the page larger
FADED = 0.3  # contrast of the fitted rings beyond the resolution of the fit
TICKS = (30, 20, 15, 10, 8, 6, 5, 4, 3)  # Å
# Of the picture, the averages and their correlation: left, bottom, width, height.
PLACES = ((0.015, 0.16, 0.455, 0.772), (0.575, 0.43, 0.41, 0.53), (0.575, 0.14, 0.41, 0.25))


def shown_views(record: TiltSeries, fitted: NDArray[np.bool_]) -> list[int]:
    """Return at most five views worth a look, by tilt.

    The worst of those that are not reliable, the lowest tilt, both ends, and −30° and 30°.

    Parameters
    ----------
    record : TiltSeries
    fitted : (view,) bool
        Whether there is a profile.
    """
    ctfs = {i: record.views[i].ctf for i in record.included if fitted[i]}
    known = {i: ctf for i, ctf in ctfs.items() if ctf is not None}
    if not known:
        return []
    doubtful = [i for i, ctf in known.items() if not ctf.reliable]
    worst = sorted(doubtful, key=lambda i: known[i].score or 0.0)[:1]
    tilts = {i: record.views[i].tilt_angle for i in known}
    near = [min(tilts, key=lambda i: abs(tilts[i] - at)) for at in (0, -90, 90, -30, 30)]
    return sorted(list(dict.fromkeys(worst + near))[:5])


def spectrum_panel(
    record: TiltSeries, index: int, spectrum: Floats, profile: Floats, pixel: float
) -> Plot:
    """Plot the spectrum of a view beside its fitted rings, and the averages along equal phase.

    Parameters
    ----------
    record : TiltSeries
    index : int
        Of a view that has a CTF, from 0.
    spectrum : (ky, kx)
        Mean power of its tiles, a half spectrum, zero frequency first.
    profile : (curve, k)
        Frequency [1/Å], average, equi-phase average, fit, local correlation, and (not in older
        results) the standard deviation of the equi-phase average; NaN where nothing was fitted.
    pixel : float
        Of the image that the spectrum belongs to [Å].

    Raises
    ------
    ValueError
        If the view has no CTF.
    """
    view = record.views[index]
    ctf = view.ctf
    if ctf is None:
        raise ValueError(f"view {index + 1} of {record.name} has no CTF")
    curves = dict(zip(CURVES, profile, strict=False))
    fitted = bool(np.isfinite(curves["frequency"]).all())
    ends = (curves["frequency"][0], curves["frequency"][-1]) if fitted else (LOWEST, HIGHEST)
    with matplotlib.rc_context({**STYLE, "font.size": 9}):
        # Fixed places: finding them would take as long as all the drawing.
        figure = Figure(figsize=SIZE)
        left, above, below = (figure.add_axes(place) for place in PLACES)
        _halves(left, ctf, record.acquisition, spectrum, pixel, ends)
        if fitted:
            _curves(above, below, curves, ctf.fit_resolution)
        else:
            above.set_axis_off()
            below.set_axis_off()
            above.text(0.5, 0.5, "no fit of its own", ha="center", va="center", color=GREY)
    u, v = (value / ANGSTROM_PER_MICROMETRE for value in (ctf.defocus_u, ctf.defocus_v))
    title = f"View {index + 1}, {angle(view.tilt_angle)}: {u:.3f} and {v:.3f} µm"
    words = (
        f"Power spectrum of the view at {angle(view.tilt_angle)} of {record.name}, left half, "
        f"beside the rings of {u:.3f} µm at {angle(ctf.astigmatism_angle)} and {v:.3f} µm across."
    )
    if ctf.fit_resolution:
        title += f", fit to {ctf.fit_resolution:.1f} Å"
        words += f" They agree to {ctf.fit_resolution:.1f} Å."
    if not ctf.reliable:
        problem = ctf.problem or "from the other views"
        title += f"; not reliable: {problem}"
        words += f" Not reliable: {problem}."
    return Plot(svg(figure), title, words)


def _halves(
    axes: Axes,
    ctf: CtfEstimate,
    acquisition: Acquisition,
    spectrum: Floats,
    pixel: float,
    ends: tuple[float, float],
) -> None:
    """Draw the measured power left of zero frequency, and the fitted rings right of it."""
    model = ctf.model(acquisition)
    side = spectrum.shape[0] * pixel
    n = min(int(ends[1] * side), spectrum.shape[1] - 1)
    x = np.arange(-n, n + 1) / side
    ky, kx = x[:, None], x[None, n:]
    k = np.hypot(ky, kx)
    shown = (k >= ends[0]) & (k <= ends[1])
    # Power at (−kx, ky) is that at (kx, −ky).
    half = spectrum[np.arange(n, -n - 1, -1) % len(spectrum), n::-1]
    measured = np.where(shown[:, ::-1], flattened(half, ends[0], side, model), np.nan)
    fitted = np.where(shown, rings(ky, kx, model, side, ctf.fit_resolution), np.nan)
    both = np.concatenate([measured[:, :-1], fitted], axis=1)
    edge = (n + 0.5) / side
    axes.imshow(
        np.rint(both * LEVELS), cmap="gray", vmin=0, vmax=LEVELS, origin="lower",
        extent=(-edge, edge, -edge, edge), interpolation="none",
    )  # fmt: skip
    if ctf.fit_resolution:
        circle = Circle((0, 0), 1 / ctf.fit_resolution, fill=False, color=ORANGE, linewidth=1.2)
        axes.add_patch(circle)
    ticks = resolution_ticks(0.3 * ends[1], ends[1], 0.18)
    axes.set_xticks([s / t for s in (-1, 1) for t in ticks], [f"{t}" for t in (*ticks, *ticks)])
    axes.set(yticks=[], xlabel="resolution [Å]")
    axes.set_title("measured   |   fitted", fontsize=9, pad=3)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def flattened(half: Floats, lowest: float, side: float, ctf: Ctf) -> Floats:
    """Return power freed of its background and of its decay, from black (0) to white (1).

    It is averaged along short arcs, and divided by its own strength at each frequency.

    Parameters
    ----------
    half : (2 n + 1, n + 1)
        Mean power of tiles left of zero frequency, which is the middle of the last column.
    lowest : float
        Frequency below which the background is not followed [1/Å].
    side : float
        Of the tiles [Å].
    ctf : Ctf
        How far apart its rings are.
    """
    n = half.shape[1] - 1
    if not half.any():
        return np.full(half.shape, np.nan)
    radius = np.arange(ceil(lowest * side), n + 1)
    a, b, _ = coefficients(ctf)
    turns = (a * ctf.defocus * (radius / side) ** 2 + b * (radius / side) ** 4) / np.pi
    turn = np.pi / 2 + np.pi * (np.arange(DIRECTIONS) + 0.5) / DIRECTIONS
    y, x = np.sin(turn)[:, None] * radius, np.cos(turn)[:, None] * radius
    polar = map_coordinates(half.astype(np.float64), (y + n, x + n), order=1, mode="nearest")
    clear = (np.abs(x) > LINES) & (np.abs(y) > LINES)
    # The detector's lines say nothing of the specimen: their neighbours take their place.
    spread = ARC * DIRECTIONS / 180
    share = gaussian_filter1d(clear.astype(np.float64), spread, axis=0, mode="wrap")
    arcs = gaussian_filter1d(np.where(clear, polar, 0.0), spread, axis=0, mode="wrap") / share
    mean = np.log(np.maximum(arcs.mean(axis=0), 1e-30))
    # As stiff as the background of a fit, so that it cannot follow the rings.
    basis = np.column_stack(
        [np.polynomial.legendre.legvander(np.linspace(-1, 1, len(radius)), 4), np.log(radius)]
    )
    over = arcs / np.exp(basis @ np.linalg.lstsq(basis, mean, rcond=None)[0]) - 1
    near = np.exp(-0.5 * ((turns[:, None] - turns) / NEAR) ** 2)
    near /= near.sum(axis=1, keepdims=True)
    over -= near @ over.mean(axis=0)
    over /= np.sqrt(near @ (over**2).mean(axis=0)) + 1e-12
    yy, xx = np.mgrid[-n : n + 1, -n:1]
    place = (np.arctan2(yy, xx) % (2 * np.pi) - turn[0]) * DIRECTIONS / np.pi
    rows = np.concatenate([over[-1:], over, over[:1]])
    flat = map_coordinates(rows, (place + 1, np.hypot(yy, xx) - radius[0]), order=1, mode="nearest")
    return np.clip(0.5 + flat / (2 * WHITE), 0, 1)


def rings(ky: Floats, kx: Floats, ctf: Ctf, side: float, resolution: float | None) -> Floats:
    """Return CTF² as a tile of a `side` [Å] shows it, faded beyond the fit's resolution [Å]."""
    k = np.hypot(ky, kx)
    optics = Optics(ctf.voltage, ctf.cs, ctf.amplitude_contrast, ctf.phase_shift)
    visible = contrast(k, ctf.defocus, optics, side)
    if resolution:
        visible = np.where(k * resolution > 1, FADED * visible, visible)
    return 0.5 + visible * (ctf_2d(ky, kx, ctf) ** 2 - 0.5)


def _curves(
    above: Axes, below: Axes, curves: dict[str, Floats], fit_resolution: float | None
) -> None:
    """Draw equi-phase average and fit, and their local correlation below."""
    k, data = curves["frequency"], curves["equiphase"]
    noise = curves.get("noise")
    if noise is not None:
        above.fill_between(k, data - 2 * noise, data + 2 * noise, color=BAND, linewidth=0)
    above.plot(k, data, color=BLUE, linewidth=1, label="data ± 2 σ")
    above.plot(k, curves["fit"], color=ORANGE, linewidth=1.2, label="fit")
    # Rings at low frequency are a hundred times as strong as the last ones that are seen.
    linear = max(2 * float(np.median(noise)) if noise is not None else 0.02, 1e-4)
    above.set_yscale("asinh", linear_width=linear)
    above.set_yticks([0] + [t for t in (0.01, 0.1, 1, 10) if linear < t < 1.2 * data.max()])
    above.yaxis.set_major_formatter("{x:g}")
    above.yaxis.set_minor_locator(NullLocator())
    above.set_ylabel("power / background − 1")
    above.legend(loc="upper right", frameon=True, framealpha=0.8, edgecolor="none")
    above.tick_params(labelbottom=False)
    below.plot(k, curves["correlation"], color=GREEN, linewidth=1.2)
    below.set(ylim=(-0.3, 1.05), yticks=(0, 1), ylabel="correlation", xlabel="resolution [Å]")
    ticks = resolution_ticks(k[0], k[-1], 0.11)
    for axes in (above, below):
        axes.set_xlim(k[0], k[-1])
        axes.set_xticks([1 / t for t in ticks], [f"{t}" for t in ticks])
        if fit_resolution:
            axes.axvline(1 / fit_resolution, color=ORANGE, linewidth=1.2, linestyle=":")


def resolution_ticks(low: float, high: float, apart: float) -> list[int]:
    """Return round resolutions [Å] whose frequencies are in a range, `apart` × `high` or more."""
    chosen: list[int] = []
    for tick in reversed(TICKS):
        within = low <= 1.001 / tick and 0.999 / tick <= high
        if within and (not chosen or 1 / chosen[-1] - 1 / tick >= apart * high):
            chosen.append(tick)
    return chosen
