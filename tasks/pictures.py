"""The pictures of one step's result, for the Prefect UI: those that the report has of it."""

from __future__ import annotations

from collections.abc import Sequence

from tasks import plots, plots_ctf, plots_erase, plots_motion
from tasks.plots_alignment import alignment_plots
from tasks.plots_patches import patch_plots
from tasks.plots_thickness import thickness_plot
from tasks.report import slices
from tasks.result import Result

MOST = 200_000  # characters of a picture that goes into the server's database


def pictures_of(result: Result, branch: str) -> list[plots.Plot | plots.Picture]:
    """Return the pictures of a complete result that `branch` uses, none of some steps."""
    record = result.series.record(branch)
    about = result.attributes()
    drawn: Sequence[plots.Plot | plots.Picture | None] = ()
    if result.step == "motion":
        drawn = (
            plots_motion.motion_plot(record),
            plots.intensity_plot(record, about["means"]),
        )
    elif result.step == "ctf":
        drawn = (
            plots_ctf.ctf_plot(record, about.get("expected") or ()),
            plots_ctf.gradient_plot(record, about.get("gradients") or ()),
        )
    elif result.step == "erase":
        drawn = (plots_erase.extremes_plot(record, result),)
    elif result.step in ("coarse", "align", "markerfree"):
        of_beads = alignment_plots(record, result, None) if result.step == "align" else ()
        patches = patch_plots(record, result) if result.step == "markerfree" else ()
        drawn = (plots.shift_plot(record), *of_beads, *patches)
    elif result.step == "thickness":
        drawn = (thickness_plot(result),)
    elif result.step in ("reconstruct", "ctf3d"):
        drawn = slices(result)
    return [picture for picture in drawn if picture is not None and len(picture.uri) <= MOST]
