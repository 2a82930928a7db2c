"""Motion of the movies for other programs: a STAR file for each, and a table of all frames."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.motion_local import LocalField, relion_coefficients
from tasks.export_imod import Say
from tasks.formats.files import write_text
from tasks.formats.relion_motion import write_motion_star
from tasks.record import TiltSeries
from tasks.result import Result

Floats = NDArray[np.float64]

WORTH_SAYING = 0.5  # Å of local motion that RELION's polynomial does not hold
GRID = np.linspace(-0.45, 0.45, 10)


def write_motion(folder: Path, table: Path, record: TiltSeries, motion: Result, say: Say) -> None:
    """Write ``<movie>.star`` for each movie, in RELION's layout, and the shifts of all frames.

    RELION's files count from the first frame used, and hold its polynomial of local motion; the
    table has the displacement of the specimen from the reference frame, averaged over the frame,
    and the root mean square of what parts of it move beyond that. Nothing is written of
    views that were never movies.

    Parameters
    ----------
    folder : Path
        For the STAR files; made here.
    table : Path
        CSV with one row per view and frame.
    record : TiltSeries
    motion : Result
    say : callable
        Called with a line for each thing that is left out.
    """
    if all(view.frames == 1 for view in record.views):
        say(f"{record.name}: one frame in each view: no motion")
        return
    folder.mkdir()
    shifts, fields = np.asarray(motion.array("shifts")[:]), local_fields(motion)
    names = _names(record)
    rows: list[dict[str, Any]] = []
    left_over = []
    parameters = motion.attributes()["parameters"]
    if parameters.get("reference_frame", 1) != 1:
        say(
            f"{record.name}: RELION's files of motion count from the first frame, the images show "
            f"the specimen where it was in frame {parameters['reference_frame']}"
        )
    for i, (view, field) in enumerate(zip(record.views, fields, strict=True)):
        moved = shifts[i, : view.frames]
        rows += _rows(record, i, moved, field)
        if np.isnan(moved).all():
            say(f"{record.name}: no frame shifts of {view.movie.name}")
            continue
        local, lost = None, 0.0
        if field is not None:
            local, lost = _relion_local(field, _part_of_frame(record, motion))
            left_over.append(lost * record.acquisition.pixel_size)
        _write_star(folder / f"{names[i]}.star", record, i, moved, local, motion)
    if left_over and max(left_over) > WORTH_SAYING:
        say(
            f"{record.name}: RELION's polynomial leaves out up to {max(left_over):.1f} Å of the "
            "local motion (root mean square)"
        )
    write_text(table, _csv(rows))


def local_fields(motion: Result) -> list[LocalField | None]:
    """Return the local motion of each view in the frames used, None where there is none.

    Results of earlier versions have none.
    """
    if "local" not in motion.group():
        return [None] * motion.array("shifts").shape[0]
    fields: list[LocalField | None] = []
    for stored in np.asarray(motion.array("local")[:]):
        known = np.isfinite(stored).all(axis=2)
        values = stored[known.any(axis=1)][:, known.any(axis=0)]
        fields.append(LocalField(values) if values.size else None)
    return fields


def root_mean_square(field: LocalField) -> Floats:
    """Return the root-mean-square displacement over the frame (n,), in pixels of the movie."""
    # The functions are orthogonal over the frame, and of mean square one.
    return np.asarray(np.sqrt((field.coefficients**2).sum(axis=(1, 2))))


def _write_star(
    path: Path,
    record: TiltSeries,
    index: int,
    moved: Floats,
    local: Floats | None,
    motion: Result,
) -> None:
    view, acquisition = record.views[index], record.acquisition
    is_eer = view.movie.name.lower().endswith(".eer")
    write_motion_star(
        path,
        view.movie.name,
        (view.frames, *record.shape),
        acquisition.pixel_size,
        float(motion.attributes()["parameters"]["binning"]),
        moved[:, ::-1],  # x, y
        local,
        dose_per_frame=view.dose / view.frames,
        prior_dose=view.prior_dose,
        voltage=acquisition.voltage,
        gain_name=None if acquisition.gain is None else acquisition.gain.name,
        eer=(acquisition.eer_sampling, view.grouping) if is_eer else None,
    )


def _relion_local(field: LocalField, part: tuple[float, float]) -> tuple[Floats, float]:
    """Return RELION's coefficients of the object's displacement, and what they leave out.

    `part` is how much of the movie's frame, along y and x, the field spans.
    """
    field = LocalField(field.coefficients - field.coefficients[0])
    found = relion_coefficients(field)
    py, px = part
    scale = np.array([1, 1 / px, 1 / px**2, 1 / py, 1 / py**2, 1 / (px * py)])
    y, x = np.meshgrid(GRID, GRID, indexing="ij")
    space = np.stack([np.ones_like(x), x, x * x, y, y * y, x * y])
    frame = np.arange(len(field.coefficients))
    time = np.stack([frame, frame**2, frame**3])
    fitted = np.einsum("ast,syx,tn->nayx", found.reshape(2, 6, 3)[::-1], space, time)
    left = fitted - field.at(y, x)
    rms = float(np.sqrt((left**2).sum(axis=1).mean(axis=(1, 2)).max()))
    return (found.reshape(2, 6, 3) * scale[:, None]).ravel(), rms


def _part_of_frame(record: TiltSeries, motion: Result) -> tuple[float, float]:
    """Return how much of the movie's frame was kept along y and x."""
    crop = motion.attributes()["parameters"].get("crop") or record.shape
    ny, nx = (min(kept, n) / n for kept, n in zip(crop, record.shape, strict=True))
    return ny, nx


def _names(record: TiltSeries) -> list[str]:
    """Return a file name for each view: its movie's, with the view's number if others share it."""
    stems = [Path(view.movie.name).stem for view in record.views]
    count = Counter(stems)
    return [s if count[s] == 1 else f"{s}_view{i:03d}" for i, s in enumerate(stems, 1)]


def _rows(
    record: TiltSeries, index: int, moved: Floats, field: LocalField | None
) -> list[dict[str, Any]]:
    view = record.views[index]
    used = np.asarray(np.isfinite(moved).all(axis=1))
    local = np.zeros(len(moved))
    if field is not None:
        local[used] = root_mean_square(field)
    return [
        {
            "series": record.name,
            "view": index + 1,
            "tilt_angle_deg": f"{view.tilt_angle:g}",
            "movie": view.movie.name,
            "frame": frame,
            "shift_x_A": _angstrom(record, x),
            "shift_y_A": _angstrom(record, y),
            "model": "" if view.motion is None else view.motion.model,
            "local_rms_A": _angstrom(record, rms) if used[frame - 1] else "",
        }
        for frame, ((y, x), rms) in enumerate(zip(moved, local, strict=True), 1)
    ]


def _angstrom(record: TiltSeries, pixels: float) -> str:
    return f"{pixels * record.acquisition.pixel_size + 0.0:.4f}" if np.isfinite(pixels) else ""


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
