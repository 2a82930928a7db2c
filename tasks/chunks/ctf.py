"""CTF estimation of one view: alone with either hand, then with what the other views tell."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Array, namespace, to_host
from kernels.ctf import Ctf
from kernels.ctf_fit import CtfFit, CtfSearch, GradientFit, ViewFit
from kernels.ctf_likelihood import Gaussian, Point
from kernels.ctf_profile import CtfProfile
from kernels.ctf_rings import Optics
from kernels.ctf_series import FREE_EVIDENCE
from kernels.fourier import bin_images, binned_shape
from kernels.geometry import View, aligned_from_raw, defocus_gradient
from kernels.spectra import PolarSpectra, mean_spectrum, polar_spectra, tile_box, without_extremes
from tasks.chunks.device import on_device
from tasks.errors import UnusableData
from tasks.parameters import CtfParameters
from tasks.record import Acquisition
from tasks.result import Result

Report = dict[str, Any]
Polar = tuple[PolarSpectra, NDArray[np.float64]]

# Images are reduced until the finest resolution fitted is at this part of the Nyquist frequency.
NYQUIST_USED = 0.9
CLEAR = 60.0  # evidence beyond which the rings of one hand tell where those of the other are
NEAR = 3.0  # standard deviations of a prior within which a fit alone is where to start
REDUCTION_STEP = 0.25  # so that images of every size can be reduced by whole pixels
PATHS = np.arange(0.0, 8001.0, 250.0)  # Å of specimen along the beam that are tried


@dataclass(frozen=True)
class Sampling:
    """How images are sampled for the CTF.

    Attributes
    ----------
    reduction : float
        Pixels of the image in one of the spectra's.
    pixel_size : float
        Of the spectra [Å].
    box : int
        Side of the tiles, in these pixels.
    """

    reduction: float
    pixel_size: float
    box: int


def sampling_of(shape: tuple[int, int], pixel_size: float, parameters: CtfParameters) -> Sampling:
    """Return how the images (ny, nx) of a series are sampled for its CTF."""
    reduction = 0.5 * NYQUIST_USED * parameters.max_resolution / pixel_size
    reduction = max(REDUCTION_STEP * floor(reduction / REDUCTION_STEP), 1.0)
    small, _ = binned_shape(shape, reduction)
    if parameters.box is None:
        box = tile_box(small, pixel_size * reduction)
    else:
        box = min(round(parameters.box / reduction / 2) * 2, *(n // 2 * 2 for n in small))
    return Sampling(reduction, pixel_size * reduction, box)


@dataclass(frozen=True)
class Job:
    """What the fits of all views of a series need."""

    source: Result
    target: Result
    acquisition: Acquisition
    sampling: Sampling
    parameters: CtfParameters


def search_view(job: Job, index: int, view: View, hands: tuple[int, ...]) -> Report:
    """Fit a view alone, its defocus gradient taken with each of `hands`, and measure the gradient.

    Returns
    -------
    dict
        ``fits``: hand (as text) → report of the fit; ``hand``: which fits better; ``gradient``:
        what the tiles show around that one, None where there are no rings.
    """
    image = _image(job, index)
    polar = _polar(job, image)
    views = {hand: _view_fit(job, polar, view, defocus_gradient(view, hand)) for hand in hands}
    found = {hand: one.first_search({}) for hand, one in views.items()}
    first = max(hands, key=lambda hand: float(found[hand].evidence.max()))
    fits = {first: views[first].fit({}, found[first])}
    if len(hands) > 1 and fits[first][0].evidence >= CLEAR:
        # At the image's centre both hands have the same defocus; and only from the same start
        # are the likelihoods of both weighted alike.
        near = fits[first][1].point
        fits = {hand: one.fit_near([near], {}) for hand, one in views.items()}
    else:
        fits |= {hand: one.fit({}, found[hand]) for hand, one in views.items() if hand != first}
    best = max(hands, key=lambda hand: fits[hand][1].posterior)
    fit, maximum = fits[best]
    rings = fit.evidence >= FREE_EVIDENCE
    gradient = views[best].fit_gradient(maximum, {}) if rings else None
    return {
        "fits": {str(hand): _fit_report(fit) for hand, (fit, _) in fits.items()},
        "hand": best,
        "gradient": gradient and {name: _plain(v) for name, v in vars(gradient).items()},
    }


def refine_view(
    job: Job,
    index: int,
    view: View,
    gradient: tuple[float, float],
    priors: dict[str, Gaussian],
    alone: Point,
) -> Report:
    """Fit a view near what the other views expect, and write its mean spectrum.

    Parameters
    ----------
    alone : Point
        Of the fit alone, from which this one starts where the priors allow it.
    """
    image = _image(job, index)
    fit_view = _view_fit(job, _polar(job, image), view, gradient)
    if all(abs(getattr(alone, name) - of.mean) < NEAR * of.sigma for name, of in priors.items()):
        fit, maximum = fit_view.fit_near([alone], priors)
    else:
        fit, maximum = fit_view.fit(priors)
    report = _fit_report(fit)
    if job.parameters.search_thickness:
        found, values = fit_view.by_path(maximum, priors, PATHS)
        report["by_path"] = {"evidence": found.tolist(), "values": values.tolist()}
    offsets = fit_view.places @ np.asarray(gradient)
    scales = np.sqrt(fit.ctf.defocus / np.maximum(fit.ctf.defocus + offsets, 0.1 * fit.ctf.defocus))
    spectrum = mean_spectrum(image, scales, job.sampling.box)
    job.target.array("spectra")[index] = to_host(spectrum)
    return report


def fit_from_report(report: Report) -> CtfFit:
    """Return the fit that a worker has reported."""
    profile = CtfProfile(**{name: np.asarray(v) for name, v in report["profile"].items()})
    return CtfFit(
        ctf=Ctf(**report["ctf"]),
        names=tuple(report["names"]),
        values=np.asarray(report["values"]),
        covariance=np.asarray(report["covariance"]),
        evidence=report["evidence"],
        score=report["score"],
        fit_resolution=report["fit_resolution"],
        profile=profile,
    )


def gradient_from_report(report: Report) -> GradientFit:
    """Return the gradient that a worker has reported."""
    x, y = report["gradient"]
    return GradientFit((x, y), np.asarray(report["information"]), np.asarray(report["pull"]))


def memory_of_view(shape: tuple[int, int], sampling: Sampling) -> int:
    """Return the most memory that one of these functions takes [bytes].

    The image and its transform, the reduced image, a row of tiles and their transforms, and the
    fitted samples with their derivatives.
    """
    image = 4 * shape[0] * shape[1]
    return 250_000_000 + 4 * image + 40 * sampling.box * max(shape)


def _image(job: Job, index: int) -> Array:
    image = without_extremes(on_device(np.asarray(job.source.images()[index])))
    refuse_blank(image, index)
    reduction = job.sampling.reduction
    return bin_images(image, reduction) if reduction > 1 else image


def refuse_blank(image: Array, index: int) -> None:
    """Refuse an image of which there is no spectrum.

    Raises
    ------
    UnusableData
        If all pixels are equal, or one is no number.
    """
    xp = namespace(image)
    low, high = float(xp.min(image)), float(xp.max(image))
    if low == high or not isfinite(high - low):
        why = "all pixels are equal" if low == high else "has pixels that are no numbers"
        raise UnusableData(f"view {index + 1}: {why}: leave it out by exclude.views")


def _polar(job: Job, image: Array) -> Polar:
    sampling = job.sampling
    finest = sampling.pixel_size / job.parameters.max_resolution
    return polar_spectra(image, sampling.box, highest=finest)


def _view_fit(job: Job, polar: Polar, view: View, gradient: tuple[float, float]) -> ViewFit:
    spectra, centres = polar
    parameters, sampling = job.parameters, job.sampling
    at_centre = replace(view, shift_x=0.0, shift_y=0.0)
    return ViewFit(
        spectra,
        aligned_from_raw(centres * sampling.pixel_size, at_centre),
        gradient,
        sampling.pixel_size,
        search_of(parameters),
        optics_of(job.acquisition, parameters),
    )


def search_of(parameters: CtfParameters) -> CtfSearch:
    """Return the kernel's description of the search."""
    return CtfSearch(
        min_resolution=parameters.min_resolution,
        max_resolution=parameters.max_resolution,
        min_defocus=parameters.min_defocus,
        max_defocus=parameters.max_defocus,
        step=parameters.defocus_step,
        astigmatism_tolerance=parameters.astigmatism_tolerance,
        phase_shifts=(
            parameters.min_phase_shift,
            parameters.max_phase_shift,
            parameters.phase_shift_step,
        )
        if parameters.search_phase_shift
        else None,
    )


def optics_of(acquisition: Acquisition, parameters: CtfParameters) -> Optics:
    """Return what is known of the CTF before."""
    return Optics(
        acquisition.voltage,
        acquisition.cs,
        acquisition.amplitude_contrast,
        parameters.phase_shift,
    )


def _fit_report(fit: CtfFit) -> Report:
    report = {name: _plain(value) for name, value in vars(fit).items()}
    return {**report, "ctf": vars(fit.ctf), "profile": _plain(vars(fit.profile))}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value
