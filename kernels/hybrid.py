"""Beads that help an alignment without markers: their tracks, joined with those of patches.

Beads that are too few to align by are still points that every view shows sharply. The bundle
adjustment of both kinds begins where the patches' own alignment ended. It is taken only where
beads left out of it are predicted better than by the patches alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.bundle import LEAST_VIEWS, RAYLEIGH, Solution, fitted_point, solve
from kernels.bundle_model import Model
from kernels.bundle_system import Local
from kernels.deformation import Deformation
from kernels.geometry import View
from kernels.tracks import Tracks, joined

Floats = NDArray[np.float64]

LEAST_BEADS = 2  # one bead cannot be predicted by others
LOTS = 8  # of beads that are left out in turn
SPREAD = 50.0  # Å, prior of a deformation's coefficient, as for beads alone
# The axis as a whole; what single views have been given beyond it stays.
MODEL = Model(rotation="one")


@dataclass(frozen=True)
class Hybrid:
    """What beads did to an alignment by patches.

    Attributes
    ----------
    views : tuple of View
        With the beads, or as they came.
    deformation : Deformation or None
    taken : bool
        Whether the beads are part of it.
    alone, together : float
        Mean residual of beads [Å] that are predicted by the patches, and by patches and the other
        beads; NaN where there are too few beads.
    beads : int
        That are seen in views enough.
    """

    views: tuple[View, ...]
    deformation: Deformation | None
    taken: bool
    alone: float
    together: float
    beads: int


def join_beads(
    views: Sequence[View],
    deformation: Deformation | None,
    patches: Tracks,
    beads: Tracks,
    times: Sequence[float],
) -> Hybrid:
    """Adjust views, and a deformation that is there, to patches and beads together.

    Parameters
    ----------
    views : sequence of View
        As the patches have aligned them.
    deformation : Deformation or None
        As the patches have it; None stays None.
    patches, beads : Tracks
    times : (n_views,)
        0 to 1, of the deformation.
    """
    counts = np.bincount(beads.point, minlength=beads.n_points)
    kept = np.flatnonzero(counts >= LEAST_VIEWS)
    as_they_came = Hybrid(tuple(views), deformation, False, np.nan, np.nan, len(kept))
    if len(kept) < LEAST_BEADS:
        return as_they_came
    local = _local(deformation, times)
    whole = joined([patches, beads])
    bead = np.arange(whole.n_points) >= patches.n_points
    alone = _solved(patches, views, local)
    whole = _weighed(whole, bead, views, local)
    by_patches = _mean_residuals(whole.chosen(bead[whole.point]), alone)
    by_both = np.full(whole.n_points, np.nan)
    numbers = patches.n_points + kept
    for lot in range(min(LOTS, len(kept))):
        out = np.isin(whole.point, numbers[lot::LOTS])
        without = _solved(whole.chosen(~out), views, local)
        own = _mean_residuals(whole.chosen(out), without)
        by_both[numbers[lot::LOTS]] = own[numbers[lot::LOTS]]
    gain = (by_patches - by_both)[numbers]
    told = replace(
        as_they_came,
        alone=float(by_patches[numbers].mean()),
        together=float(by_both[numbers].mean()),
    )
    if not gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)):
        return told
    both = _solved(whole, views, local)
    return replace(told, views=both.views, deformation=both.deformation, taken=True)


def _local(deformation: Deformation | None, times: Sequence[float]) -> Local | None:
    if deformation is None:
        return None
    powers = deformation.coefficients.shape[2]
    width = deformation.half_width
    return Local(deformation.degree, powers, width, np.asarray(times, dtype=np.float64), SPREAD)


def _solved(tracks: Tracks, views: Sequence[View], local: Local | None) -> Solution:
    return solve(tracks, views, MODEL, local=local, with_errors=False)


def _weighed(
    whole: Tracks, bead: NDArray[np.bool_], views: Sequence[View], local: Local | None
) -> Tracks:
    """Return the tracks with errors of either kind as large as its residuals show."""
    mine = bead[whole.point]
    for _ in range(2):
        solution = _solved(whole, views, local)
        ratio, sigma = solution.lengths / whole.sigma, whole.sigma.copy()
        for kind in (mine, ~mine):
            sigma[kind] *= max(float(np.nanmedian(ratio[kind])) / RAYLEIGH, 1e-3)
        whole = replace(whole, sigma=sigma)
    return whole


def _mean_residuals(tracks: Tracks, solution: Solution) -> Floats:
    """Return how far points that took no part are from where views have them, (n_points,) [Å]."""
    _, residuals = fitted_point(tracks, solution)
    sums = np.bincount(tracks.point, np.hypot(*residuals.T), minlength=tracks.n_points)
    counts = np.bincount(tracks.point, minlength=tracks.n_points)
    return np.asarray(sums / np.where(counts > 0, counts, np.nan), dtype=np.float64)
