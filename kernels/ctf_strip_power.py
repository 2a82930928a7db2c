"""Power of the views of a series over the frequency, from the wedges measured of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.ctf import Ctf
from kernels.ctf_strips import WedgeSpectra, read_rings, same_phase

Floats = NDArray[np.float64]

# Power of neighbouring frequencies of a Hann-windowed tile is correlated, (2/3)² and (1/6)²:
# this many rings, at a spacing of one over the window, are one independent measurement.
CORRELATED = 1 + 2 * (4 / 9 + 1 / 36)
LEAST_RINGS = 12
BETTER = 0.05  # relative to the defocus: by so much another assumption must be nearer


@dataclass(frozen=True)
class Power:
    """Rotational averages of a series in the fitted range.

    Attributes
    ----------
    k : (rings,) float64
        In 1/Å.
    logarithm : (views, rings) float64
    weight : (rings,) float64
        Pixels in each average.
    samples : (views,) float64
        Independent samples for each of those pixels.
    length : float
        Side of a tile in Å.
    rings_per_sample : float
    divided : bool
        By the background.
    """

    k: Floats
    logarithm: Floats
    weight: Floats
    samples: Floats
    length: float
    rings_per_sample: float
    divided: bool = False

    def to(self, end: float) -> Power:
        """Return the part up to the frequency `end`, in 1/Å, of no less than a few rings."""
        n = max(int(np.searchsorted(self.k, end)) + 1, LEAST_RINGS)
        return replace(self, k=self.k[:n], logarithm=self.logarithm[:, :n], weight=self.weight[:n])

    def of(self, views: ArrayLike) -> Power:
        """Return that of some views."""
        chosen = np.asarray(views, dtype=np.intp)
        return replace(self, logarithm=self.logarithm[chosen], samples=self.samples[chosen])


def in_range(wedges: WedgeSpectra, pixel: float, resolutions: tuple[float, float]) -> slice:
    """Return the rings of a resolution range in Å, cut at 95 % of the Nyquist frequency.

    Raises
    ------
    ValueError
        If fewer than 12 rings are in range.
    """
    length = wedges.box * pixel
    high = min(length / resolutions[1], 0.95 * wedges.box / 2, wedges.power.shape[1] - 1)
    first, last = math.ceil(length / resolutions[0]), math.floor(high)
    if last - first < LEAST_RINGS:
        raise ValueError(
            f"{max(last - first, 0)} rings between {resolutions[0]} and {length / high:.1f} Å, "
            f"expected {LEAST_RINGS}: use a larger box than {wedges.window}"
        )
    return slice(first, last)


def averaged(
    series: Sequence[WedgeSpectra],
    pixel: float,
    resolutions: tuple[float, float],
    ctfs: Sequence[Ctf],
) -> Power:
    """Average the wedges of each view where the phase of its CTF is the same.

    Where another assumption of the first search is nearer to a view's defocus than that of its
    wedges, its rotational average is taken.
    """
    rows = []
    for view, ctf in zip(series, ctfs, strict=True):
        away = np.abs(np.log(np.append(view.trial_defocus, view.defocus) / ctf.defocus))
        trial = int(away.argmin())
        if trial < len(view.trial_defocus) and away[trial] < away[-1] - BETTER:
            rows.append(view.trial_power[trial])
        elif ctf.astigmatism == 0:
            rows.append(ring_average(view))
        else:
            rows.append(_equiphase(view, pixel, ctf))
    return _power(series, rows, pixel, resolutions)


def assumed(
    series: Sequence[WedgeSpectra], pixel: float, resolutions: tuple[float, float]
) -> tuple[Power, NDArray[np.intp], Floats]:
    """Return all rotational averages for a first search: power, view and defocus of each row."""
    rows = [
        (number, float(defocus), average)
        for number, view in enumerate(series)
        for defocus, average in zip(
            np.append(view.trial_defocus, view.defocus),
            [*view.trial_power, ring_average(view)],
            strict=True,
        )
    ]
    owner = np.asarray([number for number, _, _ in rows])
    power = _power(series, [average for _, _, average in rows], pixel, resolutions)
    return (
        replace(power, samples=power.samples[owner]),
        owner,
        np.asarray([defocus for _, defocus, _ in rows]),
    )


def ring_average(view: WedgeSpectra) -> Floats:
    """Return the rotational average (rings,) of a view's wedges."""
    total = np.maximum(view.count.sum(axis=0), 1)
    return np.asarray((view.power * view.count).sum(axis=0) / total)


def _power(
    series: Sequence[WedgeSpectra],
    rows: Sequence[Floats],
    pixel: float,
    resolutions: tuple[float, float],
) -> Power:
    first = series[0]
    within = in_range(first, pixel, resolutions)
    count = first.count.sum(axis=0)
    k2 = (first.k2 * first.count).sum(axis=0) / np.maximum(count, 1)
    return Power(
        k=np.sqrt(k2[within]) / pixel,
        logarithm=np.log(np.stack(rows)[:, within]),
        weight=count[within],
        samples=np.asarray([view.samples for view in series]),
        length=first.window * pixel,
        rings_per_sample=CORRELATED * first.box / first.window,
    )


def _equiphase(view: WedgeSpectra, pixel: float, ctf: Ctf) -> Floats:
    sectors, rings = view.power.shape
    middle = 180 / sectors * (np.arange(sectors) + 0.5)
    offsets = [ctf.defocus_along(float(angle)) - ctf.defocus for angle in middle]
    power, count = np.zeros(rings), np.zeros(rings)
    positions = same_phase(rings, view.box, pixel, offsets, ctf)
    for row, number, position in zip(view.power, view.count, positions, strict=True):
        power += read_rings(row * number, position)
        count += read_rings(number, position)
    return power / np.maximum(count, 1e-9)
