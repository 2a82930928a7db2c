"""Marker-free alignment: match each view with a projection of the other views' reconstruction.

The views' features are smeared into a small volume. Only its dense part is projected: what
many views agree on stands far above their streaks, so the reference is sharp where a linear one
would be blurred over the specimen's thickness and drift with it (rms of the beads on simulated
series: 1.0 to 1.5 Å, without beads 1.4 Å; linear reference 4 to 220 Å).

`grow` starts from a coarse alignment and adds one view after another, from low tilt to high;
`sweep` matches every view with all others, until nothing moves; `refine_axis` looks for the
tilt-axis angle with the best matches; `move_origin` puts the specimen's middle at Z = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.align_coarse import move_view, stretch
from kernels.arrays import Array, device, namespace
from kernels.fourier import rfft2
from kernels.geometry import View, across, image_matrix, with_origin
from kernels.matching_rays import smear
from kernels.matching_reference import (
    Bench,
    depths_of,
    feature_of,
    lay_bench,
    match_view,
    moved_back,
    prepare_on,
    project_reference,
    smear_all,
    spread_of,
)

# Degrees: a turn by more changes what the shifts are matched with.
FAR_TURN = 0.2


@dataclass(frozen=True)
class Matched:
    """Result of matching a series.

    Attributes
    ----------
    views : tuple of View
        With refined shifts; views that are not used are returned as they came.
    scores : (n,) float64
        Normalised correlation of each view with its reference, 0 where not used.
    moves : (n, 2) float64
        How far (dy, dx) each view's content was found from where it was expected, in the
        aligned frame [Å].
    depths : (float, float)
        Z between which the dense matter lies [Å].
    """

    views: tuple[View, ...]
    scores: NDArray[np.float64]
    moves: NDArray[np.float64]
    depths: tuple[float, float]

    @property
    def score(self) -> float:
        """Mean score of the used views: what a better geometry raises."""
        return float(self.scores[self.scores != 0].mean()) if self.scores.any() else 0.0

    @property
    def change(self) -> float:
        """Root mean square of the moves [Å]."""
        return float(np.sqrt((self.moves[self.scores != 0] ** 2).sum(axis=-1).mean()))


def match_series(
    images: Array,
    views: Sequence[View],
    pixel_size: float,
    used: Sequence[bool],
    thickness: float = 3000.0,
    axis_search: float = 3.0,
    tolerance: float = 0.5,
    rounds: int = 6,
) -> Matched:
    """Refine the shifts and the tilt axis of a coarsely aligned series without markers.

    Parameters
    ----------
    images : (n, ny, nx) float32
        Raw views, binned to a pixel of about 10 Å (250 to 500 pixels a side).
    views : sequence of View, n long
        Coarse alignment, good to about 200 Å.
    pixel_size : float
        Of `images` [Å].
    used : (n,)
        False for dark and excluded views, which take no part.
    thickness : float
        Depth of the volume: holds the specimen wherever the coarse alignment put it [Å].
    axis_search : float
        The tilt axis is looked for so far on either side of its first value [degrees];
        0 leaves it.
    tolerance : float
        Sweeps end when the shifts change by less, root mean square [Å].
    rounds : int
        Sweeps at most.

    Returns
    -------
    Matched
        Its views have their origin at the middle of the specimen's depth and, across, where
        the raw images' centres lie on average.

    Raises
    ------
    ValueError
        If the numbers of images, views and flags differ, or fewer than 3 views are used.
    """
    result = grow(images, views, pixel_size, used, thickness)
    result, thickness = _centred(result, used, thickness)
    settings = (pixel_size, used, thickness)
    result = _settle(images, result, settings, tolerance, 2)
    # A second look, from better shifts, where the first one turned the axis far.
    for _ in range(2 if axis_search > 0 else 0):
        before = result.views
        result = refine_axis(images, before, *settings, search=axis_search)
        result = _settle(images, result, settings, tolerance, 2)
        if abs(result.views[0].axis - before[0].axis) < FAR_TURN:
            break
    result = _settle(images, result, settings, tolerance, rounds)
    return _centred(result, used, thickness)[0]


def _centred(result: Matched, used: Sequence[bool], thickness: float) -> tuple[Matched, float]:
    """Put the origin into the middle of the dense matter, and say how deep a volume holds it."""
    low, high = result.depths
    views = move_origin(centre_across(result.views, used), (low + high) / 2)
    around = (low - (low + high) / 2, high - (low + high) / 2)
    return replace(result, views=views, depths=around), min(thickness, 1.2 * (high - low) + 400)


def _settle(
    images: Array,
    result: Matched,
    settings: tuple[float, Sequence[bool], float],
    tolerance: float,
    rounds: int,
) -> Matched:
    for _ in range(rounds):
        result = sweep(images, result.views, *settings)
        if result.change < tolerance:
            break
    return result


def grow(
    images: Array,
    views: Sequence[View],
    pixel_size: float,
    used: Sequence[bool],
    thickness: float = 3000.0,
    max_shift: float = 450.0,
) -> Matched:
    """Match one view after another with those of lower tilt, which are matched already.

    What moves a view moves all further ones of its side as well, so that their coarse shifts
    relative to it are kept. Parameters as in `match_series`; `max_shift` [Å] limits a move.
    """
    bench = lay_bench(images, views, pixel_size, used, thickness)
    xp = namespace(images)
    volume = xp.zeros(bench.volume_shape, dtype=xp.float32, device=device(images))
    order = sorted(bench.used, key=lambda i: abs(views[i].tilt))
    moves, scores = np.zeros((len(views), 2)), np.zeros(len(views))
    for count, i in enumerate(order):
        prepared = prepare_on(images[i, ...], views[i], bench)
        spectrum = moved_back(rfft2(prepared.image), moves[i], bench)
        if count:
            reference = project_reference(
                volume, None, views[i].tilt, count, spread_of(volume), bench
            )
            peak, scores[i] = match_view(reference, prepared, spectrum, bench, max_shift)
            move = np.array([peak.dy, peak.dx])
            for k in order[count:]:
                if k == i or views[k].tilt * views[i].tilt > 0:
                    ratio = stretch(views[k].tilt) / stretch(views[i].tilt)
                    moves[k] += move * (1.0, ratio)
            spectrum = moved_back(spectrum, move, bench)
        smear(feature_of(spectrum, bench), views[i].tilt, volume)
    scores[order[0]] = 1.0
    return _moved(views, moves, scores, depths_of(volume, bench), bench)


def sweep(
    images: Array,
    views: Sequence[View],
    pixel_size: float,
    used: Sequence[bool],
    thickness: float = 3000.0,
    max_shift: float = 100.0,
) -> Matched:
    """Match every view with all others once. Parameters as in `match_series`.

    Common translations of the specimen are taken out of the moves: they are no errors.
    """
    bench = lay_bench(images, views, pixel_size, used, thickness)
    prepared = {i: prepare_on(images[i, ...], views[i], bench) for i in bench.used}
    spectra = {i: rfft2(prepared[i].image) for i in bench.used}
    features = {i: feature_of(spectra[i], bench) for i in bench.used}
    volume = smear_all(features, views, bench)
    spread, others = spread_of(volume), len(bench.used) - 1
    moves, scores = np.zeros((len(views), 2)), np.zeros(len(views))
    for i in bench.used:
        reference = project_reference(volume, features[i], views[i].tilt, others, spread, bench)
        peak, scores[i] = match_view(reference, prepared[i], spectra[i], bench, max_shift)
        moves[i] = peak.dy, peak.dx
    chosen = list(bench.used)
    rows = np.array([across(views[i].tilt) for i in chosen])
    moves[chosen, 0] -= moves[chosen, 0].mean()
    moves[chosen, 1] -= rows @ np.linalg.lstsq(rows, moves[chosen, 1], rcond=None)[0]
    return _moved(views, moves, scores, depths_of(volume, bench), bench)


def refine_axis(
    images: Array,
    views: Sequence[View],
    pixel_size: float,
    used: Sequence[bool],
    thickness: float = 3000.0,
    search: float = 3.0,
) -> Matched:
    """Turn the tilt axis of all views to where a sweep has the best mean score.

    Parameters as in `match_series`; `search` is the largest turn [degrees]. The turn is found
    by climbing in steps of ½° and from the parabola through the three best scores; it is kept
    only where it raises the score.
    """

    def turned(angle: float) -> Matched:
        trial = [replace(view, axis=view.axis + angle) for view in views]
        return sweep(images, trial, pixel_size, used, thickness)

    return climb(turned, search)


def climb(trial: Callable[[float], Matched], search: float) -> Matched:
    """Return the trial with the highest score among angles within ± `search` degrees."""
    tried = {0.0: trial(0.0)}

    def best_of(angles: Sequence[float]) -> float:
        for angle in angles:
            if abs(angle) <= search and angle not in tried:
                tried[angle] = trial(angle)
        return max(tried, key=lambda angle: tried[angle].score)

    step = min(0.5, search)
    best, before = best_of((-step, step)), 0.0
    while best != before:
        before, best = best, best_of((best - step, best + step))
    around = (best - step, best, best + step)
    if all(angle in tried for angle in around):
        low, middle, high = (tried[angle].score for angle in around)
        if low - 2 * middle + high < 0:
            best = best_of([best + step * 0.5 * (low - high) / (low - 2 * middle + high)])
    return tried[best]


def centre_across(views: Sequence[View], used: Sequence[bool]) -> tuple[View, ...]:
    """Move the origin, in x and y, to where the raw images' centres lie on average."""
    chosen = [view for view, flag in zip(views, used, strict=True) if flag]
    seen = np.array([np.linalg.solve(image_matrix(v), (v.shift_x, v.shift_y)) for v in chosen])
    cosines = np.array([stretch(v.tilt) for v in chosen])
    x = float(seen[:, 0] @ cosines / (cosines @ cosines))
    y = float(seen[:, 1].mean())
    return tuple(with_origin(view, (-x, -y, 0.0)) for view in views)


def move_origin(views: Sequence[View], depth: float) -> tuple[View, ...]:
    """Move the origin along z to `depth` [Å].

    Shifts alone do not tell where the specimen lies, only the volume does.
    """
    return tuple(with_origin(view, (0.0, 0.0, depth)) for view in views)


def _moved(
    views: Sequence[View],
    moves: NDArray[np.float64],
    scores: NDArray[np.float64],
    depths: tuple[float, float],
    bench: Bench,
) -> Matched:
    moves = moves * bench.pixel_size
    new = tuple(
        move_view(view, float(dy), float(dx)) if i in bench.used else view
        for i, (view, (dy, dx)) in enumerate(zip(views, moves, strict=True))
    )
    return Matched(new, scores, moves, depths)
