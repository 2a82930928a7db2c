"""Motion of a movie: its frames' shifts and a smooth field of local motion.

The whole frames are placed first, from rest and from the best drifts, at 10 Å per pixel,
then at 5 Å. Patches cut from the frames so aligned give shifts and field together, by maximum
likelihood (`kernels.motion_likelihood`). A field without evidence is dropped, and so is all
motion of a movie in which nothing is seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from kernels.arrays import Array
from kernels.motion_likelihood import Floats
from kernels.motion_patches import field_functions, fit_frames, fit_patches
from kernels.motion_spectra import Movie

LEAST_EVIDENCE = 2.0  # of log-likelihood: odds of 7 to 1 for a field


@dataclass(frozen=True)
class LocalField:
    """A smooth field of displacement with no mean over the frame, zero at the reference.

    Attributes
    ----------
    coefficients : (n, functions, 2) float64
        Of displacement (y, x) in each frame [pixels of the frames], for the functions of
        `field_functions`.
    """

    coefficients: Floats

    def at(self, y: ArrayLike, x: ArrayLike) -> Floats:
        """Return displacements (n, 2, …) at places in units of the frame, −0.5 to 0.5.

        Parameters
        ----------
        y, x : (…)
            (i − n // 2) / n of pixel i of n.
        """
        values = field_functions(y, x, self.coefficients.shape[1])
        return np.asarray(np.einsum("nka,...k->na...", self.coefficients, values))


@dataclass(frozen=True)
class MovieMotion:
    """The motion of a movie.

    Attributes
    ----------
    shifts : (n, 2) float64
        Displacement (y, x) of the specimen in each frame, averaged over the frame, relative to
        the reference [pixels of the frames].
    local : LocalField or None
        What parts of the frame move beyond that.
    uncertainty : (n,) float64
        Standard error per axis of each frame's shift relative to the movie's mean [pixels].
    significance : float
        Summed cross-power of the aligned frames in standard deviations of noise.
    evidence : float
        Gain in log-likelihood by the field, less what its freedom gains on noise.
    model : {'local', 'global', 'none'}
        What the movie supports; 'none': nothing was found, all shifts are zero.
    """

    shifts: Floats
    local: LocalField | None
    uncertainty: Floats
    significance: float
    evidence: float
    model: Literal["local", "global", "none"]


def estimate_motion(
    frames: Iterable[Array],
    pixel_size: float,
    *,
    max_drift: float = 80.0,
    patches: tuple[int, int] | None = None,
    group_global: int = 1,
    group_local: int = 1,
    b_factor_global: float | None = None,
    b_factor_local: float | None = None,
    reference_frame: int = 0,
    min_significance: float = 9.0,
    local: bool = True,
) -> MovieMotion:
    """Measure the motion of the specimen through a movie.

    Parameters
    ----------
    frames : iterable of (ny, nx) float32
        Gain-corrected frames in order of time; read once, one at a time. Only small spectra of
        them are kept.
    pixel_size : float
        Of the frames [Å].
    max_drift : float
        Drift from first to last frame, steady or settling, that the first search covers, per
        axis [Å].
    patches : (int, int), optional
        Patches along y and x; by default one every 230 Å, 3 to 8.
    group_global, group_local : int
        Frames summed for the shifts and for the field; between groups motion is interpolated.
    b_factor_global, b_factor_local : float, optional
        Further weight exp(−B k² / 4) on whole frames and on patches [Å²].
    reference_frame : int
        Index of the frame whose shift is zero.
    min_significance : float
        Below it the movie counts as dark. Noise alone, being aligned too, reached 7.8 in 180
        simulated movies.
    local : bool
        Whether to look for local motion.

    Returns
    -------
    MovieMotion

    Raises
    ------
    ValueError
        If there are no frames, they differ in shape, or a number is out of its range.
    """
    _check(patches, group_global, group_local)
    together = gcd(group_global, group_local)
    count = 0

    def counted() -> Iterable[Array]:
        nonlocal count
        for frame in frames:
            count += 1
            yield frame

    movie = Movie.read(counted(), pixel_size, together)
    if not 0 <= reference_frame < count:
        raise ValueError(f"the reference is frame {reference_frame} of {count}, from 0")
    # All below is in groups of `together` frames, as read, then in those of each fit.
    large, small = group_global // together, group_local // together
    found = fit_frames(movie.grouped(large), max_drift, b_factor_global)
    places = spread(found.coefficients[:, 0], group_global, count)
    uncertainty = spread(found.uncertainty, group_global, count)
    model: Literal["local", "global", "none"] = "global"
    field, evidence = None, 0.0
    if movie.count > 1 and found.significance < min_significance:
        model, places = "none", np.zeros((count, 2))
    elif local and -(-movie.count // small) > 1:
        removed = middle(places, together)
        width = float(found.widths[0])
        patched = fit_patches(movie, removed, small, patches, b_factor_local, width)
        evidence = patched.evidence
        if evidence >= LEAST_EVIDENCE:
            model = "local"
            course = spread(patched.coefficients, group_local, count)
            places = places + course[:, 0] - spread(middle(places, group_local), group_local, count)
            field = LocalField((course[:, 1:] - course[reference_frame, 1:]) / pixel_size)
            uncertainty = spread(patched.uncertainty, group_local, count)
    return MovieMotion(
        shifts=(places - places[reference_frame]) / pixel_size,
        local=field,
        uncertainty=uncertainty / pixel_size,
        significance=found.significance,
        evidence=evidence,
        model=model,
    )


def relion_coefficients(field: LocalField) -> Floats:
    """Fit RELION's polynomial of local motion to a field.

    Parameters
    ----------
    field : LocalField
        Zero at the first frame.

    Returns
    -------
    (36,) float64
        rlnMotionModelCoeff 0 to 35, those of x first: for each of 1, x, x², y, y², xy the
        coefficients of z, z², z³, with x and y from −0.5 to 0.5 and z the frame's index from 0
        [pixels of the frames]. The sign is ours, that of the
        displacement, as `tasks.formats.relion_motion` takes it.
    """
    place = np.linspace(-0.5, 0.5, 13)
    y, x = (g.ravel() for g in np.meshgrid(place, place, indexing="ij"))
    z = np.arange(len(field.coefficients))
    space = np.stack([np.ones_like(x), x, x * x, y, y * y, x * y], axis=1)
    time = np.stack([z, z**2, z**3], axis=1).astype(np.float64)
    moved = field.at(y, x)
    # Separable least squares: first in space, then in time.
    in_space = np.einsum("sp,nap->nas", np.linalg.pinv(space), moved)
    fitted = np.einsum("tn,nas->ast", np.linalg.pinv(time), in_space)
    return np.asarray(fitted[::-1].reshape(-1))


def middle(values: Floats, group: int) -> Floats:
    """Return the mean of each `group` of frames (n, …); the last may be of fewer."""
    return np.stack([values[i : i + group].mean(axis=0) for i in range(0, len(values), group)])


def spread(values: Floats, group: int, count: int) -> Floats:
    """Interpolate values at the middles of groups to `count` frames, straight beyond the ends."""
    if group == 1 or len(values) == 1:
        return np.repeat(values, count if len(values) == 1 else 1, axis=0)
    frames = np.arange(count)
    centres = middle(frames[:, None].astype(np.float64), group)[:, 0]
    left = np.clip(np.searchsorted(centres, frames) - 1, 0, len(centres) - 2)
    part = (frames - centres[left]) / np.diff(centres)[left]
    part = part.reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(values[left] * (1 - part) + values[left + 1] * part)


def _check(patches: tuple[int, int] | None, *groups: int) -> None:
    for group in groups:
        if group < 1:
            raise ValueError(f"a group is of {group} frames, it must be at least 1")
    if patches is not None and min(patches) < 1:
        raise ValueError(f"there are {patches[0]}×{patches[1]} patches, at least 1×1 is needed")
