"""The report of a project: one HTML page without anything outside of it, and qc.csv beside it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from tasks import plots, plots_ctf, plots_ctf_view, plots_erase, plots_motion, plots_power
from tasks.errors import NotThere
from tasks.export_motion import local_fields
from tasks.formats.files import write_text
from tasks.plots_alignment import alignment_plots
from tasks.plots_patches import patch_plots
from tasks.plots_thickness import thickness_plot
from tasks.record import TiltSeries
from tasks.result import Result
from tasks.steps import STEPS
from tasks.store import Series, parse_project
from tasks.tables import current_result, project_rows, qc_rows, series_rows, status_rows

SLAB = 50.0  # Å of a tomogram that are averaged for a picture of its middle


def write_report(project: str, branch: str, out: Path, series: list[str] | None = None) -> Path:
    """Write the report of a branch of a project, and the figures of all views as qc.csv.

    Parameters
    ----------
    project, branch
        What to report on.
    out : Path
        The page, if its name ends in .html, or the folder for report.html.
    series : list of str, optional
        Names of the series that are wanted; by default all.

    Returns
    -------
    Path
        The page. ``qc.csv`` lies beside it.

    Raises
    ------
    NotThere
        If the project, its series, or the branch does not exist.
    """
    of = parse_project(project)
    all_series = [of.series(name) for name in series or of.series_names()]
    if not all_series:
        raise NotThere(f"{project}: holds no series: import some with `tiltflow import`")
    if branch != "main" and not any(branch in one.branches() for one in all_series):
        raise NotThere(f"{project}: no series has a branch {branch!r}")
    out = Path(out).expanduser()
    page = out if out.suffix.lower() in {".html", ".htm"} else out / "report.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    states, reasons = status_rows(project, branch, series)
    text = (
        _environment()
        .get_template("report.html.j2")
        .render(
            project=project.rstrip("/").rpartition("/")[2],
            branch=branch,
            now=datetime.now(UTC),
            version=version("tiltflow"),
            summary=project_rows(project, branch, series),
            states=states,
            reasons=reasons,
            all_series=[_chapter(one, branch) for one in all_series],
        )
    )
    write_text(page, text)
    rows = [row for one in all_series for row in qc_rows(one, branch)]
    write_text(page.with_name("qc.csv"), _csv(rows))
    return page


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tasks"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    environment.filters["angle"] = plots.angle
    environment.tests["figure"] = lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool)
    )
    return environment


def shown(value: Any) -> str:
    """Return a table's value as people read it: five digits, yes or no, – for nothing."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}".replace("-", "−") if math.isfinite(value) else "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {shown(part)}" for key, part in value.items()) or "–"
    return str(value)


def _chapter(series: Series, branch: str) -> dict[str, Any]:
    record = series.record(branch)
    results = {step: current_result(series, branch, step) for step in STEPS}
    return {
        "name": series.name,
        "record": record,
        "excluded": [(i, view) for i, view in enumerate(record.views, 1) if view.excluded],
        "axis": _axis(record),
        "notes": _notes(record),
        "views": series_rows(record),
        "steps": [
            _step(result, result.attributes()) for result in results.values() if result is not None
        ],
        "plots": [
            *_plots(record, results["motion"], results["ctf"], results["erase"]),
            *alignment_plots(record, results["align"], results["erase"]),
            *patch_plots(record, results["markerfree"]),
            *filter(None, [thickness_plot(results["thickness"])]),
        ],
        "spectra": _spectra(record, results["ctf"]),
        "hand": plots_ctf.what_hand(record),
        "pictures": _views(record, results["motion"]),
        "slices": slices(results["reconstruct"]),
        "corrected": slices(results["ctf3d"]),
        "flat": _is_flat(results["reconstruct"]),
    }


def _axis(record: TiltSeries) -> float | None:
    axes = [v.geometry.axis for v in record.views if v.geometry and v.excluded is None]
    return float(np.median(axes)) if axes else None


def _notes(record: TiltSeries) -> list[str]:
    """Return what a user should look at, one line each."""
    notes = [
        f"{line.field}: {line.value} ({line.source}); {line.conflict}"
        for line in record.import_report
        if line.conflict
    ]
    used = [view for view in record.views if view.excluded is None]
    for what, views in (
        ("motion could not be measured", [v for v in used if v.motion and not v.motion.reliable]),
        ("CTF is not from the view's own rings", [v for v in used if v.ctf and not v.ctf.reliable]),
    ):
        if views:
            notes.append(f"{what}: {', '.join(plots.angle(view.tilt_angle) for view in views)}")
    seen = record.handedness
    if seen is not None and seen.measured is not None and seen.measured != seen.hand:
        notes.append(f"defocus gradient: {plots_ctf.what_hand(record)}")
    return notes


def _step(result: Result, attributes: Mapping[str, Any]) -> dict[str, Any]:
    started, ended = (datetime.fromisoformat(attributes[name]) for name in ("started", "ended"))
    return {
        "name": result.step,
        "about": STEPS[result.step].about,
        "key": result.key,
        "message": attributes["message"],
        "parameters": attributes["parameters"],
        "software": attributes["software"],
        "seconds": (ended - started).total_seconds(),
        "ended": ended,
        "table": attributes["table"],
        "patches": attributes.get("patches") or [],
        "held_out": attributes.get("held_out") or {},
        "refined": attributes.get("refined") or [],
    }


