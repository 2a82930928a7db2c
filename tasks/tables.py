"""Rows for people: the views of a series, the series of a project, how far each one is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from statistics import median
from typing import Any

from tasks.plan import current_plan
from tasks.record import TiltSeries
from tasks.result import Result
from tasks.session_axes import contradictions
from tasks.steps import STEPS
from tasks.store import Series, parse_project

Row = dict[str, Any]

ANGSTROM_PER_MICROMETRE = 1e4

# What a step's table repeats of the record.
REPEATED = {
    "view",
    "tilt angle [°]",
    "movie",
    "excluded",
    "prior dose [e/Å²]",
    "motion [Å]",
    "early [Å]",
    "late [Å]",
    "reliable",
}
UNITS = {"°": "deg", "Å": "A", "e/Å²": "e_per_A2", "µm": "um", "σ": "sigma", "%": "percent"}


def series_rows(record: TiltSeries) -> list[Row]:
    """Return one row per view, sorted by tilt angle; what is not known yet is None."""
    rows = []
    for number, view in enumerate(record.views, 1):
        geometry = view.geometry
        rows.append(
            {
                "view": number,
                "order": view.order,
                "tilt angle [°]": view.tilt_angle,
                "included": "yes" if view.excluded is None else f"no: {view.excluded}",
                "prior dose [e/Å²]": view.prior_dose,
                "accumulated [e/Å²]": view.prior_dose + view.dose,
                "movie": view.movie.name,
                "motion [Å]": view.motion and view.motion.total,
                "defocus [µm]": view.ctf and view.ctf.defocus / ANGSTROM_PER_MICROMETRE,
                "± [Å]": view.ctf and view.ctf.uncertainty,
                "refined tilt [°]": geometry and geometry.tilt,
                "axis [°]": geometry and geometry.axis,
                "shift x [Å]": geometry and geometry.shift_x,
                "shift y [Å]": geometry and geometry.shift_y,
            }
        )
    return rows


def project_rows(project: str, branch: str = "main", series: list[str] | None = None) -> list[Row]:
    """Return one row per series of a project: what it is, and what came out on `branch`.

    `series`: those that are wanted; by default all.

    Raises
    ------
    NotThere
        If there is no project.
    """
    of = parse_project(project)
    return [_summary(of.series(name), branch) for name in series or of.series_names()]


def _summary(series: Series, branch: str) -> Row:
    record = series.record(branch)
    views = [record.views[i] for i in record.included]
    axes = [view.geometry.axis for view in views if view.geometry is not None]
    angles = [view.tilt_angle for view in record.views]
    doses = [view.prior_dose + view.dose for view in record.views]
    tomogram = current_result(series, branch, "reconstruct")
    return {
        "series": series.name,
        "views": len(record.views),
        "excluded": len(record.views) - len(views),
        "tilt [°]": f"{angles[0]:.0f} … {angles[-1]:.0f}" if angles else "",
        "pixel [Å]": record.acquisition.pixel_size,
        "dose [e/Å²]": max(doses, default=0.0),
        "axis [°]": _median(axes) if axes else record.acquisition.tilt_axis,
        "motion [Å]": _median(view.motion.total for view in views if view.motion),
        "defocus [µm]": _median(
            view.ctf.defocus / ANGSTROM_PER_MICROMETRE for view in views if view.ctf
        ),
        "tomogram": None if tomogram is None else tomogram.attributes().get("message"),
    }


def status_rows(
    project: str, branch: str = "main", series: list[str] | None = None
) -> tuple[list[Row], list[str]]:
    """Return series × steps, and separately why steps failed.

    `series`: those that are wanted; by default all.

    Returns
    -------
    rows : list of dict
        "series", then each step: done, stale, failed, unfinished, to do, or nothing where the
        branch's parameters leave the step out.
    reasons : list of str
        One line for each failed step, and for each series that contradicts the others.

    Raises
    ------
    NotThere
        If there is no project.
    """
    of = parse_project(project)
    rows, reasons = [], []
    for name in series or of.series_names():
        plan = current_plan(of.series(name), branch)
        states = {step: plan[step].state if step in plan else "" for step in STEPS}
        rows.append({"series": name, **states})
        reasons += [
            f"{name}: {step} failed: {planned.why.removeprefix(f'{name}: ')}"
            for step, planned in plan.items()
            if planned.state == "failed"
        ]
    told = contradictions(project, branch)
    return rows, [*reasons, *(f"{name}: doubtful: {why}" for name, why in told.items())]


def qc_rows(series: Series, branch: str = "main") -> list[Row]:
    """Return one row per view with every figure that is known of it, for programs.

    Columns are named ``quantity_unit``; first those of the record, then ``step_quantity_unit`` of
    what else a step tells in its table.
    """
    record = series.record(branch)
    rows = [_figures(record, i) for i in range(len(record.views))]
    for step in STEPS:
        result = current_result(series, branch, step)
        for line in [] if result is None else result.attributes().get("table", []):
            number = line.get("view")
            if isinstance(number, int) and 1 <= number <= len(rows):
                rows[number - 1].update(
                    {_column(step, key): line[key] for key in line if key not in REPEATED}
                )
    return rows


def _figures(record: TiltSeries, index: int) -> Row:
    view = record.views[index]
    row = {
        "series": record.name,
        "view": index + 1,
        "order": view.order,
        "tilt_angle_deg": view.tilt_angle,
        "included": view.excluded is None,
        "excluded_because": view.excluded or "",
        "prior_dose_e_per_A2": view.prior_dose,
        "dose_e_per_A2": view.dose,
        "movie": view.movie.name,
        "frames": view.frames,
    }
    if (motion := view.motion) is not None:
        row |= {
            "motion_total_A": motion.total,
            "motion_early_A": motion.early,
            "motion_late_A": motion.late,
            "motion_reliable": motion.reliable,
        }
    if (ctf := view.ctf) is not None:
        row |= {
            "defocus_u_A": ctf.defocus_u,
            "defocus_v_A": ctf.defocus_v,
            "astigmatism_angle_deg": ctf.astigmatism_angle,
            "phase_shift_deg": ctf.phase_shift,
            "ctf_fit_resolution_A": ctf.fit_resolution,
            "ctf_score": ctf.score,
            "defocus_uncertainty_A": ctf.uncertainty,
            "astigmatism_uncertainty_A": ctf.astigmatism_uncertainty,
            "ctf_reliable": ctf.reliable,
            "ctf_problem": ctf.problem or "",
        }
    if (geometry := view.geometry) is not None:
        row |= {
            "refined_tilt_deg": geometry.tilt,
            "axis_deg": geometry.axis,
            "shift_x_A": geometry.shift_x,
            "shift_y_A": geometry.shift_y,
            "magnification": geometry.magnification,
            "x_tilt_deg": geometry.x_tilt,
        }
    return row


def current_result(series: Series, branch: str, step: str) -> Result | None:
    """Return the complete result of `step` on `branch`, or None."""
    key = series.pointer(branch, step)
    if key is None:
        return None
    result = series.result(step, key)
    return result if result.complete() else None


def _column(step: str, title: str) -> str:
    name, _, unit = title.partition(" [")
    words = re.sub(r"\W+", "_", name).strip("_")
    unit = unit.rstrip("]")
    return "_".join(filter(None, [step, words, UNITS.get(unit, re.sub(r"\W+", "_", unit))]))


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return float(median(known)) if known else None
