"""Motion correction of one movie."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import detector
from kernels.arrays import Array, to_host
from kernels.motion import FrameShifts, estimate_shifts, sum_frames
from tasks.chunks.device import on_device
from tasks.errors import UnusableData
from tasks.formats.defects import read_defect_mask
from tasks.formats.gain_files import read_reference
from tasks.formats.movies import open_movie
from tasks.identity import checked_path
from tasks.parameters import MotionParameters
from tasks.record import Acquisition, FileIdentity, View
from tasks.store import Result


def correct_movie(
    target: Result,
    index: int,
    view: View,
    acquisition: Acquisition,
    shape: tuple[int, int],
    parameters: MotionParameters,
) -> dict[str, Any]:
    """Align and sum the frames of one movie, and write images, halves and shifts of its view.

    Parameters
    ----------
    target : Result
        With arrays images, odd, even (view, y, x) and shifts (view, frame, 2).
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
        Fields of ``record.Motion``, the image's mean and the significance of the alignment.
    """
    first = parameters.first_frame - 1
    last = min(parameters.last_frame or view.frames, view.frames)
    if last <= first:
        raise UnusableData(
            f"{view.movie.path}: has {view.frames} frames, none from "
            f"{parameters.first_frame} to {last}: choose other --first-frame and --last-frame"
        )
    count = last - first
    if parameters.align:
        motion = estimate_shifts(
            _frames(view, acquisition, shape, first, last),
            acquisition.pixel_size,
            max_drift=parameters.max_drift,
        )
    else:
        motion = FrameShifts(np.zeros((count, 2)), np.zeros(count), 0.0, True)
    sums = sum_frames(
        _frames(view, acquisition, shape, first, last), motion.shifts, parameters.binning
    )
    image = to_host(sums.full)
    if not np.isfinite(image).all():
        raise UnusableData(
            f"{view.movie.path}: holds values that are not numbers (NaN or infinite): "
            "copy it again, or remove it and import with --allow-missing"
        )
    target.array("odd")[index] = to_host(sums.odd)
    target.array("even")[index] = to_host(sums.even)
    target.array("images")[index] = image
    shifts = np.full(target.array("shifts").shape[1:], np.nan)
    shifts[first:last] = motion.shifts
    target.array("shifts")[index] = shifts
    steps = np.hypot(*np.diff(motion.shifts, axis=0).T) * acquisition.pixel_size
    half = (len(steps) + 1) // 2
    return {
        "mean": float(image.mean()),
        "significance": motion.significance,
        "total": float(steps.sum()),
        "early": float(steps[:half].sum()),
        "late": float(steps[half:].sum()),
        "reliable": motion.reliable,
    }


def memory_of_movie(shape: tuple[int, int], frames: int) -> int:
    """Return the most memory that `correct_movie` takes [bytes].

    One frame raw and corrected, its complex spectrum twice, two sums, gain and dark, and the
    reduced spectra of all frames (1024² pixels at most).
    """
    pixels = shape[0] * shape[1]
    reduced = min(pixels, 1024 * 1024)
    return 100_000_000 + pixels * 4 * (2 + 4 + 3 + 2) + frames * reduced * 4 * 3


def _frames(
    view: View, acquisition: Acquisition, shape: tuple[int, int], first: int, last: int
) -> Iterator[Array]:
    """Yield the corrected frames, one at a time."""
    movie = open_movie(checked_path(view.movie))
    gain = _reference(acquisition.gain, acquisition)
    dark = _reference(acquisition.dark, acquisition)
    defects = _defects(acquisition.defects, shape)
    for i in range(first, last):
        frame = detector.correct_frame(on_device(movie.frame(i)), gain, dark)
        if defects is not None:
            frame = detector.replace_pixels(frame, defects, np.random.default_rng(i))
        yield frame


@lru_cache(maxsize=4)
def _reference(file: FileIdentity | None, acquisition: Acquisition) -> Array | None:
    """Return a gain or dark reference, turned as the acquisition says."""
    if file is None:
        return None
    path = checked_path(file)
    reference = detector.orient_reference(
        read_reference(path), acquisition.gain_rotation, acquisition.gain_flip
    )
    return on_device(np.ascontiguousarray(reference, dtype=np.float32))


@lru_cache(maxsize=4)
def _defects(file: FileIdentity | None, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    return None if file is None else read_defect_mask(checked_path(file), shape)
