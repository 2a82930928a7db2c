"""Alignment without markers of one series, on images reduced to a coarser pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.align_coarse import aligned_shape, stretch
from kernels.align_matching import Aligned, align_series
from kernels.geometry import View, aligned_from_raw
from kernels.hybrid import LEAST_BEADS, Hybrid, join_beads
from kernels.match_verdict import judge
from kernels.matching_slab import slab_of_series
from kernels.patch_align import Local, align_patches
from kernels.patch_field import LEAST_PATCHES
from kernels.patches import patch_grid
from kernels.threads import thread_count
from kernels.tilt_offset import Estimate, Offset, combine, from_intensity
from kernels.tracks import Tracks
from tasks.alignment import stored
from tasks.chunks.alignment import REDUCED
from tasks.chunks.device import on_device
from tasks.parameters import MarkerfreeParameters
from tasks.result import Result

# Share of the field over which patches are laid: beyond, few views see them.
FIELD = 0.9
NOT_ASKED = "not asked for"


def align_views(
    target: Result,
    views: Sequence[View],
    used: Sequence[bool],
    pixel_size: float,
    doses: Sequence[float],
    times: Sequence[float],
    pretilt: tuple[float, float] | None,
    hand: tuple[int, int] | None,
    raw_pixel_size: float,
    threads: int | None,
    parameters: MarkerfreeParameters,
    beads: Tracks | None = None,
) -> dict[str, Any]:
    """Refine shifts, axis and local deformation of a series from its reduced views.

    Parameters
    ----------
    target : Result
        With `REDUCED`.
    views : sequence of View
        Coarse alignment of the whole series.
    used : (n,)
    pixel_size : float
        Of the reduced views [Å].
    doses : (n,)
        Of each view, relative to each other: what its mean intensity is divided by.
    times : (n,)
        Dose received before each view, scaled to 0 … 1.
    pretilt : (angle, error), optional
        Tilt offset of `views` as the defocus gradient has it [degrees].
    hand : (expected, shown), optional
        See `kernels.match_verdict.judge`.
    raw_pixel_size : float
        Of the movies, in which regions are given [Å].
    threads : int, optional
        By default as many as this process may use; the report does not depend on it.
    parameters : MarkerfreeParameters
    beads : Tracks, optional
        Those that are joined with the patches.

    Returns
    -------
    dict
        See the keys below; lengths in Å, angles in degrees.
    """
    reduced = np.asarray(target.array(REDUCED)[:])
    images = on_device(reduced)
    aligned = align_series(
        images,
        views,
        pixel_size,
        used,
        parameters.thickness,
        parameters.axis,
        parameters.axis_range,
        parameters.tolerance,
        parameters.rounds,
    )
    taking = [flag and i not in aligned.lost for i, flag in enumerate(used)]
    moved, offset = list(aligned.matched.views), Offset(None, None, (), NOT_ASKED)
    slab = slab_of_series(images, moved, pixel_size, taking, aligned.thickness)
    if parameters.tilt_offset != "off":
        rows = [i for i, flag in enumerate(taking) if flag]
        levels = [float(reduced[i].mean()) / (doses[i] or 1.0) for i in rows]
        offset = combine(
            [
                estimate
                for estimate in (
                    from_intensity(levels, [moved[i].tilt for i in rows], [times[i] for i in rows]),
                    slab.estimate if slab else None,
                    Estimate("defocus", *pretilt) if pretilt else None,
                )
                if estimate
            ]
        )
        if parameters.tilt_offset == "apply" and offset.angle is not None:
            moved = [replace(view, tilt=view.tilt + offset.angle) for view in moved]
    local = None
    if parameters.local and aligned.matched.score > 0:
        shape = (reduced.shape[1], reduced.shape[2])
        centres, size, half_width = patch_layout(
            moved, taking, shape, pixel_size, raw_pixel_size, parameters
        )
        local = align_patches(
            images,
            moved,
            pixel_size,
            taking,
            centres,
            size,
            aligned.thickness,
            times,
            half_width,
            threads=threads or thread_count(),
        )
        moved = list(local.views)
    hybrid = None
    if beads is not None and local is not None and local.field is not None:
        hybrid = join_beads(moved, local.deformation, local.patched.tracks, beads, times)
        moved = list(hybrid.views)
        local = replace(local, deformation=hybrid.deformation)
    lacking = unmeasured(parameters, local, beads, hybrid) if aligned.matched.score > 0 else ()
    verdict = judge(aligned, used, pixel_size, local, hand, lacking, parameters.leave_out)
    applied = parameters.tilt_offset == "apply" and offset.angle is not None
    return {
        "views": [asdict(view) for view in moved],
        "used": taking,
        "score": aligned.matched.score,
        "scores": aligned.matched.scores.tolist(),
        "moves": np.hypot(*aligned.matched.moves.T).tolist(),
        "depths": list(aligned.matched.depths),
        "axis": told_axis(aligned),
        "offset": {**asdict(offset), "applied": applied and verdict.word != "failed"},
        "slab": asdict(slab) if slab else None,
        "verdict": asdict(verdict),
        "local": told_local(local, times, half_width) if local else None,
        "hybrid": told_hybrid(hybrid) if hybrid else None,
    }


def unmeasured(
    parameters: MarkerfreeParameters,
    local: Local | None,
    beads: Tracks | None,
    hybrid: Hybrid | None,
) -> list[str]:
    """Return what was asked for and could not be measured, and why."""
    found = []
    if local is not None and local.field is None:
        seen, asked = len(np.unique(local.patched.tracks.point)), len(local.patched.points)
        found.append(
            f"local deformation not measured: {seen} of {asked} patches are seen, "
            f"{LEAST_PATCHES} are needed"
        )
    if parameters.joins_beads and (hybrid is None or hybrid.beads < LEAST_BEADS):
        if beads is None:
            why = "the fiducials step has none"
        elif hybrid is None:
            why = "there are no patches to join them with"
        else:
            why = f"{hybrid.beads} seen in views enough, {LEAST_BEADS} are needed"
        found.append(f"beads not joined: {why}")
    return found


def patch_layout(
    views: Sequence[View],
    used: Sequence[bool],
    shape: tuple[int, int],
    pixel_size: float,
    raw_pixel_size: float,
    parameters: MarkerfreeParameters,
) -> tuple[NDArray[np.float64], tuple[float, float], float]:
    """Return centres X, Y of the patches, their size, and the half width of the field [Å]."""
    lowest = views[min((i for i, f in enumerate(used) if f), key=lambda i: abs(views[i].tilt))]
    along, across = (n * pixel_size for n in aligned_shape(shape, lowest.axis))
    field = (FIELD * across, FIELD * along)
    size = (field[0] / parameters.patches[0], field[1] / parameters.patches[1])
    half_width = max(across, along) / 2
    if not parameters.regions:
        return patch_grid(field, parameters.patches), size, half_width
    # Movies have their centre pixel at n // 2, and the reduced views have kept the centre.
    scale = pixel_size / raw_pixel_size
    middle = [round(n * scale) // 2 for n in shape[::-1]]
    raw = (np.array(parameters.regions_listed()) - middle) * raw_pixel_size
    return aligned_from_raw(raw, lowest) / (stretch(lowest.tilt), 1.0), size, half_width


def told_axis(aligned: Aligned) -> dict[str, Any]:
    """Return what was found of the tilt axis."""
    turn = aligned.turn
    known = turn is not None and np.isfinite(turn.error)
    return {
        "error": turn.error if turn is not None and known else None,
        "at_end": turn.at_end if turn is not None else False,
        "varying": [asdict(part) for part in aligned.varying],
        "rescued": list(aligned.rescued),
        "lost": list(aligned.lost),
    }


def told_local(local: Local, times: Sequence[float], half_width: float) -> dict[str, Any]:
    """Return patches, tracks and deformation as numbers."""
    tracks, field = local.patched.tracks, local.field
    return {
        "deformation": stored(local.deformation, np.array(times)),
        "half_width": half_width,
        "points": np.nan_to_num(local.patched.points if field is None else field.points).tolist(),
        "tracks": np.column_stack([tracks.view, tracks.point, tracks.xy, tracks.sigma]).tolist(),
        "residuals": (local.patched.residuals if field is None else field.residuals).tolist(),
        "weights": [1.0] * len(tracks.view) if field is None else field.weights.tolist(),
        "patch_scores": local.patched.scores.tolist(),
        "excess": None if field is None else field.excess,
        "error": None if field is None else field.error,
        "predicted": {} if field is None else field.predicted,
        "model": None if field is None else field.model.name,
        "changes": list(local.changes),
        "refined": list(local.refined),
        "shift_errors": [
            [float(error) if np.isfinite(error) else None for error in errors]
            for errors in ([] if field is None else field.shift_errors)
        ],
    }


def told_hybrid(hybrid: Hybrid) -> dict[str, Any]:
    """Return what beads did, but for the views."""
    known = hybrid.beads >= LEAST_BEADS
    return {
        "beads": hybrid.beads,
        "taken": hybrid.taken,
        "alone_A": hybrid.alone if known else None,
        "together_A": hybrid.together if known else None,
    }


def memory_of_matching(shape: tuple[int, int], views: int, depth: int) -> int:
    """Return the most memory that `align_views` takes [bytes].

    The views six times, as numbers and spectra, and a volume a third wider than they are.
    """
    pixels = shape[0] * shape[1]
    return 300_000_000 + 4 * pixels * (6 * views + 2 * depth)
