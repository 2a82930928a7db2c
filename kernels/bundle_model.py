"""Variables of a bundle adjustment: which ones are free, in groups or not, and their views.

Every view has eight numbers, in this order: axis [rad], log magnification, tilt [rad], x-axis tilt
[rad], log stretch, skew [rad], shift x and y [Å]. Free parameters are mixed into them linearly:
one for all views, one for each view, or one for each group of neighbours with linear
interpolation between the groups' middles.

What no image can tell is left where it starts: the common part of tilt, of x-axis tilt and of
magnification are a rotation and a scale of the specimen. Weak Gaussian priors around the start
do that without a view being set apart; `PRIOR` is a hundred times wider than what beads tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import degrees, exp, log, radians
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from kernels.geometry import View

Mode = Literal["fixed", "one", "grouped", "all"]
Floats = NDArray[np.float64]

VARIABLES = ("rotation", "magnification", "tilt", "x_tilt", "stretch", "skew")
WIDTH = len(VARIABLES) + 2
# Views in a group, as IMOD's tiltalign groups them; x-axis tilt as tilt.
GROUP = {
    "rotation": 5,
    "magnification": 4,
    "tilt": 5,
    "x_tilt": 5,
    "stretch": 7,
    "skew": 11,
}
PRIOR = np.array([radians(10), 0.05, radians(5), radians(3), 0.03, radians(2), 3e4, 3e4])
HIGH_TILT = 45.0  # degrees: beyond it groups of tilt angles are half as large


@dataclass(frozen=True)
class Model:
    """Which variables of the views are solved. Shifts always are.

    Attributes
    ----------
    rotation, magnification, tilt, x_tilt, stretch, skew : {'fixed', 'one', 'grouped', 'all'}
        Not at all, one value for the series, one for each group of views, one for each view.
    """

    rotation: Mode = "one"
    magnification: Mode = "fixed"
    tilt: Mode = "fixed"
    x_tilt: Mode = "fixed"
    stretch: Mode = "fixed"
    skew: Mode = "fixed"

    def __str__(self) -> str:
        """Return the free variables in words."""
        free = [
            f"{'x-axis tilt' if f.name == 'x_tilt' else f.name} {getattr(self, f.name)}"
            for f in fields(self)
            if getattr(self, f.name) != "fixed"
        ]
        return ", ".join(["shifts", *free])


def numbers_of(views: Sequence[View]) -> Floats:
    """Return the views' numbers, (n, `WIDTH`)."""
    return np.array(
        [
            [
                radians(v.axis),
                log(v.magnification),
                radians(v.tilt),
                radians(v.x_tilt),
                log(v.stretch),
                radians(v.skew),
                v.shift_x,
                v.shift_y,
            ]
            for v in views
        ]
    )


def views_of(numbers: Floats, views: Sequence[View]) -> tuple[View, ...]:
    """Return the views that have such numbers."""
    return tuple(
        replace(
            view,
            axis=degrees(n[0]),
            magnification=exp(n[1]),
            tilt=degrees(n[2]),
            x_tilt=degrees(n[3]),
            stretch=exp(n[4]),
            skew=degrees(n[5]),
            shift_x=float(n[6]),
            shift_y=float(n[7]),
        )
        for view, n in zip(views, numbers, strict=True)
    )


def mixing(
    model: Model, views: Sequence[View], used: Sequence[bool]
) -> tuple[sparse.csr_array, Floats]:
    """Return how free parameters are mixed into the views' numbers, and the parameters' priors.

    Parameters
    ----------
    model : Model
    views : sequence of View
    used : (n,)
        Views that take part; the others get the values of groups, but none of their own.

    Returns
    -------
    mix : (n · `WIDTH`, n_free), sparse
        Change of the numbers = mix @ parameters.
    priors : (n_free,)
        Standard deviations of the parameters around 0.
    """
    n = len(views)
    order = [int(i) for i in np.argsort([v.tilt for v in views], kind="stable") if used[i]]
    columns: list[Floats] = []
    priors: list[float] = []
    for k, name in enumerate(VARIABLES):
        for weights in _weights(getattr(model, name), name, views, order):
            column = np.zeros((n, WIDTH))
            column[:, k] = weights
            columns.append(column.ravel())
            priors.append(PRIOR[k])
    for i in order:
        for k in (WIDTH - 2, WIDTH - 1):
            column = np.zeros((n, WIDTH))
            column[i, k] = 1.0
            columns.append(column.ravel())
            priors.append(PRIOR[k])
    return sparse.csr_array(np.array(columns).T), np.array(priors)


def _weights(mode: Mode, name: str, views: Sequence[View], order: Sequence[int]) -> list[Floats]:
    """Return for each free parameter of a variable its share in each view."""
    n = len(views)
    if mode == "fixed" or not order:
        return []
    if mode == "one":
        return [np.ones(n)]
    if mode == "all":
        return [np.eye(n)[i] for i in order]
    middles = []
    for group in _groups(order, views, GROUP[name], narrow=name in ("tilt", "x_tilt")):
        middles.append(float(np.mean([order.index(i) for i in group])))
    places = np.arange(len(order), dtype=np.float64)
    rows = []
    for k in range(len(middles)):
        shares = np.interp(places, middles, np.eye(len(middles))[k])
        row = np.zeros(n)
        row[list(order)] = shares
        rows.append(row)
    return rows


def _groups(
    order: Sequence[int], views: Sequence[View], size: int, narrow: bool
) -> list[list[int]]:
    """Return neighbouring views in groups, outward from the lowest tilt on both sides."""
    start = int(np.argmin([abs(views[i].tilt) for i in order]))
    groups: list[list[int]] = []
    for side in (list(order[start:]), list(order[:start])[::-1]):
        k = 0
        while k < len(side):
            high = narrow and abs(views[side[k]].tilt) > HIGH_TILT
            length = max(2, (size + 1) // 2) if high else size
            if len(side) - k - length < length // 2:
                length = len(side) - k
            groups.append(side[k : k + length])
            k += length
    return sorted(groups, key=lambda group: np.mean([order.index(i) for i in group]))
