"""Fit of the CTF to the tile spectra of one view, tilted or not.

A brute-force search on the rotational average gives a few candidates; from each of them the
likelihood of all tiles' rings (kernels/ctf_likelihood.py) is climbed, and the best is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.ctf import Ctf
from kernels.ctf_likelihood import Gaussian, Likelihood, Maximum, Point, Priors
from kernels.ctf_profile import CtfProfile, equiphase_profile, fitted_resolution
from kernels.ctf_rings import Optics, Rings
from kernels.ctf_search import (
    LEAST_DEFOCUS,
    Search,
    best_astigmatism,
    check_ranges,
    highest_peaks,
    search_rings,
)
from kernels.spectra import PolarSpectra

Floats = NDArray[np.float64]

ZONES = 4  # parts of a view, along its gradient and across, in which the gradient is measured
GRADIENT_SIGMA = 0.35  # how far a gradient may be from the expected one, as a slope: 20°
REWEIGHTED = 1000.0  # Å from where the samples were weighted that ask for new weights
PRIOR_REACH = 4.0  # standard deviations of a prior that are searched
ASTIGMATISM_STEPS = np.asarray([-1.2, -0.6, 0.0, 0.6, 1.2])  # of its tolerance, tried at first


@dataclass(frozen=True)
class CtfSearch:
    """Where the CTF is looked for.

    Attributes
    ----------
    min_resolution, max_resolution
        Range of the spectrum that is fitted, in Å; cut at 95 % of the Nyquist frequency.
    min_defocus, max_defocus, step
        Range and step of the first search, in Å.
    astigmatism_tolerance
        Expected size of the astigmatism in Å: a larger one must be earned by the data.
    phase_shifts
        Least, greatest and step of the phase shift that is searched, in degrees; None: known.
    """

    min_resolution: float = 30.0
    max_resolution: float = 5.0
    min_defocus: float = 5000.0
    max_defocus: float = 50000.0
    step: float = 200.0
    astigmatism_tolerance: float = 1000.0
    phase_shifts: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        check_ranges(
            (self.min_resolution, self.max_resolution), (self.min_defocus, self.max_defocus)
        )
        for name in ("step", "astigmatism_tolerance"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)} Å, expected more than 0")

    @property
    def names(self) -> tuple[str, ...]:
        """What is fitted."""
        return ("defocus", "p", "q", *(("phase",) if self.phase_shifts else ()))

    def phases(self, known: float) -> Floats:
        """Return the phase shifts of the first search, less the `known` one [radians]."""
        if self.phase_shifts is None:
            return np.zeros(1)
        low, high, step = self.phase_shifts
        return np.radians(np.arange(low, high + 0.5 * step, step) - known)

    def least_phase(self, known: float) -> float:
        """Return from where on phase shifts are told, less the `known` one [radians].

        Rings are the same half a turn on, but the contrast is inverted. A step below the search is
        no such turn: views without phase plate must not scatter between 0° and 180°.
        """
        if self.phase_shifts is None:
            return -0.5 * math.pi
        low, high, step = self.phase_shifts
        return math.radians(min(low - step, 0.5 * (low + high) - 90) - known)


@dataclass(frozen=True)
class CtfFit:
    """What one view's spectra say.

    Attributes
    ----------
    ctf : Ctf
    names : tuple of str
        defocus, p, q [Å] and, where searched, phase [radians]; p, q = (U − V)(cos 2α, sin 2α).
    values : (n,) float64
        Of the names: the most likely ones, priors counted.
    covariance : (n, n) float64
        Of the names by this view's spectra alone.
    evidence : float
        Gain in log likelihood over a spectrum without rings.
    score : float
        Correlation of data and fit over the fitted range, −1 to 1.
    fit_resolution : float
        To which the fit follows the data, in Å.
    profile : CtfProfile
        One-dimensional averages of data and fit.
    """

    ctf: Ctf
    names: tuple[str, ...]
    values: Floats
    covariance: Floats = field(repr=False)
    evidence: float
    score: float
    fit_resolution: float
    profile: CtfProfile = field(repr=False)

    @property
    def point(self) -> Point:
        """The values as where a likelihood is taken."""
        known = dict(zip(self.names, self.values.tolist(), strict=True))
        return Point(known["defocus"], known["p"], known["q"], known.get("phase", 0.0))

    def error(self, name: str) -> float:
        """Return the standard error of a value by this view's spectra alone."""
        i = self.names.index(name)
        return math.sqrt(max(float(self.covariance[i, i]), 0.0))


@dataclass(frozen=True)
class GradientFit:
    """The defocus gradient that one view's tiles show: Å of defocus per Å of x′ and y′.

    `information` @ (gx, gy) − `pull` is the slope of its −log likelihood, so that those of many
    views add up.
    """

    gradient: tuple[float, float]
    information: Floats
    pull: Floats


