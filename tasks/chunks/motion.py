"""Motion correction of one movie."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Array, namespace, to_host
from kernels.bad_pixels import find_bad_pixels, find_spikes
from kernels.detector import replace_pixels
from kernels.dose import exposure_weights
from kernels.fourier import Shape, bin_images, trim
from kernels.motion_local import LocalField, MovieMotion, estimate_motion
from kernels.motion_patches import HIGHEST_ORDER
from kernels.motion_spectra import FINE_PIXEL, WORKING_SIZE
from kernels.motion_sum import Sums, Weights, sum_frames
from kernels.spectra import radial_profile
from kernels.tiles import measure_tiles
from tasks.chunks.frames import corrected_frames, memory_of_frames, summed_frames
from tasks.errors import UnusableData
from tasks.parameters import MotionParameters
from tasks.record import Acquisition, View
from tasks.result import Result

FUNCTIONS = (HIGHEST_ORDER + 1) * (HIGHEST_ORDER + 2) // 2 - 1  # of a local field, at most
PROFILE_SIZE = 1024  # pixels of the image at most along each side whose spectrum is shown
PROFILE_BOX = 256  # pixels
GRID = np.linspace(-0.5, 0.5, 9)  # places of the frame at which local motion is averaged


def correct_movie(
    target: Result,
    index: int,
    view: View,
    acquisition: Acquisition,
    shape: Shape,
    parameters: MotionParameters,
) -> dict[str, Any]:
    """Align and sum the frames of one movie, and write what comes of its view.

    Parameters
    ----------
    target : Result
        With arrays images (view, y, x), and odd, even, weighted where they are wanted; shifts
        (view, frame, 2), local (view, frame, function, 2), profiles (view, 2, bin).
    index : int
        Of the view.
    view : View
    acquisition : Acquisition
    shape : (ny, nx)
        Of the frames.
    parameters : MotionParameters

    Returns
    -------
    dict
        Fields of ``record.Motion``, the image's mean, and the number of bad pixels.
    """
    first, last = frame_range(view, parameters)
    total = summed_frames(view, acquisition, shape, first, last)
    if not np.isfinite(float(namespace(total).sum(total))):
        raise UnusableData(
            f"{view.movie.path}: holds values that are not numbers (NaN or infinite): "
            "copy it again, or remove it and import with --allow-missing"
        )
    bad = find_bad_pixels(total) if parameters.find_bad_pixels else None
    if bad is not None and bad.any():
        total = replace_pixels(total, bad, np.random.default_rng(0))
    cropped = cropped_shape(parameters.crop, shape)

    def frames(*, spikes: bool) -> Iterator[Array]:
        usual = None
        for i, frame in enumerate(corrected_frames(view, acquisition, shape, first, last, bad)):
            if spikes and parameters.find_bad_pixels:
                usual = usual or measure_tiles(frame)
                if (hit := find_spikes(frame, usual)).any():
                    frame = replace_pixels(frame, hit, np.random.default_rng(i))
            yield trim(frame, cropped)

    motion = None
    if parameters.align and last - first > 1:
        motion = _estimated(frames(spikes=False), view, acquisition, parameters)
    shifts = np.zeros((last - first, 2)) if motion is None else motion.shifts
    field = None if motion is None else motion.local
    sums = sum_frames(
        frames(spikes=True),
        shifts,
        parameters.binning,
        field=None if field is None else field.at,
        weights=_weights(view, acquisition, parameters, total)
        if parameters.dose_weighted
        else None,
    )
    image = to_host(sums.full)
    _write(target, index, sums)
    side = ceil(PROFILE_SIZE * parameters.binning)
    plain = bin_images(trim(total, cropped_shape((side, side), cropped)), parameters.binning)
    _write_profiles(target, index, plain, sums.full, last - first)
    _write_motion(target, index, first, shifts, field)
    told = _told(motion, shifts, field, acquisition.pixel_size)
    return {
        "mean": float(image.mean()),
        "bad pixels": 0 if bad is None else int(bad.sum()),
        **told,
    }


def frame_range(view: View, parameters: MotionParameters) -> tuple[int, int]:
    """Return the first frame used, from 0, and the one behind the last.

    Raises
    ------
    UnusableData
        If the view has none of the frames that are asked for.
    """
    first = parameters.first_frame - 1
    last = min(parameters.last_frame or view.frames, view.frames)
    if last <= first:
        raise UnusableData(
            f"{view.movie.path}: has {view.frames} frames, none from "
            f"{parameters.first_frame} to {last}: choose other --first-frame and --last-frame"
        )
    return first, last


def cropped_shape(crop: tuple[int, int] | None, shape: Shape) -> Shape:
    """Return the shape (ny, nx) that frames have when cropped."""
    return shape if crop is None else (min(crop[0], shape[0]), min(crop[1], shape[1]))


def memory_of_movie(
    shape: Shape, acquisition: Acquisition, parameters: MotionParameters, frames: int
) -> int:
    """Return the most memory that `correct_movie` takes for a movie of `frames` [bytes].

    What the frames take until they are corrected, of each pixel the sum, the extended frame and
    its spectrum, two sums and their spectra; and of each frame, or of those aligned together, its
    reduced spectrum, whitened, in patches and aligned: 8.4 times its size as measured.
    """
    pixels = shape[0] * shape[1]
    halves = 3 if parameters.dose_weighted else 2
    kept = 0
    if parameters.align:
        cropped = cropped_shape(parameters.crop, shape)
        coarser = max(1.0, FINE_PIXEL / acquisition.pixel_size, max(cropped) / WORKING_SIZE)
        spectrum = 4 * cropped[0] * cropped[1] / coarser**2
        kept = int(10 * spectrum) * ceil(frames / gcd(parameters.group, parameters.group_local))
    once = pixels * 4 * (1 + 3 + 2 * halves)
    return 100_000_000 + memory_of_frames(shape, acquisition) + once + kept


def _estimated(
    frames: Iterator[Array],
    view: View,
    acquisition: Acquisition,
    parameters: MotionParameters,
) -> MovieMotion:
    first, last = frame_range(view, parameters)
    used = f"{view.movie.path}: {last - first} frames are used"
    if parameters.reference_frame > last - first:
        raise UnusableData(
            f"{used}, none is the {parameters.reference_frame}th: choose another --reference-frame"
        )
    if max(parameters.group, parameters.group_local) >= last - first:
        raise UnusableData(
            f"{used}, no two groups of {max(parameters.group, parameters.group_local)}: "
            "choose a smaller --group and --group-local"
        )
    return estimate_motion(
        frames,
        acquisition.pixel_size,
        max_drift=parameters.max_drift,
        patches=parameters.patches,
        group_global=parameters.group,
        group_local=parameters.group_local,
        b_factor_global=parameters.b_factor,
        b_factor_local=parameters.b_factor_local,
        reference_frame=parameters.reference_frame - 1,
        local=parameters.local,
    )


def _weights(
    view: View, acquisition: Acquisition, parameters: MotionParameters, like: Array
) -> Weights:
    """Return the function that gives the weights of a frame by the dose seen at its end."""
    pixel = acquisition.pixel_size * parameters.binning
    dose = view.dose / view.frames

    def weights(i: int, shape: Shape) -> Array:
        seen = view.prior_dose + dose * (parameters.first_frame + i)
        return exposure_weights(shape, pixel, seen, acquisition.voltage, like)

    return weights


def _write(target: Result, index: int, sums: Sums) -> None:
    group = target.group()
    for name in ("odd", "even", "weighted"):
        if name in group:
            target.array(name)[index] = to_host(getattr(sums, name))
    target.array("images")[index] = to_host(sums.full)


def _write_profiles(target: Result, index: int, plain: Array, image: Array, count: int) -> None:
    shape = cropped_shape((PROFILE_SIZE, PROFILE_SIZE), (plain.shape[0], plain.shape[1]))
    box = profile_box((image.shape[0], image.shape[1]))
    target.array("profiles")[index] = np.stack(
        [radial_profile(trim(one, shape), box) / count for one in (plain, image)]
    )


def profile_box(shape: Shape) -> int:
    """Return the side of the tiles whose spectra are averaged [pixels of the images]."""
    return min(PROFILE_BOX, 2 * (min(shape) // 2))


def _write_motion(
    target: Result, index: int, first: int, shifts: NDArray[np.float64], field: LocalField | None
) -> None:
    last = first + len(shifts)
    places = np.full(target.array("shifts").shape[1:], np.nan)
    places[first:last] = shifts
    target.array("shifts")[index] = places
    local = np.full(target.array("local").shape[1:], np.nan)
    if field is not None:
        local[first:last] = 0
        local[first:last, : field.coefficients.shape[1]] = field.coefficients
    target.array("local")[index] = local


def _told(
    motion: MovieMotion | None,
    shifts: NDArray[np.float64],
    field: LocalField | None,
    pixel_size: float,
) -> dict[str, Any]:
    steps = np.hypot(*np.diff(shifts, axis=0).T) * pixel_size
    half = (len(steps) + 1) // 2
    local = 0.0
    if field is not None:
        places = np.meshgrid(GRID, GRID, indexing="ij")
        local = float(np.sqrt((field.at(*places)[-1] ** 2).sum(axis=0).mean())) * pixel_size
    return {
        "total": float(steps.sum()),
        "early": float(steps[:half].sum()),
        "late": float(steps[half:].sum()),
        "reliable": motion is None or motion.model != "none",
        "model": "sum" if motion is None else motion.model,
        "significance": 0.0 if motion is None else motion.significance,
        "evidence": 0.0 if motion is None else motion.evidence,
        "local": local,
    }
