"""Small movies, and what an import makes of them, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tasks.discover import find_sources
from tasks.formats.mrc import write_stack
from tasks.ingest import read_series
from tasks.parameters import ImportParameters
from tasks.record import ImportedField, TiltSeries


def write_movie(path: Path, frames: int = 3, size: int = 16, pixel: float = 1.35) -> None:
    values = np.random.default_rng(len(path.name)).poisson(3, (frames, size, size))
    write_stack(path, values.astype(np.int16), pixel)


def imported(**given: Any) -> TiltSeries:
    told = {"voltage": 300, "dose": 3, "tilt_axis": 85.3, **given}
    user = ImportParameters(**{k: v for k, v in told.items() if v is not None})
    (source,) = find_sources(user).sources
    return read_series.fn(source, user)


def line(record: TiltSeries, field: str) -> ImportedField:
    (found,) = [line for line in record.import_report if line.field == field]
    return found


def taken(record: TiltSeries) -> list[tuple[float, int, float]]:
    """Return (angle, order, prior dose) in order of acquisition."""
    views = sorted(record.views, key=lambda view: view.order)
    return [(view.tilt_angle, view.order, view.prior_dose) for view in views]
