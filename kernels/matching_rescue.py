"""Views that do not match: looked for in the whole field, or left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kernels.align_coarse import move_view
from kernels.arrays import Array
from kernels.fourier import rfft2
from kernels.matching_reference import (
    feature_of,
    lay_bench,
    match_view,
    prepare_on,
    project_reference,
    smear_all,
    spread_of,
)
from kernels.matching_sweep import Matched

# A view whose score is below this share of its neighbours' in tilt does not match.
LOST = 0.5
NEIGHBOURS = 8


def lost_views(
    scores: NDArray[np.float64], tilts: Sequence[float], used: Sequence[bool]
) -> list[int]:
    """Return the views whose score is far below that of the used views nearest in tilt."""
    chosen = [i for i in range(len(tilts)) if used[i]]
    lost = []
    for i in chosen:
        near = sorted((k for k in chosen if k != i), key=lambda k: abs(tilts[k] - tilts[i]))
        if scores[i] < LOST * float(np.median(scores[near[:NEIGHBOURS]])):
            lost.append(i)
    return lost


def rescue(
    images: Array,
    result: Matched,
    pixel_size: float,
    used: Sequence[bool],
    thickness: float,
    lost: Sequence[int],
) -> Matched:
    """Look for lost views in the whole field, against a reconstruction of all others.

    Returns
    -------
    Matched
        With the lost views where they match best; whether they match is for `lost_views` to
        say, after a further sweep.
    """
    good = [flag and i not in lost for i, flag in enumerate(used)]
    bench = lay_bench(images, result.views, pixel_size, good, thickness)
    features = {
        i: feature_of(rfft2(prepare_on(images[i, ...], result.views[i], bench).image), bench)
        for i in bench.used
    }
    volume = smear_all(features, result.views, bench)
    spread = spread_of(volume)
    views = list(result.views)
    for i in lost:
        # The second look has all that the first one found inside the field.
        for reach in (0.5 * min(bench.shape) * pixel_size, 200.0):
            prepared = prepare_on(images[i, ...], views[i], bench)
            reference = project_reference(
                volume, None, views[i].tilt, len(bench.used), spread, bench
            )
            peak, _ = match_view(reference, prepared, rfft2(prepared.image), bench, reach)
            views[i] = move_view(views[i], peak.dy * pixel_size, peak.dx * pixel_size)
    return replace(result, views=tuple(views))


def without(used: Sequence[bool], lost: Sequence[int]) -> list[bool]:
    """Return the flags of the views that are used and not lost."""
    return [flag and i not in lost for i, flag in enumerate(used)]


def with_views(used: Sequence[bool], lost: Sequence[int]) -> list[bool]:
    """Return the flags with the lost views used again."""
    return [flag or i in lost for i, flag in enumerate(used)]
