"""The arguments that flows share, with what the form of the Prefect UI says about them.

Prefect takes the descriptions of a flow's own arguments from docstrings in Google's style, and
overwrites those of a `Field`; what stands in its ``json_schema_extra`` is kept.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field


def shown(text: str) -> Any:
    """Return the annotation that gives an argument its description in the form."""
    return Field(json_schema_extra={"description": text})


Project = Annotated[str, shown("full path or URL of the project, e.g. /data/session.zarr")]
SeriesName = Annotated[str, shown("name of the tilt series, e.g. TS_01")]
SeriesNames = Annotated[list[str] | None, shown("names of the tilt series; empty: all")]
Branch = Annotated[str, shown("name under which the results are kept together")]
Until = Annotated[str | None, shown("last step wanted; empty: the tomogram")]
Subset = Annotated[str | None, shown("named subset of the project to take; empty: all")]
