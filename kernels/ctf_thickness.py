"""Thickness of the specimen from the nodes of the rings, all views of a series together.

Fringes of a slab whose depths t along the beam scatter alike are sinc(πλk²t) as strong: they vanish
at nodes and return reversed. A tilted view has t = T / cos θ, so that the steep ones, whose rings
tell little alone, show the nodes at lower resolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.geometry import View

Floats = NDArray[np.float64]

SIGNIFICANT = 8.0  # gain in log likelihood over a thin specimen that counts as evidence
STEP = 25.0  # Å


@dataclass(frozen=True)
class Thickness:
    """Thickness [Å], its standard error [Å], and the gain in log likelihood over none."""

    thickness: float
    error: float
    evidence: float


def path_per_thickness(views: Sequence[View], pretilt: float = 0.0) -> Floats:
    """Return how much longer than the specimen is thick the beam's path in it is, (n_views,).

    Parameters
    ----------
    views : sequence of View
    pretilt : float
        Of the specimen about the tilt axis [degrees].
    """
    return np.asarray(1 / np.cos(np.radians([view.tilt + pretilt for view in views])))


def fit_thickness(
    paths: Floats, evidence: Floats, views: Sequence[View], pretilt: float = 0.0
) -> Thickness | None:
    """Return the thickness that the views support together, or None.

    Parameters
    ----------
    paths : (n,) float64
        Lengths of the beam's path in the specimen, ascending from 0 [Å].
    evidence : (n_views, n) float64
        Log likelihood of each view for each of them.
    views : sequence of View
    pretilt : float
        Of the specimen about the tilt axis [degrees].

    References
    ----------
    .. [1] G. McMullan, K. R. Vinothkumar and R. Henderson, Ultramicroscopy 158:26 (2015).
    .. [2] J. Elferich, L. Kong, X. Zottig and N. Grigorieff, eLife 13:RP97227 (2024).
    """
    longer = path_per_thickness(views, pretilt)
    # No thickness is tried that leaves the paths of the views at lower tilts.
    trials = np.arange(0.0, paths[-1] / np.median(longer), STEP)
    total = np.zeros(len(trials))
    for curve, factor in zip(evidence, longer, strict=True):
        total += np.interp(trials * factor, paths, curve)
    best = int(total.argmax())
    gain = float(total[best] - total[0])
    if gain < SIGNIFICANT or best in (0, len(trials) - 1):
        return None
    # The curvature over as much as the likelihood falls by about 2.
    near = np.flatnonzero(total > total[best] - 2.0)
    reach = max(min(best - near[near <= best].min(), near[near >= best].max() - best), 3)
    within = slice(max(best - reach, 0), best + reach + 1)
    curvature = np.polyfit(trials[within] - trials[best], total[within], 2)[0]
    error = 1 / math.sqrt(-2 * curvature) if curvature < 0 else math.inf
    return Thickness(float(trials[best]), error, gain)
