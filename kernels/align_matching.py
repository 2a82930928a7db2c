"""Marker-free alignment: match each view with a projection of the other views' reconstruction.

The views' features are smeared into a small volume. Only its dense part is projected: what
many views agree on stands far above their streaks, so the reference is sharp where a linear
one would be blurred over the specimen's thickness and drift with it (measured: 1.5 Å against
5 to 200 Å rms on simulated series with 12 to 30 beads; without beads 2 to 4 Å).

`grow` starts from a coarse alignment and adds one view after another, from low tilt to high;
`sweep` matches every view with all others, until nothing moves; `refine_axis` looks for the
tilt-axis angle with the best matches; `centre_depth` puts the specimen's middle at Z = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.align_coarse import (
    BAND,
    PreparedView,
    aligned_shape,
    band_pass,
    move_view,
    prepare_view,
    stretch,
)
from kernels.arrays import Array, device, namespace, to_host
from kernels.correlate import Peak, cross_correlation, find_peak
from kernels.fourier import Shape, frequencies, irfft2, rfft2, shift_phases
from kernels.geometry import View, in_plane_rotation
from kernels.matching_rays import dense_projection, smear

# Dense is what exceeds the volume's mean by so many of its standard deviations. From 2 to 4 the
# result on simulated series, with and without beads, is the same within 0.1 Å; 0 loses 1 Å.
DENSE = 2.5
# Voxels across x, relative to the views': high tilts see beyond the untilted field.
WIDTH = 1.25


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
    """

    views: tuple[View, ...]
    scores: NDArray[np.float64]
    moves: NDArray[np.float64]

    @property
    def score(self) -> float:
        """Mean score of the used views: what a better geometry raises."""
        return float(self.scores[self.scores != 0].mean()) if self.scores.any() else 0.0

    @property
    def change(self) -> float:
        """Root mean square of the moves [Å]."""
        return float(np.sqrt((self.moves[self.scores != 0] ** 2).sum(axis=-1).mean()))


@dataclass(frozen=True)
class _Bench:
    """What all steps of one call share."""

    shape: Shape
    pixel_size: float
    used: tuple[int, ...]
    weight: Array
    ramp: Array
    volume_shape: tuple[int, int, int]


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
    settings = (pixel_size, used, thickness)
    result = grow(images, views, *settings)
    result = _settle(images, result, settings, tolerance, 2)
    if axis_search > 0:
        result = refine_axis(images, result.views, *settings, search=axis_search)
    result = _settle(images, result, settings, tolerance, rounds)
    centred = centre_depth(images, centre_across(result.views, used), *settings)
    return replace(result, views=centred)


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
    bench = _bench(images, views, pixel_size, used, thickness)
    xp = namespace(images)
    volume = xp.zeros(bench.volume_shape, dtype=xp.float32, device=device(images))
    order = sorted(bench.used, key=lambda i: abs(views[i].tilt))
    moves, scores = np.zeros((len(views), 2)), np.zeros(len(views))
    for count, i in enumerate(order):
        prepared = _prepare(images[i, ...], views[i], bench)
        spectrum = _moved_back(rfft2(prepared.image), moves[i], bench)
        if count:
            reference = _reference(volume, None, views[i].tilt, count, bench)
            peak, scores[i] = _match(reference, prepared, spectrum, bench, max_shift)
            move = np.array([peak.dy, peak.dx])
            for k in order[count:]:
                if k == i or views[k].tilt * views[i].tilt > 0:
                    ratio = stretch(views[k].tilt) / stretch(views[i].tilt)
                    moves[k] += move * (1.0, ratio)
            spectrum = _moved_back(spectrum, move, bench)
        smear(_feature(spectrum, bench), views[i].tilt, volume)
    scores[order[0]] = 1.0
    return _moved(views, moves, scores, bench)


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
    bench = _bench(images, views, pixel_size, used, thickness)
    prepared = {i: _prepare(images[i, ...], views[i], bench) for i in bench.used}
    spectra = {i: rfft2(prepared[i].image) for i in bench.used}
    features = {i: _feature(spectra[i], bench) for i in bench.used}
    volume = _volume(features, views, bench)
    moves, scores = np.zeros((len(views), 2)), np.zeros(len(views))
    for i in bench.used:
        reference = _reference(volume, features[i], views[i].tilt, len(bench.used) - 1, bench)
        peak, scores[i] = _match(reference, prepared[i], spectra[i], bench, max_shift)
        moves[i] = peak.dy, peak.dx
    chosen = list(bench.used)
    tilts = np.radians([views[i].tilt for i in chosen])
    across = np.stack([np.cos(tilts), np.sin(tilts)], axis=1)
    moves[chosen, 0] -= moves[chosen, 0].mean()
    moves[chosen, 1] -= across @ np.linalg.lstsq(across, moves[chosen, 1], rcond=None)[0]
    return _moved(views, moves, scores, bench)


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
    by climbing in steps of 1°, then from the parabola through the scores ½° and ⅛° around the
    best, and is kept only where it raises the score.
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

    step = min(1.0, search)
    best, before = best_of((-step, step)), 0.0
    while best != before:
        before, best = best, best_of((best - step, best + step))
    for narrow in (0.5, 0.125):
        around = [best - narrow, best, best + narrow]
        best_of(around)
        if all(angle in tried for angle in around):
            low, middle, high = (tried[angle].score for angle in around)
            curvature = low - 2 * middle + high
            if curvature < 0:
                offset = 0.5 * (low - high) / curvature
                best = best_of([best + narrow * float(np.clip(offset, -2, 2))])
    return tried[best]


