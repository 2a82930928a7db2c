"""Whether strips were laid with the right hand: compared with the opposite one and with none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kernels.ctf_slope import Slope
from kernels.ctf_strip_score import can_tell
from kernels.fourier import Shape
from tasks.chunks.ctf2d import NAMES, score_view
from tasks.ctf_views import ViewCtf
from tasks.record import TiltSeries
from tasks.result import Result
from tasks.scatter import Unit

MOST_VIEWS = 4  # the steepest ones
SURE = 4.0  # standard errors by which the opposite hand must be better to be told
FINEST = 0.45  # cycles per pixel, where a view's rings end no earlier
PREFIX = "hand-"  # of the units' names


def units_of(
    source: Result,
    record: TiltSeries,
    known: Sequence[ViewCtf],
    slopes: Sequence[Slope],
    shape: Shape,
    pixel_size: float,
) -> list[Unit]:
    """Return the units that score a few steep views whose own rings are known."""
    finest = {}
    for i in record.included:
        estimate = record.views[i].ctf
        if estimate is None or not estimate.reliable:
            continue
        ends = FINEST / pixel_size
        if estimate.fit_resolution:
            ends = min(ends, 1 / estimate.fit_resolution)
        if can_tell(shape, known[i].ctf, pixel_size, slopes[i], ends):
            finest[i] = ends
    steep = sorted(finest, key=lambda i: -slopes[i].steepness)[:MOST_VIEWS]
    return [
        Unit(
            f"{PREFIX}{i:03d}",
            (source, i, known[i].ctf, pixel_size, slopes[i], finest[i]),
            score_view,
        )
        for i in sorted(steep)
    ]


def joined(reports: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean scores of the views by name, and 'error', of 'as used' less 'opposite'."""
    parts = [part for name, report in reports.items() if name.startswith(PREFIX) for part in report]
    if not parts:
        return {}
    scores = np.array(parts)  # of two sides of each view
    difference = scores[:, 0] - scores[:, 1]
    error = float(difference.std(ddof=1) / np.sqrt(len(parts)))
    return {**dict(zip(NAMES, scores.mean(axis=0).tolist(), strict=True)), "error": error}


def warning(scores: Mapping[str, float], hand: int) -> str:
    """Return what is said where the opposite hand is better than the one used."""
    if not scores or scores["as used"] - scores["opposite"] >= -SURE * scores["error"]:
        return ""
    better = scores["opposite"] - scores["as used"]
    return (
        f"; hand {hand:+d} looks wrong: the rings agree better with {-hand:+d} "
        f"(by {better:.4f} ± {scores['error']:.4f}): check --hand"
    ).replace("-1", "−1")
