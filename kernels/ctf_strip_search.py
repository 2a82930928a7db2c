"""First search for the CTF of a tilt series by strips: which zeros are which, phase shifts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.ctf import Ctf
from kernels.ctf_search import LEAST_DEFOCUS, check_ranges
from kernels.ctf_strip_curves import SHAPES, curves, peak
from kernels.ctf_strip_power import Power, assumed
from kernels.ctf_strips import WedgeSpectra

Floats = NDArray[np.float64]

EXPECTED_SIGMA = 7500.0  # Å: how far a user's expectation may well be off
EXPECTED_REACH = 15000.0  # Å around it are searched
LIKENESS = 1000.0  # Å: what focusing between views changes
NEIGHBOURHOOD = 20.0  # degrees of tilt over which views resemble each other
GROUP_REACH = 40.0  # degrees of tilt beyond which views say nothing of another's astigmatism
NEIGHBOURS_SAY = 12.0  # most that they weigh against a view's own rings, in log likelihood
PHASE_PARTS = 5  # steps of the second search of phases in one of the first


@dataclass(frozen=True)
class StripSearch:
    """How the CTF is looked for.

    Attributes
    ----------
    min_resolution, max_resolution
        Range of the spectrum, in Å; cut at 95 % of the Nyquist frequency.
    min_defocus, max_defocus, step
        Range and step of the first search, in Å.
    expected
        Defocus around which is searched, in Å; None for the whole range.
    angle_range, angle_step
        Views of this range of tilt are fitted together, in steps of so many degrees; step 0:
        every view by itself.
    extra_zeros
        Zeros beyond the second up to which the defocus is refined; None: the whole range.
    search_astigmatism
    astigmatism_tolerance
        Expected size of the astigmatism in Å: a larger one must be earned by the data.
    min_views
        Least number of views that tell of astigmatism and phase shift together.
    phase_shifts
        That are tried, in degrees, evenly spaced; empty: the phase shift is known.
    """

    min_resolution: float = 30.0
    max_resolution: float = 5.0
    min_defocus: float = 5000.0
    max_defocus: float = 60000.0
    step: float = 200.0
    expected: float | None = None
    angle_range: float = 16.0
    angle_step: float = 0.0
    extra_zeros: int | None = None
    search_astigmatism: bool = False
    astigmatism_tolerance: float = 1000.0
    min_views: int = 3
    phase_shifts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_ranges(
            (self.min_resolution, self.max_resolution), (self.min_defocus, self.max_defocus)
        )
        for name in ("step", "astigmatism_tolerance", "min_views"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected more than 0")
        for name in ("angle_range", "angle_step"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}°, expected 0 or more")
        low, high = self.defocus_range
        if low >= high:
            raise ValueError(
                f"the expected defocus {self.expected} Å is far out of "
                f"{self.min_defocus} to {self.max_defocus} Å"
            )

    @property
    def defocus_range(self) -> tuple[float, float]:
        """From which to which defocus is searched, in Å."""
        if self.expected is None:
            return self.min_defocus, self.max_defocus
        return (
            max(self.min_defocus, self.expected - EXPECTED_REACH),
            min(self.max_defocus, self.expected + EXPECTED_REACH),
        )

    @property
    def resolutions(self) -> tuple[float, float]:
        """Least and greatest resolution, in Å."""
        return self.min_resolution, self.max_resolution


@dataclass(frozen=True)
class FirstSearch:
    """What the first search found of each view.

    Attributes
    ----------
    ctfs : list of Ctf
    shapes : (views, 2) float64
        B and s of the envelope.
    excess : (views,) float64
        Factor by which the noise exceeds that of the samples.
    """

    ctfs: list[Ctf]
    shapes: Floats
    excess: Floats


@dataclass(frozen=True)
class Group:
    """Views that tell of one view's astigmatism and phase shift.

    Attributes
    ----------
    views : (n,) intp
        Indices, those of nearest tilt first.
    least : int
        The first so many are always taken.
    """

    views: NDArray[np.intp]
    least: int

    @property
    def members(self) -> NDArray[np.intp]:
        """Indices of the views that are always taken."""
        return self.views[: self.least]


def view_groups(angles: Floats, search: StripSearch) -> list[Group]:
    """Return for each view those that tell of its astigmatism and phase shift."""
    reach = 0.5 * search.angle_range if search.angle_step else 0.0
    groups = []
    for angle in angles:
        away = np.abs(angles - angle)
        least = max(search.min_views, int((away <= reach).sum()))
        most = max(least, int((away <= GROUP_REACH).sum()))
        groups.append(Group(np.argsort(away, kind="stable")[:most], min(least, len(angles))))
    return groups


def first_search(
    wedges: Sequence[WedgeSpectra],
    angles: Floats,
    groups: Sequence[Group],
    pixel: float,
    optics: Ctf,
    search: StripSearch,
) -> FirstSearch:
    """Find the defocus, and the phase shift when it is searched, for which rings fit best.

    The whole range of frequencies decides, with what views of similar tilt say; a view whose own
    rings are clear is not outvoted.
    """
    low, high = search.defocus_range
    n = max(3, math.ceil((high - low) / search.step) + 1)
    grid = np.linspace(low, high, n)
    power, owner, defocus = assumed(wedges, pixel, search.resolutions)
    away = np.abs(np.log(grid / defocus[:, None]))
    rows = np.empty((len(wedges), n), dtype=np.intp)
    for view in range(len(wedges)):
        own = np.flatnonzero(owner == view)
        rows[view] = own[away[own].argmin(axis=0)]
    shifts = np.asarray(search.phase_shifts or (optics.phase_shift,))
    gain = np.empty((len(shifts), len(wedges), n))
    shape = np.empty(gain.shape, dtype=np.intp)
    excess = np.empty((len(shifts), len(wedges)))
    columns = np.arange(n)
    for j, shift in enumerate(shifts):
        found = curves(power, grid, replace(optics, phase_shift=float(shift)))
        gain[j] = found.gain.max(axis=2)[rows, columns]
        shape[j] = found.gain.argmax(axis=2)[rows, columns]
        best = rows[np.arange(len(wedges)), gain[j].argmax(axis=1)]
        excess[j] = found.excess[best]
    if search.expected is not None:
        gain = gain - 0.5 * ((grid - search.expected) / EXPECTED_SIGMA) ** 2
    tops = gain.max(axis=2)
    # Rings of 0° and 180° are the same: rounding must not choose between them.
    chosen = [int(tops[:, group.members].sum(axis=1).round(6).argmax()) for group in groups]
    mine = np.stack([gain[j, view] for view, j in enumerate(chosen)])
    total = mine + _neighbours(mine, grid, angles)
    at = total.argmax(axis=1)
    ctfs = []
    for view, j in enumerate(chosen):
        middle, _ = peak(grid, total[view])
        ctfs.append(
            replace(optics, defocus_u=middle, defocus_v=middle, phase_shift=float(shifts[j]))
        )
    views = np.arange(len(wedges))
    return FirstSearch(ctfs, SHAPES[shape[chosen, views, at]], excess[chosen, views])


def _neighbours(gain: Floats, grid: Floats, angles: Floats) -> Floats:
    """Return what the others say of each view (views, n), in log likelihood, at most 0."""
    reach = round(LIKENESS / (grid[1] - grid[0]))
    wide = np.pad(gain, ((0, 0), (reach, reach)), mode="edge")
    blurred = np.lib.stride_tricks.sliding_window_view(wide, 2 * reach + 1, axis=1).max(axis=2)
    near = np.exp(-np.abs(angles[:, None] - angles) / NEIGHBOURHOOD)
    np.fill_diagonal(near, 0.0)
    say = near @ blurred
    return np.asarray(np.maximum(say - say.max(axis=1, keepdims=True), -NEIGHBOURS_SAY))


def refine_phases(
    power: Power, first: FirstSearch, groups: Sequence[Group], search: StripSearch
) -> tuple[list[Ctf], list[float]]:
    """Search the phase shift of each group between the steps of the first search.

    Returns the CTFs and what the error of the phase shift adds to that of each defocus, in Å.
    """
    step = search.phase_shifts[1] - search.phase_shifts[0] if len(search.phase_shifts) > 1 else 0.0
    deltas = np.linspace(-step, step, 2 * PHASE_PARTS + 1)
    # Where defocus and phase shift trade, a ridge is wider than one step of either.
    around = np.arange(-2000.0, 2001.0, 50.0)
    grids = [np.maximum(ctf.defocus + around, LEAST_DEFOCUS) for ctf in first.ctfs]

    def curve(view: int, shift: float) -> Floats:
        ctf = replace(first.ctfs[view], phase_shift=shift)
        one = slice(view, view + 1)
        found = curves(power.of([view]), grids[view], ctf, first.excess[one], first.shapes[one])
        return found.gain[0, :, 0]

    refined, errors = [], []
    for view, group in enumerate(groups):
        shifts = first.ctfs[view].phase_shift + deltas
        tops = np.asarray([sum(curve(other, s).max() for other in group.members) for s in shifts])
        shift, error = peak(shifts, tops)
        shift = min(max(shift, search.phase_shifts[0]), search.phase_shifts[-1])
        # A view's own shift may differ from its group's by as much as one view alone would tell.
        error = min(error * math.sqrt(len(group.members)), step)
        middle, less, more = (
            peak(grids[view], curve(view, s))[0] for s in (shift, shift - error, shift + error)
        )
        errors.append(0.5 * abs(more - less))
        refined.append(
            replace(first.ctfs[view], defocus_u=middle, defocus_v=middle, phase_shift=shift)
        )
    return refined, errors
