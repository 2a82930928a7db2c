"""Fit of the CTF to the strips of a tilt series, views of similar tilt together.

Zeros are assigned by the whole range of frequencies, with what views of similar tilt say. Then the
defocus of each view, or of each range of tilts, is refined over the whole range or up to so many
zeros. Views are fitted together by adding their curves (kernels/ctf_strip_curves.py), so that each
keeps its own background and envelope.

D. N. Mastronarde, J. Struct. Biol. 216:108057 (2024), doi:10.1016/j.jsb.2023.108057.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.ctf import Ctf, zeros
from kernels.ctf_profile import CtfProfile, fitted_resolution
from kernels.ctf_search import LEAST_DEFOCUS
from kernels.ctf_strip_astigmatism import Astigmatism, find_astigmatism
from kernels.ctf_strip_curves import SHAPES, Curves, curves, over_background, peak
from kernels.ctf_strip_power import Power, averaged
from kernels.ctf_strip_profile import strip_profile
from kernels.ctf_strip_search import (
    LIKENESS,
    FirstSearch,
    StripSearch,
    first_search,
    refine_phases,
    view_groups,
)
from kernels.ctf_strips import WedgeSpectra

Floats = NDArray[np.float64]

REACH, STEP = 1500.0, 25.0  # Å: of the last search
ITERATIONS = 3  # of it, where the range of frequencies depends on the defocus
SECOND_ZERO = 2
LEAST_OTHERS = 0.1  # of a range's information, that of its other views
NORMAL = 1.4826  # standard deviation per median absolute deviation of a normal distribution


@dataclass(frozen=True)
class StripFit:
    """What the strips say of one view.

    Attributes
    ----------
    ctf : Ctf
        At the raw image's centre.
    uncertainty : float
        Standard error of the mean defocus, in Å.
    astigmatism_uncertainty : float
        Of a component of the astigmatism, in Å; infinite when it was not searched.
    score : float
        Correlation of data and fit over the fitted range, −1 to 1.
    evidence : float
        Gain in log likelihood of this view's spectrum over one without rings.
    fit_resolution : float
        To which the fit follows the data, in Å.
    views : tuple of int
        Indices of the views that were fitted together for this one's defocus.
    profile : CtfProfile
    """

    ctf: Ctf
    uncertainty: float
    astigmatism_uncertainty: float
    score: float
    evidence: float
    fit_resolution: float
    views: tuple[int, ...]
    profile: CtfProfile = field(repr=False)


def fit_strips(
    wedges: Sequence[WedgeSpectra],
    tilts: ArrayLike,
    pixel_size: float,
    search: StripSearch | None = None,
    *,
    voltage: float = 300.0,
    cs: float = 2.7,
    amplitude_contrast: float = 0.07,
    phase_shift: float = 0.0,
) -> list[StripFit]:
    """Estimate the CTF of every view of a tilt series from its strips.

    Parameters
    ----------
    wedges : sequence of WedgeSpectra
        Of the views, of equal tiles; no excluded or dark views.
    tilts : (n_views,)
        In degrees.
    pixel_size
        In Å.
    search : StripSearch, optional
    voltage, cs, amplitude_contrast, phase_shift
        Known constants, in kV, mm, as a fraction and in degrees.

    Returns
    -------
    list of StripFit
        One for each view.

    Raises
    ------
    ValueError
        If there are no views, not one tilt for each, or tiles differ or are too small for the
        resolution range.
    """
    search = search or StripSearch()
    angles = np.asarray(tilts, dtype=np.float64)
    if not wedges or angles.shape != (len(wedges),):
        raise ValueError(f"{angles.shape} tilts for {len(wedges)} views, expected one for each")
    boxes = sorted({(view.box, view.window) for view in wedges})
    if len(boxes) > 1:
        raise ValueError(f"boxes and windows of the views are {boxes} px, expected equal ones")
    middle = float(np.mean(search.defocus_range))
    optics = Ctf(middle, middle, 0.0, voltage, cs, amplitude_contrast, phase_shift)
    groups = view_groups(angles, search)
    first = first_search(wedges, angles, groups, pixel_size, optics, search)
    ctfs, errors, added = first.ctfs, [math.inf] * len(wedges), [0.0] * len(wedges)
    if search.phase_shifts:
        power = averaged(wedges, pixel_size, search.resolutions, ctfs)
        ctfs, added = refine_phases(power, first, groups, search)
    if search.search_astigmatism:
        found = find_astigmatism(
            wedges, ctfs, first.shapes, first.excess, groups, pixel_size,
            search.resolutions, search.astigmatism_tolerance,
        )  # fmt: skip
        ctfs = [_astigmatic(ctf, one) for ctf, one in zip(ctfs, found, strict=True)]
        errors = [one.error for one in found]
    power = averaged(wedges, pixel_size, search.resolutions, ctfs)
    refinement = _Refinement(power, angles, ctfs, first, search)
    estimates = refinement.estimates()
    ctfs = [_at(ctf, one.defocus) for ctf, one in zip(ctfs, estimates, strict=True)]
    plain = averaged(wedges, pixel_size, search.resolutions, [_round(ctf) for ctf in ctfs])
    fits = []
    for view, (ctf, estimate) in enumerate(zip(ctfs, estimates, strict=True)):
        correlation, evidence, shape = refinement.curves(view, ctf.defocus).best(ctf.defocus)
        profile = strip_profile(power.of([view]), plain.of([view]), ctf, SHAPES[shape])
        fits.append(
            StripFit(
                ctf=ctf,
                uncertainty=math.hypot(estimate.error, added[view]),
                astigmatism_uncertainty=errors[view],
                score=correlation,
                evidence=evidence,
                fit_resolution=fitted_resolution(profile),
                views=estimate.views,
                profile=profile,
            )
        )
    return fits


def _astigmatic(ctf: Ctf, found: Astigmatism) -> Ctf:
    half = 0.5 * math.hypot(found.p, found.q)
    return replace(
        ctf,
        defocus_u=ctf.defocus + half,
        defocus_v=ctf.defocus - half,
        astigmatism_angle=math.degrees(0.5 * math.atan2(found.q, found.p)),
    )


def _at(ctf: Ctf, defocus: float) -> Ctf:
    return ctf.with_offset(defocus - ctf.defocus)


def _round(ctf: Ctf) -> Ctf:
    return replace(ctf, defocus_u=ctf.defocus, defocus_v=ctf.defocus)


@dataclass(frozen=True)
class _Estimate:
    """Defocus and its standard error, in Å, and the views it comes from."""

    defocus: float
    error: float
    views: tuple[int, ...]


class _Refinement:
    """The last search: every view by itself, or with its neighbours in tilt."""

    def __init__(
        self,
        power: Power,
        angles: Floats,
        ctfs: Sequence[Ctf],
        first: FirstSearch,
        search: StripSearch,
    ) -> None:
        self.power, self.angles, self.ctfs = power, angles, ctfs
        self.excess, self.shapes, self.search = first.excess, first.shapes, search
        starts = np.asarray([ctf.defocus for ctf in ctfs])
        low = max(starts.min() - REACH, LEAST_DEFOCUS)
        self.grid = np.arange(low, starts.max() + REACH + STEP, STEP)
        self._known: dict[tuple[int, int], Curves] = {}

    def estimates(self) -> list[_Estimate]:
        """Return one for each view."""
        starts = [ctf.defocus for ctf in self.ctfs]
        if self.search.angle_step == 0:
            return [self._together([view], start) for view, start in enumerate(starts)]
        ranges: dict[tuple[int, ...], _Estimate] = {}
        lowest, highest = float(self.angles.min()), float(self.angles.max())
        for middle in np.arange(lowest, highest + self.search.angle_step, self.search.angle_step):
            away = np.abs(self.angles - middle)
            members = np.flatnonzero(away <= 0.5 * self.search.angle_range + 1e-6).tolist()
            if members and tuple(members) not in ranges:
                start = float(np.median([starts[view] for view in members]))
                ranges[tuple(members)] = self._together(members, start)
        return self._tied(list(ranges.values()))

    def _tied(self, ranges: list[_Estimate]) -> list[_Estimate]:
        """Let each view depart from its range as far as its own rings and those of others tell."""
        tilt = np.asarray([self.angles[list(found.views)].mean() for found in ranges])
        order = np.argsort(tilt)
        level, error = (
            np.interp(self.angles, tilt[order], np.asarray(values)[order])
            for values in ([r.defocus for r in ranges], [r.error for r in ranges])
        )
        alone = [self._together([view], ctf.defocus) for view, ctf in enumerate(self.ctfs)]
        own, noise = (
            np.asarray(values) for values in ([a.defocus for a in alone], [a.error for a in alone])
        )
        # What the other views of the range say: its own part is taken out of the sum.
        others = np.maximum(error**-2 - noise**-2, LEAST_OTHERS * error**-2)
        away = (own - level) / (error**2 * others)
        variance = noise**2 + 1 / others
        clear = variance < LIKENESS**2 / 2
        spread = LIKENESS**2
        if clear.sum() >= 3:
            typical = (NORMAL * float(np.median(np.abs(away[clear])))) ** 2
            usual = float(np.median(variance[clear]))
            # The variance itself is known no better than this.
            spread = max(typical - usual, 0.0) + usual * math.sqrt(2 / int(clear.sum()))
        share = (spread + 1 / others) / (spread + variance)
        nearest = [int(np.abs(tilt - angle).argmin()) for angle in self.angles]
        return [
            _Estimate(
                float(own[view] - (1 - share[view]) * away[view]),
                float(np.sqrt(share[view]) * noise[view]),
                ranges[nearest[view]].views,
            )
            for view in range(len(own))
        ]

    def _together(self, views: list[int], start: float) -> _Estimate:
        defocus, error = start, math.inf
        rounds = 1 if self.search.extra_zeros is None else ITERATIONS
        rule = -0.5 * ((self.grid - start) / LIKENESS) ** 2
        for _ in range(rounds):
            total = rule.copy()
            for view in views:
                found = self.curves(view, defocus).gain[0]
                total += found[:, found.max(axis=0).argmax()]
            near = np.abs(self.grid - start) <= REACH + STEP
            defocus, error = peak(self.grid[near], total[near])
        return _Estimate(defocus, min(error, LIKENESS), tuple(views))

    def curves(self, view: int, defocus: float) -> Curves:
        """Return a view's curves, up to the zero that ends the range at this defocus."""
        part = self.power.of([view])
        if self.search.extra_zeros is not None:
            ends = zeros(_round(_at(self.ctfs[view], defocus)), float(part.k[-1]))
            last = SECOND_ZERO + self.search.extra_zeros
            part = over_background(part, self.ctfs[view], self.shapes[view]).to(
                float(ends[last - 1]) if len(ends) >= last else math.inf
            )
        known = (view, len(part.k))
        if known not in self._known:
            one = slice(view, view + 1)
            self._known[known] = curves(part, self.grid, self.ctfs[view], self.excess[one])
        return self._known[known]
