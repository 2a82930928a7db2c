"""What an alignment without markers tells people: its message, the rows of views and patches."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.geometry import View
from tasks.chunks.markerfree import NOT_ASKED

MISMATCH = "does not match the other views"


def told(report: dict[str, Any], views: list[View], taking: list[bool]) -> str:
    """Return the verdict and what was found, in one line."""
    verdict, (low, high) = report["verdict"], report["depths"]
    if verdict["word"] == "failed":
        return f"failed: {'; '.join(verdict['reasons'])}: coarse shifts kept"
    scores = sorted(score for score, flag in zip(report["scores"], taking, strict=True) if flag)
    axis = report["axis"]["error"]
    parts = [
        f"tilt axis {views[taking.index(True)].axis:.2f}°" + (f" ± {axis:.2f}°" if axis else ""),
        f"median correlation {scores[len(scores) // 2]:.2f}",
        f"matter {high - low:.0f} Å thick",
        *_told_offset(report["offset"]),
    ]
    local = report["local"]
    if local and local["model"] is not None:
        errors = [e for e, flag in zip(local["shift_errors"], taking, strict=True) if flag]
        known = [np.hypot(*error) for error in errors if None not in error]
        if known:
            parts.append(f"shifts known to ± {np.median(known):.1f} Å")
        parts.append(
            f"local deformation known to ± {local['error']:.1f} Å"
            if local["deformation"]
            else "no local deformation"
        )
    if (hybrid := report["hybrid"]) and hybrid["beads"]:
        parts.append(f"{hybrid['beads']} beads {'joined' if hybrid['taken'] else 'left aside'}")
    line = f"{verdict['word']}: {', '.join(parts)}"
    return line if not verdict["reasons"] else f"{line}; but {'; '.join(verdict['reasons'])}"


def _told_offset(offset: dict[str, Any]) -> list[str]:
    if offset["angle"] is None:
        return [] if offset["reason"] == NOT_ASKED else ["tilt offset undetermined"]
    value = f"{offset['angle']:+.1f}°".replace("-", "−")
    how = "applied" if offset["applied"] else "not applied"
    return [f"tilt offset {value} ± {offset['error']:.1f}° ({how})"]


def view_rows(
    report: dict[str, Any], views: list[View], used: list[bool], taking: list[bool]
) -> list[dict[str, Any]]:
    """Return a row for each view that was to take part."""
    patches: list[list[float]] = [[] for _ in views]
    errors = [[None, None]] * len(views)
    if report["local"] and report["verdict"]["word"] != "failed":
        errors = report["local"]["shift_errors"] or errors
    if report["local"]:
        rows = zip(report["local"]["tracks"], report["local"]["residuals"], strict=True)
        for (view, *_), residual in rows:
            patches[int(view)].append(residual[0] ** 2 + residual[1] ** 2)
    return [
        {
            "view": i + 1,
            "tilt angle [°]": view.tilt,
            "axis [°]": view.axis,
            "shift x [Å]": view.shift_x,
            "shift y [Å]": view.shift_y,
            "error of shift x [Å]": errors[i][0],
            "error of shift y [Å]": errors[i][1],
            "correlation": report["scores"][i],
            "last move [Å]": report["moves"][i],
            "patches": len(patches[i]),
            "patches' residual [Å]": float(np.sqrt(np.mean(patches[i]))) if patches[i] else None,
            "excluded": "" if taking[i] else MISMATCH,
        }
        for i, view in enumerate(views)
        if used[i]
    ]


def patch_rows(local: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each patch: where it is, how well it is seen, what remains."""
    scores = np.array(local["patch_scores"])
    rows = np.array(local["tracks"], dtype=np.float64).reshape(-1, 5)
    squares = np.square(np.array(local["residuals"]).reshape(-1, 2)).sum(axis=1)
    found = []
    for j, (x, y, z) in enumerate(local["points"]):
        mine = rows[:, 1] == j
        seen = scores[:, j] > 0
        found.append(
            {
                "patch": j + 1,
                "X [Å]": x,
                "Y [Å]": y,
                "Z [Å]": z,
                "views": int(mine.sum()),
                "correlation": float(np.median(scores[seen, j])) if seen.any() else 0.0,
                "standard error [Å]": float(np.median(rows[mine, 4])) if mine.any() else None,
                "residual [Å]": float(np.sqrt(squares[mine].mean())) if mine.any() else None,
                "kept": float(np.mean(np.array(local["weights"])[mine])) if mine.any() else 0.0,
            }
        )
    return found
