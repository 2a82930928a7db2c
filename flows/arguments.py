"""The arguments that flows share, with what the form of the Prefect UI says about them.

Prefect takes the descriptions of a flow's own arguments from docstrings in Google's style, and
overwrites those of a `Field`; what stands in its ``json_schema_extra`` is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from prefect.runtime import flow_run
from pydantic import Field


def shown(text: str) -> Any:
    """Return the annotation that gives an argument its description in the form."""
    return Field(json_schema_extra={"description": text})


Project = Annotated[str, shown("full path or URL of the project, e.g. /data/session.zarr")]
SeriesName = Annotated[str, shown("name of the tilt series, e.g. TS_01")]
SeriesNames = Annotated[list[str] | None, shown("names of the tilt series; empty: all")]
Branch = Annotated[str, shown("name under which the results are kept together")]
Until = Annotated[str | None, shown("last step wanted; empty: the tomogram")]
Also = Annotated[
    list[str] | None,
    shown("further steps, which no other reads: preprocess, transform, thickness, ctf3d, …"),
]
Subset = Annotated[str | None, shown("named subset of the project to take; empty: all")]
Approve = Annotated[
    list[str] | None,
    shown("steps after which the run waits for approval: alignment, or names of steps"),
]

Preset = Annotated[
    Literal["tutorial-fiducial", "tutorial-markerfree", "fast", "default"],
    shown("where the parameters come from, and which branches are made"),
]
Changes = Annotated[
    dict[str, dict[str, Any]] | None,
    shown('what to change in it on every branch, e.g. {"motion": {"binning": 1}}'),
]


def run_name(what: str) -> Callable[[], str]:
    """Return what names a run over series: what it does, of which series, on which branch."""

    def name() -> str:
        given = flow_run.parameters
        names = given.get("series") or ["all"]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return f"{what} {shown} {given.get('branch', 'main')}"

    return name