class ViewFit:
    """The spectra of one view, ready to be fitted.

    Parameters
    ----------
    polar : PolarSpectra
        Of the view's tiles.
    places : (n_tiles, 2)
        x′, y′ of the tiles' centres from the raw image's centre, aligned frame [Å].
    gradient : (float, float)
        Of the defocus over x′ and y′ (kernels.geometry.defocus_gradient).
    pixel_size : float
        Of the spectra, in Å.
    search : CtfSearch
    optics : Optics

    Raises
    ------
    ValueError
        If places and tiles differ in number, the box is too small for the resolution range, or no
        tile has power.

    References
    ----------
    .. [1] A. Rohou and N. Grigorieff, J. Struct. Biol. 192:216 (2015).
    .. [2] D. N. Mastronarde, J. Struct. Biol. 216:108057 (2024), for tiles of different defocus.
    """

    def __init__(
        self,
        polar: PolarSpectra,
        places: ArrayLike,
        gradient: tuple[float, float],
        pixel_size: float,
        search: CtfSearch,
        optics: Optics,
    ) -> None:
        self.places = np.asarray(places, dtype=np.float64)
        if self.places.shape != (len(polar.power), 2):
            raise ValueError(f"{self.places.shape} places for {len(polar.power)} tiles")
        self.polar, self.pixel_size = polar, pixel_size
        self.gradient, self.search, self.optics = gradient, search, optics
        self.resolutions = (search.min_resolution, search.max_resolution)
        self.rings = Rings(polar, self.places, gradient, pixel_size, self.resolutions)

    def first_search(self, priors: Priors) -> Search:
        """Search the whole range, or the part of it that a prior leaves.

        A prior that leaves nothing of the range is searched itself: a series may reach beyond it.
        """
        low, high = self.search.min_defocus, self.search.max_defocus
        if "defocus" in priors:
            expected, reach = priors["defocus"].mean, PRIOR_REACH * priors["defocus"].sigma
            around = max(expected - reach, LEAST_DEFOCUS), max(expected + reach, LEAST_DEFOCUS + 1)
            low, high = max(low, around[0]), min(high, around[1])
            if high <= low:
                low, high = around
        n = max(3, math.ceil((high - low) / self.search.step) + 1)
        phases = self.search.phases(self.optics.phase_shift)
        return search_rings(
            self.rings, self.gradient, self.optics, np.linspace(low, high, n), phases
        )

    def fit(self, priors: Priors, found: Search | None = None) -> tuple[CtfFit, Maximum]:
        """Fit the CTF, wherever it is.

        Parameters
        ----------
        priors : mapping of str to Gaussian
            What is known before of defocus, p, q [Å] and phase [radians].
        found : Search, optional
            Of `first_search`, where it was made before.
        """
        found = found or self.first_search(priors)
        held = self._held(priors)
        before = np.zeros(len(found.defocus))
        if "defocus" in held:
            before = -0.5 * ((found.defocus - held["defocus"].mean) / held["defocus"].sigma) ** 2
        starts = []
        phases = self._told_phase(found.phases, held)
        before = before[:, None] + np.zeros_like(phases)
        if "phase" in held:
            before -= 0.5 * ((phases - held["phase"].mean) / held["phase"].sigma) ** 2
        for defocus, phase in highest_peaks(replace(found, phases=phases), before):
            d, p, q = best_astigmatism(
                self.rings,
                self.gradient,
                self.optics,
                (defocus, phase),
                self.search.step,
                (held["p"].mean, held["q"].mean),
                min(held["p"].sigma, self.search.astigmatism_tolerance) * ASTIGMATISM_STEPS,
            )
            starts.append(Point(d, p, q, phase))
        return self.fit_near(starts, priors)

    def fit_near(self, starts: Sequence[Point], priors: Priors) -> tuple[CtfFit, Maximum]:
        """Fit the CTF from one or several points; the gradient is always that of the view."""
        held = self._held(priors)
        gx, gy = self.gradient
        points = [replace(start, gradient_x=gx, gradient_y=gy) for start in starts]
        # Only likelihoods that weight the samples alike can be compared.
        likelihood = Likelihood(self.rings, self.optics, starts[0].defocus)
        climbed = [likelihood.maximise(point, self.search.names, held) for point in points]
        maximum = max(climbed, key=lambda found: found.posterior)
        if abs(maximum.point.defocus - starts[0].defocus) > REWEIGHTED:
            likelihood = Likelihood(self.rings, self.optics, maximum.point.defocus)
            maximum = likelihood.maximise(maximum.point, self.search.names, held)
        phase = float(self._told_phase(maximum.point.phase, held))
        maximum = replace(maximum, point=replace(maximum.point, phase=phase))
        return self._told(maximum, likelihood), maximum

    def _held(self, priors: Priors) -> dict[str, Gaussian]:
        tolerance = Gaussian(0.0, self.search.astigmatism_tolerance)
        return {"p": tolerance, "q": tolerance, **priors}

    def _told_phase(self, phase: ArrayLike, priors: Priors) -> Floats:
        """Return additional phase shifts [radians] as they are told, half turns aside."""
        least = self.search.least_phase(self.optics.phase_shift)
        if "phase" in priors:
            least = priors["phase"].mean - 0.5 * math.pi
        return np.asarray(least + (np.asarray(phase, dtype=np.float64) - least) % math.pi)

    def _told(self, maximum: Maximum, likelihood: Likelihood) -> CtfFit:
        point, rings = maximum.point, self.rings
        phase_shift = self.optics.phase_shift + math.degrees(point.phase)
        ctf = self.optics.ctf(point.defocus, point.p, point.q, phase_shift)
        smooth = np.exp(-likelihood.background(point))
        data = rings.power * smooth - 1
        model = np.expm1(likelihood.model(point)[0])
        local = point.defocus + rings.offsets(self.gradient)
        along = local[:, None, None] * rings.k2
        along = along + 0.5 * (point.p * rings.k2_cos + point.q * rings.k2_sin)
        k_equal = np.sqrt(np.maximum(along / max(point.defocus, LEAST_DEFOCUS), 0))
        flat = (-1, len(rings.k))
        profile = equiphase_profile(
            data.reshape(flat), model.reshape(flat), rings.weight.reshape(flat),
            k_equal.reshape(flat), rings.k, ctf, rings.correlated,
        )  # fmt: skip
        return CtfFit(
            ctf=ctf,
            names=maximum.names,
            values=np.asarray([getattr(point, name) for name in maximum.names]),
            covariance=maximum.covariance,
            evidence=maximum.gain,
            score=_correlation(profile),
            fit_resolution=fitted_resolution(profile),
            profile=profile,
        )

    def fit_gradient(self, maximum: Maximum, priors: Priors) -> GradientFit:
        """Measure the gradient of the defocus around a fit.

        Parameters
        ----------
        maximum : Maximum
            Of `fit`.
        priors : mapping of str to Gaussian
            As given to `fit`.
        """
        rings = Rings(
            self.polar, self.places, self.gradient, self.pixel_size, self.resolutions, ZONES
        )
        likelihood = Likelihood(rings, self.optics, maximum.point.defocus)
        expected = {
            name: Gaussian(value, GRADIENT_SIGMA)
            for name, value in zip(("gradient_x", "gradient_y"), self.gradient, strict=True)
        }
        names = (*maximum.names, *expected)
        start = replace(maximum.point, background=None)
        found = likelihood.maximise(start, names, {**priors, **expected}, rounds=12)
        place = np.asarray([found.point.gradient_x, found.point.gradient_y])
        # All but the gradient unknown, as far as the priors leave it so.
        held = [priors[name].sigma ** -2 if name in priors else 0.0 for name in names]
        whole = np.linalg.pinv(found.covariance) + np.diag(held)
        marginal = np.linalg.pinv(np.linalg.pinv(whole)[-2:, -2:])
        pull = marginal @ place + (place - np.asarray(self.gradient)) / GRADIENT_SIGMA**2
        return GradientFit((float(place[0]), float(place[1])), marginal, pull)

    def by_path(self, maximum: Maximum, priors: Priors, paths: Floats) -> tuple[Floats, Floats]:
        """Fit the view for each length of the beam's path in the specimen.

        Parameters
        ----------
        maximum : Maximum
            Of `fit`.
        priors : mapping of str to Gaussian
            As given to `fit`.
        paths : (n,)
            [Å]

        Returns
        -------
        evidence : (n,) float64
            Gain in log likelihood over no rings.
        values : (n, names) float64
            What the names have there.
        """
        likelihood = Likelihood(self.rings, self.optics, maximum.point.defocus)
        held = self._held(priors)
        evidence, values = [], []
        point = maximum.point
        for path in paths:
            trial = replace(point, thickness=float(path))
            best = likelihood.maximise(trial, maximum.names, held, rounds=6)
            evidence.append(best.posterior)
            values.append([getattr(best.point, name) for name in maximum.names])
            point = best.point
        return np.asarray(evidence), np.asarray(values)


def _correlation(profile: CtfProfile) -> float:
    weight = profile.noise**-2
    x, y = (
        values - (weight * values).sum() / weight.sum()
        for values in (profile.equiphase, profile.fit)
    )
    norm = (weight * x**2).sum() * (weight * y**2).sum()
    return float((weight * x * y).sum() / math.sqrt(norm)) if norm > 0 else 0.0
