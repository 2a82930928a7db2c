"""CTF estimation of one view: alone with either hand, then with what the other views tell."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import to_host
from kernels.ctf import Ctf
from kernels.ctf_fit import CtfFit, CtfPrior, CtfSearch, fit_ctf
from kernels.ctf_profile import CtfProfile
from kernels.geometry import View, defocus_offset, midplane_points
from kernels.spectra import mean_spectrum, polar_spectra, tile_spectra, without_extremes
from tasks.chunks.device import on_device
from tasks.parameters import CtfParameters
from tasks.record import Acquisition
from tasks.store import Result

Report = dict[str, Any]


def search_view(
    source: Result,
    index: int,
    view: View,
    acquisition: Acquisition,
    pixel_size: float,
    box: int,
    parameters: CtfParameters,
) -> dict[str, Report]:
    """Fit a view alone, its defocus gradient taken with hand +1 and with hand −1."""
    spectra, centres = _tiles(source, index, box)
    polar = polar_spectra(spectra)
    return {
        str(hand): _as_report(
            fit_ctf(
                polar,
                _offsets(centres, view, pixel_size, hand),
                pixel_size,
                search_of(parameters),
                voltage=acquisition.voltage,
                cs=acquisition.cs,
                amplitude_contrast=acquisition.amplitude_contrast,
            )
        )
        for hand in ((1,) if view.tilt == 0 else (1, -1))
    }


def refine_view(
    source: Result,
    target: Result,
    index: int,
    view: View,
    acquisition: Acquisition,
    pixel_size: float,
    box: int,
    hand: int,
    prior: CtfPrior,
    parameters: CtfParameters,
) -> Report:
    """Fit a view near what the other views expect, and write its mean spectrum."""
    spectra, centres = _tiles(source, index, box)
    offsets = _offsets(centres, view, pixel_size, hand)
    fit = fit_ctf(
        polar_spectra(spectra),
        offsets,
        pixel_size,
        search_of(parameters),
        prior,
        voltage=acquisition.voltage,
        cs=acquisition.cs,
        amplitude_contrast=acquisition.amplitude_contrast,
    )
    defocus = fit.ctf.defocus
    scales = np.sqrt(defocus / np.maximum(defocus + offsets, 0.1 * defocus))
    target.array("spectra")[index] = to_host(mean_spectrum(spectra, scales))
    return _as_report(fit)


def search_of(parameters: CtfParameters) -> CtfSearch:
    """Return the kernel's description of the search."""
    return CtfSearch(
        min_resolution=parameters.min_resolution,
        max_resolution=parameters.max_resolution,
        min_defocus=parameters.min_defocus,
        max_defocus=parameters.max_defocus,
        step=parameters.defocus_step,
        astigmatism_tolerance=parameters.astigmatism_tolerance,
    )


def fit_from_report(report: Report) -> CtfFit:
    """Return the fit that a worker has reported."""
    fields = {
        name: np.asarray(value) if isinstance(value, list) else value
        for name, value in report.items()
    }
    profile = {name: np.asarray(values) for name, values in report["profile"].items()}
    made: dict[str, Any] = {**fields, "ctf": Ctf(**report["ctf"]), "profile": CtfProfile(**profile)}
    return CtfFit(**made)


def memory_of_view(shape: tuple[int, int], box: int) -> int:
    """Return the most memory that one of these functions takes [bytes].

    Half-overlapping tiles hold about four times the image's pixels, as complex and real numbers.
    """
    return 150_000_000 + 4 * 4 * max(shape[0] * shape[1], box * box) * 3


def _tiles(source: Result, index: int, box: int) -> tuple[Any, NDArray[np.float64]]:
    image = on_device(np.asarray(source.images()[index]))
    return tile_spectra(without_extremes(image), box)


def _offsets(
    centres: NDArray[np.float64], view: View, pixel_size: float, hand: int
) -> NDArray[np.float64]:
    """Return Δf − Δf_view at tile centres (n, 2) as x, y [pixels from the centre pixel]."""
    points = midplane_points(centres * pixel_size, view)
    return defocus_offset(points, view, hand)


def _as_report(fit: CtfFit) -> Report:
    return {name: _plain(value) for name, value in asdict(fit).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
