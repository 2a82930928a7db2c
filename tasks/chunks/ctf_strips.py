"""CTF by strips: what one view's worker measures, and the fit of all views on the host."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from kernels.arrays import to_host
from kernels.ctf import Ctf
from kernels.ctf_strip_search import StripSearch
from kernels.ctf_strips import WedgeSpectra, measure_wedges, strip_tiles, trial_defoci
from kernels.fourier import bin_images
from kernels.geometry import View, defocus_offset, midplane_points
from kernels.spectra import PolarSpectra, mean_spectrum, polar_spectra, without_extremes
from tasks.chunks.ctf import refuse_blank
from tasks.chunks.device import on_device
from tasks.parameters import CtfParameters
from tasks.record import Acquisition
from tasks.result import Result

Report = dict[str, Any]

WEDGES = 36  # of 5°
HEADROOM = 1.35  # of frequencies above the fitted ones, from which zeros of tiles are moved
TRIAL_STEP = 200.0  # Å: error of a tile's relative defocus that the first search may leave


def measure_view(
    source: Result,
    target: Result,
    index: int,
    view: View,
    acquisition: Acquisition,
    pixel_size: float,
    box: int,
    hand: int,
    expected: float | None,
    parameters: CtfParameters,
    reduction: float = 1.0,
) -> Report:
    """Average a view's tiles over wedges, and write its mean spectrum.

    Parameters
    ----------
    pixel_size, box
        Pixel [Å] and side of the tiles, of the image reduced by `reduction`.
    expected
        Defocus for which zeros of all tiles are made to coincide [Å]; None: unknown.

    Returns
    -------
    dict
        Of plain numbers and lists, for `wedges_from_report`.
    """
    image = without_extremes(on_device(np.asarray(source.images()[index])))
    refuse_blank(image, index)
    if reduction > 1:
        image = bin_images(image, reduction)
    sectors = WEDGES if parameters.search_astigmatism else 1
    highest = min(0.5, HEADROOM * pixel_size / parameters.max_resolution)
    polar, centres = polar_spectra(image, box, padding=1.0, sectors=sectors, highest=highest)
    offsets = defocus_offset(midplane_points(centres * pixel_size, view), view, hand)
    used = strip_tiles(offsets, parameters.defocus_tolerance, parameters.side_tolerance)
    low, high = search_of(parameters, expected).defocus_range
    defocus = (low * high) ** 0.5 if expected is None else expected
    wedges = measure_wedges(
        polar,
        offsets,
        pixel_size,
        Ctf(
            defocus, defocus, 0.0,
            acquisition.voltage, acquisition.cs, acquisition.amplitude_contrast,
        ),
        used,
        trial_defoci(low, high, offsets[used], TRIAL_STEP),
    )  # fmt: skip
    scales = np.sqrt(defocus / np.maximum(defocus + offsets, 0.1 * defocus))
    target.array("spectra")[index] = to_host(mean_spectrum(image, scales, box))
    return {
        "power": _rounded(wedges.power),
        "samples": wedges.samples,
        "defocus": wedges.defocus,
        "trial_defocus": wedges.trial_defocus.tolist(),
        "trial_power": _rounded(wedges.trial_power),
        "window": wedges.window,
        "highest": highest,
    }


def wedges_from_report(report: Report) -> WedgeSpectra:
    """Return the wedges that a worker has reported."""
    power = np.asarray(report["power"], dtype=np.float64)
    trials = np.asarray(report["trial_power"], dtype=np.float64)
    places = _places(report["window"], len(power), report["highest"])
    return WedgeSpectra(
        power=power,
        count=places.count,
        k2=places.k2,
        k2_cos=places.k2_cos,
        k2_sin=places.k2_sin,
        box=places.box,
        window=places.window,
        samples=report["samples"],
        defocus=report["defocus"],
        trial_defocus=np.asarray(report["trial_defocus"], dtype=np.float64),
        trial_power=trials.reshape(-1, power.shape[1]),
    )


def search_of(parameters: CtfParameters, expected: float | None) -> StripSearch:
    """Return the kernel's description of the search around an expected defocus [Å]."""
    shifts: tuple[float, ...] = ()
    if parameters.search_phase_shift:
        low, high = parameters.min_phase_shift, parameters.max_phase_shift
        n = max(2, round((high - low) / parameters.phase_shift_step) + 1)
        shifts = tuple(np.linspace(low, high, n).tolist())
    return StripSearch(
        min_resolution=parameters.min_resolution,
        max_resolution=parameters.max_resolution,
        min_defocus=parameters.min_defocus,
        max_defocus=parameters.max_defocus,
        step=parameters.defocus_step,
        expected=expected,
        angle_range=parameters.angle_range,
        angle_step=parameters.angle_step,
        extra_zeros=parameters.extra_zeros,
        search_astigmatism=parameters.search_astigmatism,
        astigmatism_tolerance=parameters.astigmatism_tolerance,
        min_views=parameters.min_views,
        phase_shifts=shifts,
    )


@lru_cache(maxsize=4)  # all views of a series have the same
def _places(window: int, sectors: int, highest: float) -> PolarSpectra:
    """Return where the wedges and rings of tiles lie, from those of an empty one."""
    empty = np.zeros((window, window), dtype=np.float32)
    return polar_spectra(empty, window, padding=1.0, sectors=sectors, highest=highest)[0]


def _rounded(values: np.ndarray[Any, Any]) -> list[Any]:
    """Return lists of numbers of six digits: noise is a thousand times more."""
    return [[float(f"{value:.6g}") for value in row] for row in np.atleast_2d(values).tolist()]


def memory_of_view(shape: tuple[int, int], box: int) -> int:
    """Return the most memory that `measure_view` takes [bytes].

    The image and its transform, a row of tiles with theirs, and the rings of all tiles, of which
    half-overlapping ones hold four times the image's pixels over a diameter.
    """
    tiles = 4 * shape[0] * shape[1] / (box * box) + 2 * (shape[0] + shape[1]) / box + 4
    rings = int(tiles * WEDGES * (box // 2) * 4)
    return 250_000_000 + 4 * 4 * shape[0] * shape[1] + 40 * box * max(shape) + 4 * rings