def centre_across(views: Sequence[View], used: Sequence[bool]) -> tuple[View, ...]:
    """Move the origin, in x and y, to where the raw images' centres lie on average."""
    chosen = [view for view, flag in zip(views, used, strict=True) if flag]
    seen = np.array(
        [
            in_plane_rotation(-v.axis) @ (v.shift_x, v.shift_y) / v.magnification
            for v in chosen
        ]
    )
    cosines = np.array([stretch(v.tilt) for v in chosen])
    x = float(seen[:, 0] @ cosines / (cosines @ cosines))
    y = float(seen[:, 1].mean())
    return tuple(move_view(v, -y, -x * np.cos(np.radians(v.tilt))) for v in views)


def centre_depth(
    images: Array,
    views: Sequence[View],
    pixel_size: float,
    used: Sequence[bool],
    thickness: float = 3000.0,
) -> tuple[View, ...]:
    """Move the origin, in z, to the middle of the specimen's depth.

    A translation along z by d moves the content of a view by d·sin θ across the tilt axis: no
    shift alone tells it. It is taken from the volume: the middle between the depths that leave
    2 % of the dense matter below and above. Parameters as in `match_series`.
    """
    profile = depth_profile(images, views, pixel_size, used, thickness)
    share = np.cumsum(profile) / max(float(profile.sum()), 1e-30)
    planes = np.arange(len(profile)) + 0.5
    low, high = (float(np.interp(level, share, planes)) for level in (0.02, 0.98))
    middle = ((low + high) / 2 - len(profile) // 2) * pixel_size
    return tuple(move_view(v, 0.0, middle * float(np.sin(np.radians(v.tilt)))) for v in views)


def depth_profile(
    images: Array,
    views: Sequence[View],
    pixel_size: float,
    used: Sequence[bool],
    thickness: float = 3000.0,
) -> NDArray[np.float64]:
    """Return how much dense matter lies at each depth, one value a voxel, Z = 0 at n // 2."""
    bench = _bench(images, views, pixel_size, used, thickness)
    features = {
        i: _feature(rfft2(_prepare(images[i, ...], views[i], bench).image), bench)
        for i in bench.used
    }
    volume = _volume(features, views, bench)
    xp = namespace(volume)
    # Twice the threshold, and the cube: streaks above and below dense matter must not count.
    above = volume - 2 * DENSE * xp.std(volume)
    above = xp.where(above > 0, above, xp.zeros_like(above))
    return np.asarray(to_host(xp.sum(above**3, axis=(1, 2))), dtype=np.float64)


def _bench(
    images: Array,
    views: Sequence[View],
    pixel_size: float,
    used: Sequence[bool],
    thickness: float,
) -> _Bench:
    n = int(images.shape[0])
    if not n == len(views) == len(used):
        raise ValueError(f"{n} images, {len(views)} views and {len(used)} flags: expected as many")
    chosen = tuple(i for i in range(n) if used[i])
    if len(chosen) < 3:
        raise ValueError(f"{len(chosen)} views are used, matching needs at least 3")
    ny, nx = aligned_shape(images.shape[1:], views[chosen[0]].axis)
    weight = band_pass((ny, nx), images, *BAND)
    ramp = 2 * weight * frequencies((ny, nx), images)[1]
    depth = max(1, round(thickness / pixel_size))
    return _Bench((ny, nx), pixel_size, chosen, weight, ramp, (depth, round(WIDTH * nx), ny))


def _prepare(image: Array, view: View, bench: _Bench) -> PreparedView:
    return prepare_view(image, view, bench.pixel_size, bench.shape)


def _moved_back(spectrum: Array, move: NDArray[np.float64], bench: _Bench) -> Array:
    return spectrum * shift_phases(bench.shape, -float(move[0]), -float(move[1]), spectrum)


def _feature(spectrum: Array, bench: _Bench) -> Array:
    """Return what is smeared: the filtered view, matter positive, transposed to (x, y)."""
    xp = namespace(spectrum)
    image = irfft2(spectrum * bench.ramp, bench.shape)
    return xp.asarray(-xp.permute_dims(image, (1, 0)), copy=True)


def _volume(features: dict[int, Array], views: Sequence[View], bench: _Bench) -> Array:
    like = next(iter(features.values()))
    xp = namespace(like)
    volume = xp.zeros(bench.volume_shape, dtype=like.dtype, device=device(like))
    for i, feature in features.items():
        smear(feature, views[i].tilt, volume)
    return volume


def _reference(
    volume: Array, own: Array | None, tilt: float, count: int, bench: _Bench
) -> Array:
    """Return the projection of the dense part of `count` views, matter dark, as (y, x)."""
    xp = namespace(volume)
    threshold = DENSE * float(xp.std(volume[::4, ...])) / count
    dense = dense_projection(volume, own, tilt, 1 / count, threshold, bench.shape[1])
    return xp.asarray(-xp.permute_dims(dense, (1, 0)), copy=True)


def _match(
    reference: Array, prepared: PreparedView, spectrum: Array, bench: _Bench, max_shift: float
) -> tuple[Peak, float]:
    """Return where the view lies against its reference [pixels], and how alike they are."""
    xp = namespace(reference)
    covered = xp.astype(prepared.image != 0, reference.dtype)
    expected = rfft2(reference * covered) * bench.weight
    found = spectrum * bench.weight
    correlation = cross_correlation(expected, found, bench.shape)
    peak = find_peak(correlation, max_shift / bench.pixel_size)
    power = [float(xp.sum(irfft2(s, bench.shape) ** 2)) for s in (expected, found)]
    return peak, peak.height / max((power[0] * power[1]) ** 0.5, 1e-30)


def _moved(
    views: Sequence[View],
    moves: NDArray[np.float64],
    scores: NDArray[np.float64],
    bench: _Bench,
) -> Matched:
    moves = moves * bench.pixel_size
    new = tuple(
        move_view(view, float(dy), float(dx)) if i in bench.used else view
        for i, (view, (dy, dx)) in enumerate(zip(views, moves, strict=True))
    )
    return Matched(new, scores, moves)
