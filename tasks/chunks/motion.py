"""Motion correction of one movie."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.arrays import to_host
from kernels.motion import FrameShifts, estimate_shifts, sum_frames
from tasks.chunks.frames import corrected_frames, memory_of_frames
from tasks.errors import UnusableData
from tasks.parameters import MotionParameters
from tasks.record import Acquisition, View
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
            corrected_frames(view, acquisition, shape, first, last),
            acquisition.pixel_size,
            max_drift=parameters.max_drift,
        )
    else:
        motion = FrameShifts(np.zeros((count, 2)), np.zeros(count), 0.0, True)
    frames = corrected_frames(view, acquisition, shape, first, last)
    sums = sum_frames(frames, motion.shifts, parameters.binning)
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

    What the frames take until they are corrected, and of each pixel the complex spectrum twice
    and two sums; the reduced spectra of all frames (1024² pixels at most).
    """
    pixels = shape[0] * shape[1]
    reduced = min(pixels, 1024 * 1024)
    return 100_000_000 + memory_of_frames(shape) + pixels * 4 * (4 + 3) + frames * reduced * 4 * 3
