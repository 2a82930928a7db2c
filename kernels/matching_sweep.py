"""One round of matching: views against a projection of the dense part of their reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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

# While a series grows, a score below this share of the median of so many recent ones is poor.
POOR = 0.5
RECENT = 4


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
    relative to it are kept. A view that matches far worse than those before it is looked for in
    the whole field; where it does not match either, it stays where it was and tells nothing.
    Parameters as in `align_matching.align_series`; `max_shift` [Å] limits a move.
    """
    bench = lay_bench(images, views, pixel_size, used, thickness)
    xp = namespace(images)
    volume = xp.zeros(bench.volume_shape, dtype=xp.float32, device=device(images))
    order = sorted(bench.used, key=lambda i: abs(views[i].tilt))
    moves, scores = np.zeros((len(views), 2)), np.zeros(len(views))
    reaches = (max_shift, 0.5 * min(bench.shape) * pixel_size)
    accepted: list[float] = []
    smeared = 0
    for count, i in enumerate(order):
        prepared = prepare_on(images[i, ...], views[i], bench)
        spectrum = moved_back(rfft2(prepared.image), moves[i], bench)
        if smeared:
            reference = project_reference(
                volume, None, views[i].tilt, smeared, spread_of(volume), bench
            )
            expected = float(np.median(accepted[-RECENT:])) if len(accepted) >= RECENT else 0.0
            for reach in reaches:
                peak, scores[i] = match_view(reference, prepared, spectrum, bench, reach)
                if found := scores[i] >= POOR * expected:
                    break
            if not found:
                continue
            accepted.append(scores[i])
            move = np.array([peak.dy, peak.dx])
            # A leap says something of this view only.
            on = np.hypot(*move) * pixel_size <= max_shift
            for k in order[count:]:
                if k == i or (on and views[k].tilt * views[i].tilt > 0):
                    ratio = stretch(views[k].tilt) / stretch(views[i].tilt)
                    moves[k] += move * (1.0, ratio)
            spectrum = moved_back(spectrum, move, bench)
        smear(feature_of(spectrum, bench), views[i].tilt, volume)
        smeared += 1
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
    """Match every view with all others once. Parameters as in `align_matching.align_series`.

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
