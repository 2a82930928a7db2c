"""CTF correction of one view in strips."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.arrays import to_host
from kernels.ctf import Ctf
from kernels.ctf_correct import Correction
from kernels.ctf_slope import Slope, Strips
from kernels.ctf_strip_correct import correct_strips
from kernels.ctf_strip_score import agreements
from kernels.fourier import Shape, fast_size
from tasks.chunks.device import on_device
from tasks.errors import UnusableData
from tasks.result import Result

NAMES = ("as used", "opposite", "none")  # of scores
BASE_BYTES = 100_000_000  # the interpreter, the libraries, blocks of transforms


def correct_view(
    source: Result,
    target: Result,
    index: int,
    ctf: Ctf,
    pixel_size: float,
    slope: Slope,
    strips: Strips,
    correction: Correction,
    margin: int,
) -> dict[str, Any]:
    """Write one view corrected; arguments as of `kernels.ctf_strip_correct.correct_strips`.

    Returns
    -------
    dict
        "deviation before" and "deviation after": standard deviations of the image.
    """
    raw = np.asarray(source.images()[index], dtype=np.float32)
    if not np.isfinite(raw).all():
        raise UnusableData(
            f"{source.series.name}: view {index + 1} has pixels that are no numbers: exclude it, "
            "or run the steps before again"
        )
    image = on_device(raw)
    found = to_host(correct_strips(image, ctf, pixel_size, slope, strips, correction, margin))
    target.array("images")[index] = found
    return {"deviation before": float(raw.std()), "deviation after": float(found.std())}


def score_view(
    source: Result, index: int, ctf: Ctf, pixel_size: float, slope: Slope, finest: float
) -> list[list[float]]:
    """Return how well a view's rings agree with its slope, the opposite one, and none.

    Returns
    -------
    list of two lists
        Of both sides of the tilt axis, in the order of `NAMES`.
    """
    image = np.asarray(source.images()[index], dtype=np.float32)
    opposite = Slope(-slope.x, -slope.y, -slope.middle)
    slopes = (slope, opposite, Slope(0.0, 0.0))
    found: list[list[float]] = agreements(image, ctf, pixel_size, slopes, finest).tolist()
    return found


def memory_of_view(shape: Shape, margin: int) -> int:
    """Return the most memory that `correct_view` takes [bytes].

    The image and its correction, and of its continuation the spectrum, the phase and what is
    made from them for one strip, or, before that, the phase in double precision.
    """
    ny, nx = shape
    padded = fast_size(ny + 2 * margin) * fast_size(nx + 2 * margin)
    return BASE_BYTES + 4 * (3 * ny * nx + 8 * padded)
