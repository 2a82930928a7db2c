"""Local alignment without markers: patches, their deformation, and the volume freed of it, in turn.

A volume of deformed views is blurred and half follows the deformation, so what patches show
against it is too little. With the deformation undone the volume is sharper, and what remains is
measured anew, until nothing changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Array
from kernels.deformation import Deformation, displacements
from kernels.geometry import View
from kernels.patch_field import LEAST_PATCHES, VARIABLES, Field, fit_field
from kernels.patches import Patched, measure_patches

Floats = NDArray[np.float64]

# Rounds end when the field's displacements change by less, root mean square [Å].
SETTLED = 0.5
# Patches may err in common by some hundredths of a pixel: a deformation that is seen by less than
# this is none. What shifts of views and places of patches take up of it does not count: 0.06 pixels
# of 10 Å are left of a dome of 25 Å that grows with a dose-symmetric series.
LEAST_SEEN = 0.06
# How far patches are looked for [Å].
FIRST_REACH, REACH = 120.0, 60.0


@dataclass(frozen=True)
class Local:
    """Result of the local alignment.

    Attributes
    ----------
    views : tuple of View
        With shifts that go with the deformation.
    deformation : Deformation or None
        None where held-out patches do not support one.
    patched : Patched
        The last measurement: residuals are what the deformation leaves.
    field : Field or None
        The last fit; None where too few patches are seen, and the views are as they came.
    changes : tuple of float
        How far the field's displacements changed in each round, rms [Å].
    refined : tuple of str
        Which variables of single views were refined.
    """

    views: tuple[View, ...]
    deformation: Deformation | None
    patched: Patched
    field: Field | None
    changes: tuple[float, ...]
    refined: tuple[str, ...] = ()


def align_patches(
    images: Array,
    views: Sequence[View],
    pixel_size: float,
    used: Sequence[bool],
    centres: Floats,
    size: tuple[float, float],
    thickness: float,
    times: Sequence[float],
    half_width: float,
    variables: Sequence[str] = VARIABLES,
    rounds: int = 4,
    threads: int = 1,
) -> Local:
    """Measure patches and fit the deformation in turn.

    Parameters
    ----------
    images, views, pixel_size, used, centres, size, thickness, threads
        As of `kernels.patches.measure_patches`.
    times : (n,)
        Dose that the specimen has received before each view, scaled to 0 … 1.
    half_width : float
        See `Deformation` [Å].
    variables : sequence of str
        Of each view, to be refined where patches left out agree: axis, magnification, tilt.
    rounds : int
        At most, and one more where variables of views were refined.
    """
    deformation: Deformation | None = None
    moved, settled = tuple(views), False
    refined: tuple[str, ...] = ()
    changes: list[float] = []
    for turn in range(rounds + 1):
        patched = measure_patches(
            images,
            moved,
            pixel_size,
            used,
            centres,
            size,
            thickness,
            deformation,
            times,
            max_shift=FIRST_REACH if turn == 0 else REACH,
            threads=threads,
        )
        if len(np.unique(patched.tracks.point)) < LEAST_PATCHES:
            return Local(tuple(views), None, patched, None, tuple(changes))
        problem = (patched.tracks, moved, patched.points, times, half_width)
        field = fit_field(*problem, variables=(), least=LEAST_SEEN * pixel_size)
        changes.append(_apart(field.deformation, deformation, patched.points))
        # Single views are looked at when the deformation is known: they could stand in for it.
        last = settled or turn >= rounds - 1
        if changes[-1] < SETTLED and not settled:
            settled = True
            field = fit_field(*problem, variables=variables, least=LEAST_SEEN * pixel_size)
            refined = field.model.variables
            last = not refined
        moved, deformation = field.views, field.deformation
        if last:
            break
    return Local(moved, deformation, patched, field, tuple(changes), refined)


def _apart(new: Deformation | None, old: Deformation | None, points: Floats) -> float:
    """Return how far two deformations differ at the end of the series, rms over points [Å]."""
    places = points[np.isfinite(points).all(axis=1)]
    ends = [
        np.zeros_like(places) if d is None else displacements(d, places, 1.0) for d in (new, old)
    ]
    return float(np.sqrt(np.square(ends[0] - ends[1]).sum(axis=1).mean()))
