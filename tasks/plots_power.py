"""Plot of the power spectra of the movies' sums, as recorded and with motion undone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from tasks.plots import BLUE, ORANGE, STYLE, Plot, angle, svg, told
from tasks.record import TiltSeries

Floats = NDArray[np.floating[Any]]

LOWEST_FREQUENCY, HIGHEST_FREQUENCY = 1 / 60, 1 / 5  # 1/Å, where rings are seen
FIRST_RING = 1 / 25  # 1/Å: what is below it would dwarf the rings
GAIN_SHOWN = 20.0  # %


def spectrum_plot(record: TiltSeries, profiles: Floats, step: float) -> Plot | None:
    """Plot what undoing the motion gave to the power spectra of the sums of frames.

    Three spectra as recorded and with motion undone, over their noise; and the gain of all views.

    Parameters
    ----------
    record : TiltSeries
    profiles : (view, 2, bin)
        Power as recorded and with motion undone.
    step : float
        Width of a bin [1/Å].
    """
    frequency = (np.arange(profiles.shape[2]) + 0.5) * step
    moved = [v.motion is not None and v.motion.model in ("local", "global") for v in record.views]
    chosen = _low_middle_high(record, moved)
    if not chosen:
        return None
    # What is left at high frequency is the noise of counting, which motion does not change.
    noise = np.median(profiles[:, 0, 3 * profiles.shape[2] // 4 :], axis=1)
    over = profiles / np.maximum(noise, 1e-30)[:, None, None]
    shown = (frequency > LOWEST_FREQUENCY) & (frequency < HIGHEST_FREQUENCY)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.2, 3.3), layout="constrained")
        panels = figure.subplots(1, len(chosen) + 1, width_ratios=[1] * len(chosen) + [1.5])
        rings = shown & (frequency > FIRST_RING)
        top = 1.05 * max(float(over[i][:, rings].max()) for i in chosen)
        bottom = 0.99 * min(float(over[i][:, shown].min()) for i in chosen)
        for axes, i in zip(panels, chosen, strict=False):
            axes.plot(frequency[shown], over[i, 0, shown], color=ORANGE, label="as recorded")
            axes.plot(frequency[shown], over[i, 1, shown], color=BLUE, label="motion undone")
            axes.set_title(angle(record.views[i].tilt_angle), fontsize=10)
            axes.set(xlabel="spatial frequency [1/Å]", ylim=(bottom, top))
        panels[0].set_ylabel("power / noise")
        panels[0].legend(loc="upper right")
        _gain_map(figure, panels[-1], record, profiles, frequency, moved)
    gains = {
        record.views[i].tilt_angle: float(100 * (over[i, 1, rings] / over[i, 0, rings] - 1).max())
        for i in record.included
        if moved[i]
    }
    return Plot(
        svg(figure),
        "Power spectra of the sums of frames, as recorded and with motion undone",
        told("Largest gain of power", gains, "%"),
        wide=True,
    )


def _gain_map(
    figure: Figure,
    axes: Axes,
    record: TiltSeries,
    profiles: Floats,
    frequency: Floats,
    moved: Sequence[bool],
) -> None:
    """Draw the ratio of power with motion undone to that as recorded, of each view."""
    smooth = uniform_filter1d(profiles.astype(np.float64), 3, axis=2)
    gain = 100 * (smooth[:, 1] / np.maximum(smooth[:, 0], 1e-30) - 1)
    gain[~np.array(moved)] = np.nan
    tilts = np.array([view.tilt_angle for view in record.views])
    between = (tilts[1:] + tilts[:-1]) / 2
    ends = (2 * tilts[0] - between[0], 2 * tilts[-1] - between[-1]) if len(tilts) > 1 else (
        tilts[0] - 1, tilts[0] + 1,
    )  # fmt: skip
    width = frequency[1] - frequency[0]
    mesh = axes.pcolormesh(
        np.concatenate([frequency - width / 2, frequency[-1:] + width / 2]),
        np.concatenate([ends[:1], between, ends[1:]]),
        gain,
        cmap="RdBu",
        vmin=-GAIN_SHOWN,
        vmax=GAIN_SHOWN,
        rasterized=True,
    )
    axes.set(xlabel="spatial frequency [1/Å]", ylabel="tilt angle [°]", facecolor="#e6e8eb")
    axes.set_xlim(LOWEST_FREQUENCY, min(HIGHEST_FREQUENCY, frequency[-1]))
    axes.set_title("gain of power, all views", fontsize=10)
    axes.grid(visible=False)
    figure.colorbar(mesh, ax=axes, extend="both", label="%", aspect=30)


def _low_middle_high(record: TiltSeries, moved: Sequence[bool]) -> list[int]:
    """Return the views used, and moved, whose tilt is lowest, half-way and highest."""
    tilts = {i: abs(record.views[i].tilt_angle) for i in record.included if moved[i]}
    if not tilts:
        return []
    low, high = min(tilts.values()), max(tilts.values())
    wanted = (low, (low + high) / 2, high)
    return list(dict.fromkeys(min(tilts, key=lambda i: abs(tilts[i] - at)) for at in wanted))
