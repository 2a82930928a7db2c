"""Beads of an alignment for IMOD and for people: model, tables, residual log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.bead_store import read_solved, read_tracks
from tasks.formats.files import write_text
from tasks.formats.imod import FiducialPoint, write_points
from tasks.formats.imod_model import write_fiducials
from tasks.record import TiltSeries
from tasks.result import Result

DIAMETER = 100.0  # Å, where the result does not tell


def write_beads(folder: Path, record: TiltSeries, alignment: Result, pixel_size: float) -> None:
    """Write what an alignment by beads knows of them.

    Parameters
    ----------
    folder : Path
        Gets NAME.fid (IMOD's model, over the raw stack), NAME.fid.csv (which
        ``align --beads-from`` reads again), NAME.xyz.csv and NAME.resid.txt.
    record : TiltSeries
    alignment : Result
        Of the step `align`.
    pixel_size : float
        Of the exported stack, which is that of the motion-corrected images [Å].
    """
    about = alignment.attributes()
    tracks, points = read_tracks(alignment, len(record.views))
    residuals = np.hypot(*read_solved(alignment)[:, :2].T)
    rows, columns = about["shape"]
    places = tracks.xy / pixel_size + np.array([columns // 2, rows // 2])
    order = np.lexsort((tracks.view, tracks.point))
    write_points(
        folder / f"{record.name}.fid.csv",
        [
            FiducialPoint(
                int(tracks.point[k]) + 1,
                int(tracks.view[k]) + 1,
                float(places[k, 0]),
                float(places[k, 1]),
                float(np.nan_to_num(residuals[k])) / pixel_size,
                float(tracks.sigma[k]) / pixel_size,
            )
            for k in order.tolist()
        ],
    )
    write_fiducials(
        folder / f"{record.name}.fid",
        [
            np.column_stack([places[own], tracks.view[own]])
            for j in range(tracks.n_points)
            if len(own := order[tracks.point[order] == j])
        ],
        (columns, rows, len(record.views)),
        pixel_size,
        about.get("diameter_A") or DIAMETER,
    )
    seen = np.bincount(tracks.point, minlength=tracks.n_points)
    lines = ["marker,x_A,y_A,z_A,views,mean_residual_nm"]
    for j in np.flatnonzero(np.isfinite(points).all(axis=1)).tolist():
        mean = float(np.nanmean(residuals[tracks.point == j])) / 10
        x, y, z = points[j]
        lines.append(f"{j + 1},{x:.2f},{y:.2f},{z:.2f},{seen[j]},{mean:.4f}")
    write_text(folder / f"{record.name}.xyz.csv", "\n".join(lines) + "\n")
    write_text(folder / f"{record.name}.resid.txt", _log(record, about))


def _log(record: TiltSeries, about: dict[str, Any]) -> str:
    """Return the residual log: what was solved, then views, beads and doubtful places."""
    text = [
        f"{record.name}: {about['message']}",
        f"{about['measurements']} measurements for {about['unknowns']} unknowns "
        f"(ratio {about['ratio']:.1f})",
        f"mean residual {about['mean_residual_A'] / 10:.4f} nm, "
        f"of beads left out {about['left_out_residual_A'] / 10:.4f} nm",
        "",
    ]
    if about["tried"]:
        text += _table("models tried", about["tried"])
    text += _table("views", about["table"])
    text += _table("beads", about["beads"])
    text += _table("places off by more than the threshold, worst first", about["doubtful"])
    return "\n".join(text)


def _table(title: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    if not rows:
        return [f"{title}: none", ""]
    names = list(rows[0])
    cells = [names, *([_shown(row[name]) for name in names] for row in rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(names))]
    lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
    return [title, *lines, ""]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.4f}" if isinstance(value, float) else str(value if value is not None else "–")
