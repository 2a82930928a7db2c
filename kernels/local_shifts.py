"""From local shifts that another program has measured to one smooth deformation.

Shifts are linear in the deformation's coefficients (`kernels.deformation`). What is common to a
view's patches is a shift of the view. All views share the coefficients, so depth moves, too, are
told from shifts at different tilts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.align_coarse import move_view
from kernels.deformation import Deformation, space_powers, space_terms, time_terms
from kernels.geometry import View, midplane_points, raw_from_aligned, tilt_rotation

Floats = NDArray[np.float64]

ORDER = 2  # in time
# Total degree in X and Y by the least number of patches that supports it.
DEGREES = ((12, 3), (7, 2), (4, 1))
# Residuals beyond so many robust standard deviations have no weight (Tukey).
TUKEY = 6.0
ROUNDS = 8
RIDGE = 1e-9  # of the largest diagonal: what no shift tells stays 0


@dataclass(frozen=True)
class Bent:
    """A deformation, and the root mean square of what it leaves of the shifts [Å]."""

    deformation: Deformation
    residual: float


def fit_local_shifts(
    views: Sequence[View],
    times: Sequence[float],
    view: NDArray[np.int64],
    places: Floats,
    shifts: Floats,
    patches: int,
    half_width: float,
) -> tuple[list[View], Bent | None]:
    """Fit one deformation and a shift of each view to local shifts.

    Parameters
    ----------
    views : sequence of View
    times : (n_views,)
        0 to 1.
    view : (m,) int64
        Of each row.
    places, shifts : (m, 2)
        x′, y′ in the aligned frame, and how far what is there has moved [Å].
    patches : int
        How many there are: fewer than 4 tell no deformation.
    half_width : float
        See `Deformation` [Å].

    Returns
    -------
    list of View
        With their shifts.
    Bent or None
        None where there are too few patches.
    """
    degree = next((d for least, d in DEGREES if patches >= least), 0)
    if not degree or not len(view):
        return list(views), None
    terms = len(space_powers(degree))
    n, m, size = len(views), len(view), 3 * terms * ORDER
    design = np.zeros((m, 2, size + 2 * n))
    power = time_terms(times, ORDER)
    for i in np.unique(view).tolist():
        mine = np.flatnonzero(view == i)
        points = midplane_points(raw_from_aligned(places[mine], views[i]), views[i])
        both = space_terms(points, half_width, degree)[:, :, None] * power[i]
        turned = tilt_rotation(views[i])[:2]
        field = turned[None, :, :, None] * both.reshape(len(mine), 1, 1, -1)
        design[mine, :, :size] = field.reshape(len(mine), 2, size)
        design[mine, 0, size + 2 * i] = design[mine, 1, size + 2 * i + 1] = 1
    weights = np.ones(m)
    solution, left = np.zeros(design.shape[2]), shifts
    for _ in range(ROUNDS):
        weighted = design * weights[:, None, None]
        matrix = np.einsum("mka,mkb->ab", weighted, design, optimize=True)
        pull = np.einsum("mka,mk->a", weighted, shifts)
        ridge = RIDGE * float(matrix.diagonal().max())
        solution = np.linalg.solve(matrix + ridge * np.eye(len(matrix)), pull)
        left = shifts - design @ solution
        apart = np.linalg.norm(left, axis=1)
        # The median of a two-dimensional normal deviate's length is 1.18.
        spread = max(float(np.median(apart)) / 1.18, 1e-3)
        weights = (1 - np.minimum(apart / (TUKEY * spread), 1) ** 2) ** 2
    moves = solution[size:].reshape(n, 2)
    moved = [move_view(v, float(y), float(x)) for v, (x, y) in zip(views, moves, strict=True)]
    deformation = Deformation(solution[:size].reshape(3, terms, ORDER), half_width)
    total = float(np.sqrt((weights * (left**2).sum(axis=1)).sum() / weights.sum()))
    return moved, Bent(deformation, total)