def _plots(
    record: TiltSeries, motion: Result | None, ctf: Result | None, erase: Result | None
) -> list[plots.Plot]:
    of_ctf = ctf.attributes() if ctf is not None else {}
    drawn = [
        plots_motion.motion_plot(record),
        plots_ctf.ctf_plot(record, of_ctf.get("expected") or ()),
        plots_ctf.gradient_plot(record, of_ctf.get("gradients") or ()),
        plots.shift_plot(record),
    ]
    if motion is not None:
        drawn.append(plots.intensity_plot(record, motion.attributes()["means"]))
        drawn += _motion_plots(record, motion)
    drawn.append(plots_erase.extremes_plot(record, erase))
    return [plot for plot in drawn if plot is not None]


def _motion_plots(record: TiltSeries, motion: Result) -> list[plots.Plot | None]:
    """Return the plots of what results of motion hold; earlier versions hold the shifts alone."""
    attributes, fields = motion.attributes(), local_fields(motion)
    drawn: list[plots.Plot | None] = []
    if (i := plots_motion.most_local(record, fields)) is not None and (field := fields[i]):
        drawn.append(
            plots_motion.local_plot(
                field,
                record.acquisition.pixel_size,
                np.asarray(motion.images()[i]),
                record.acquisition.pixel_size * float(attributes["parameters"]["binning"]),
                record.views[i].tilt_angle,
            )
        )
    shifts = np.asarray(motion.array("shifts")[:])
    drawn.append(plots_motion.trajectory_plot(record, shifts, fields))
    if "profiles" in motion.group():
        profiles = np.asarray(motion.array("profiles")[:])
        drawn.append(plots_power.spectrum_plot(record, profiles, attributes["profile_step"]))
    return drawn


def _spectra(record: TiltSeries, ctf: Result | None) -> list[plots.Plot]:
    """Return plots of the spectra of some views; imported CTFs have none."""
    if ctf is None or not {"spectra", "profiles"} <= set(ctf.group()):
        return []
    attributes, spectra = ctf.attributes(), ctf.array("spectra")
    profiles = np.asarray(ctf.array("profiles")[:])
    pixel = attributes.get("spectrum_pixel") or attributes["pixel_size"]
    return [
        plots_ctf_view.spectrum_panel(record, i, np.asarray(spectra[i]), profiles[i], pixel)
        for i in plots_ctf_view.shown_views(record, np.isfinite(profiles).any(axis=(1, 2)))
    ]


def _views(record: TiltSeries, motion: Result | None) -> list[plots.Picture]:
    """Return pictures of the views at lowest and highest tilt, and of one left out."""
    if motion is None:
        return []
    views, included = record.views, record.included
    chosen: dict[int, str] = {}
    if included:
        chosen[min(included, key=lambda i: abs(views[i].tilt_angle))] = "lowest tilt"
        chosen.setdefault(max(included, key=lambda i: abs(views[i].tilt_angle)), "highest tilt")
    out = [i for i, view in enumerate(views) if view.excluded is not None]
    if out:
        chosen[out[0]] = f"left out ({views[out[0]].excluded})"
    images = motion.images()
    pixel = record.acquisition.pixel_size * float(motion.attributes()["parameters"]["binning"])
    return [
        plots.picture(
            np.asarray(images[i]),
            pixel,
            f"View {i + 1}, {plots.angle(views[i].tilt_angle)}: {what}",
            f"Image of {record.name} at {plots.angle(views[i].tilt_angle)}, {what}.",
        )
        for i, what in chosen.items()
    ]


def slices(tomogram: Result | None) -> list[plots.Picture]:
    """Return pictures of a tomogram's three central planes."""
    if tomogram is None:
        return []
    names = [name for name in tomogram.series.project.names(tomogram.path) if name.isdigit()]
    arrays = [tomogram.array(name) for name in sorted(names, key=int)]
    small = (array for array in arrays if max(array.shape) <= 2 * plots.PICTURE_WIDTH)
    volume = next(small, arrays[-1])
    voxel = tomogram.attributes()["pixel_size"] * arrays[0].shape[2] / volume.shape[2]
    pictures = []
    for plane, axis in (("XY", 0), ("XZ", 1), ("YZ", 2)):
        n = volume.shape[axis]
        depth = min(n, max(1, round(SLAB / voxel)))
        first = (n - depth) // 2
        where = [slice(None)] * 3
        where[axis] = slice(first, first + depth)
        mean = np.asarray(volume[tuple(where)]).mean(axis=axis, dtype=np.float32)
        pictures.append(
            plots.picture(
                mean,
                voxel,
                f"{plane} ({plane[0].lower()} right, {plane[1].lower()} up), "
                f"mean of the middle {depth * voxel / 10:.1f} nm",
                f"Central {plane} slice of the tomogram of {tomogram.series.name}.",
            )
        )
    return pictures


def _is_flat(tomogram: Result | None) -> bool:
    """Tell whether the XZ and YZ slices, one above the other, fit beside the XY slice."""
    if tomogram is None:
        return False
    z, y, x = tomogram.attributes()["shape"]
    return bool(2 * z < min(y, x))


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.7g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()
