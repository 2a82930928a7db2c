"""CTF of a tilt series by strips, as ctfplotter does it: what is measured of each view.

The spectra of tiles near the tilt axis, and of those farther away stretched so that their zeros
coincide, are averaged over wedges of direction. kernels/ctf_strip_fit.py fits them.

D. N. Mastronarde, J. Struct. Biol. 216:108057 (2024), doi:10.1016/j.jsb.2023.108057.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.ctf import Ctf, coefficients
from kernels.ctf_rings import with_power
from kernels.ctf_search import LEAST_DEFOCUS
from kernels.spectra import PolarSpectra

Floats = NDArray[np.float64]

LEVEL_RESOLUTION = 30.0  # Å: tiles are brought to one level of the power beyond it


@dataclass(frozen=True)
class WedgeSpectra:
    """Mean power of a view's tiles over wedges of direction: a few thousand numbers.

    Attributes
    ----------
    power : (sectors, rings) float64
        Zeros of all tiles brought to where they are at `defocus`. Ring r holds the frequencies
        nearest to r / box cycles per pixel; the sectors divide the half circle
        counter-clockwise from image +x.
    count : (sectors, rings) float64
        Pixels of the half spectrum in each average, of one tile; 0 where the power means nothing.
    k2, k2_cos, k2_sin : (sectors, rings) float64
        Means of k², k² cos 2α and k² sin 2α over those pixels, in 1/px².
    box : int
        Side of the spectra in pixels.
    window : int
        Side of the tiles, before they were padded, in pixels.
    samples : float
        Independent samples in each pixel of the averages: tiles over their redundancy.
    defocus : float
        That of the view which was assumed, in Å.
    trial_defocus : (n,) float64
        Other assumptions, in Å, by which a first search is not bound to `defocus`.
    trial_power : (n, rings) float64
        Rotational averages under those assumptions.
    """

    power: Floats
    count: Floats
    k2: Floats
    k2_cos: Floats
    k2_sin: Floats
    box: int
    window: int
    samples: float
    defocus: float
    trial_defocus: Floats
    trial_power: Floats


def strip_tiles(
    offsets: ArrayLike, defocus_tolerance: float = 2000.0, side_tolerance: float = 20000.0
) -> NDArray[np.intp]:
    """Return the indices of the tiles that tell of a view's own defocus.

    Parameters
    ----------
    offsets : (n_tiles,)
        Defocus at each tile's centre minus that of the view, in Å.
    defocus_tolerance
        By which the defocus may vary over the central strip, from edge to edge, in Å.
    side_tolerance
        By which that of a tile beside it may differ from the view's, in Å; 0 for none beside it.

    Returns
    -------
    (n_used,) intp
        Ascending; the innermost tiles when none is within the tolerances.

    Raises
    ------
    ValueError
        If a tolerance is out of range or there are no tiles.
    """
    if not (defocus_tolerance > 0 and side_tolerance >= 0):
        raise ValueError(
            f"tolerances are {defocus_tolerance} and {side_tolerance} Å, "
            "expected more than 0 and at least 0"
        )
    away = np.abs(np.asarray(offsets, dtype=np.float64))
    if away.ndim != 1 or not away.size:
        raise ValueError(f"offsets have the shape {away.shape}, expected one for each tile")
    reach = max(0.5 * defocus_tolerance, side_tolerance, 1.001 * float(away.min()))
    return np.flatnonzero(away <= reach)


def measure_wedges(
    polar: PolarSpectra,
    offsets: ArrayLike,
    pixel_size: float,
    optics: Ctf,
    used: ArrayLike | None = None,
    trials: Sequence[float] = (),
) -> WedgeSpectra:
    """Average the spectra of a view's tiles over wedges, their zeros made to coincide.

    Parameters
    ----------
    polar : PolarSpectra
        Of all tiles. Its highest frequency must exceed the fitted range by as much as zeros move.
    offsets : (n_tiles,)
        Defocus at each tile's centre minus that of the view, in Å.
    pixel_size
        In Å.
    optics : Ctf
        Its mean defocus is what the view is expected to have.
    used : (n_used,) int, optional
        Indices of the tiles that are averaged, from `strip_tiles`; default: all.
    trials
        Other defoci that are tried, in Å.

    Raises
    ------
    ValueError
        If offsets and tiles differ in number, or no tile has power.
    """
    shifts = np.asarray(offsets, dtype=np.float64)
    if shifts.shape != polar.power.shape[:1]:
        raise ValueError(f"{shifts.shape} offsets for {len(polar.power)} tiles")
    chosen = np.arange(len(shifts)) if used is None else np.asarray(used, dtype=np.intp)
    power, shifts = polar.power[chosen], shifts[chosen]
    total = polar.count.sum(axis=0)
    rings = np.einsum("tsr,sr->tr", power, polar.count) / np.maximum(total, 1)
    first = min(round(polar.box * pixel_size / LEVEL_RESOLUTION), rings.shape[1] // 2)
    level = rings[:, first:].mean(axis=1)
    seen = with_power(level)
    power, shifts, rings, level = power[seen], shifts[seen], rings[seen], level[seen]
    # A thick or dirty tile must not outshine the others.
    factor = (level.mean() / level)[:, None]
    whole = (rings * factor)[:, None, :]
    averages = [
        _coinciding(whole, shifts, pixel_size, polar.box, _at(optics, trial))[0] for trial in trials
    ]
    return WedgeSpectra(
        power=_coinciding(power * factor[:, None], shifts, pixel_size, polar.box, optics),
        count=polar.count,
        k2=polar.k2,
        k2_cos=polar.k2_cos,
        k2_sin=polar.k2_sin,
        box=polar.box,
        window=polar.window,
        samples=len(shifts) / polar.redundancy,
        defocus=optics.defocus,
        trial_defocus=np.asarray(trials, dtype=np.float64),
        trial_power=np.stack(averages) if averages else np.zeros((0, rings.shape[1])),
    )


def trial_defoci(low: float, high: float, offsets: ArrayLike, step: float) -> list[float]:
    """Return the defoci [Å] to assume in turn, so that a view's zeros coincide under one of them.

    Parameters
    ----------
    low, high
        Range that is searched, in Å.
    offsets : (n_tiles,)
        Of the tiles used, in Å.
    step
        Largest error of a tile's defocus, relative to the others', that is left, in Å.
    """
    # A view taken for e Å off leaves a tile e·offset/defocus off: even steps of the logarithm.
    reach = float(np.abs(np.asarray(offsets, dtype=np.float64)).max())
    n = int(np.clip(np.ceil(np.log(high / low) * reach / (2 * step)), 1, 12))
    edges = np.geomspace(low, high, n + 1)
    return [float(trial) for trial in np.sqrt(edges[1:] * edges[:-1])]


def same_phase(rings: int, box: int, pixel_size: float, offsets: ArrayLike, optics: Ctf) -> Floats:
    """Return where tiles of other defocus have the phase that the rings of a view have.

    Parameters
    ----------
    rings
        Number of rings; ring r has the frequency r / box cycles per pixel.
    box, pixel_size
        In pixels and Å.
    offsets : (n,)
        Defocus of the tiles minus that of `optics`, in Å.
    optics : Ctf

    Returns
    -------
    (n, rings) float64
        Position in rings, below ``rings - 1``.
    """
    a, b, _ = coefficients(optics)
    u = (np.arange(rings) / (box * pixel_size)) ** 2
    phase = u * (a * optics.defocus + b * u)
    defocus = np.maximum(optics.defocus + np.asarray(offsets, dtype=np.float64), LEAST_DEFOCUS)
    slope = a * defocus[:, None]
    there = 2 * phase / (slope + np.sqrt(np.maximum(slope**2 + 4 * b * phase, 0)))
    return np.clip(np.sqrt(np.maximum(there, 0)) * box * pixel_size, 0, rings - 1.001)


def read_rings(power: ArrayLike, position: Floats) -> Floats:
    """Read rings (..., rings) at fractional positions (rings,), linearly between two."""
    values = np.asarray(power)
    floor = position.astype(np.intp)
    rest = position - floor
    return np.asarray(values[..., floor] * (1 - rest) + values[..., floor + 1] * rest)


def _coinciding(
    power: NDArray[np.floating], offsets: Floats, pixel: float, box: int, optics: Ctf
) -> Floats:
    """Average tiles (n, sectors, rings), each read where its phase is the view's."""
    total = np.zeros(power.shape[1:])
    positions = same_phase(power.shape[-1], box, pixel, offsets, optics)
    for tile, position in zip(power, positions, strict=True):
        total += read_rings(tile, position)
    return total / len(power)


def _at(optics: Ctf, defocus: float) -> Ctf:
    return replace(optics, defocus_u=defocus, defocus_v=defocus)
