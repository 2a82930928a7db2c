from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from kernels.geometry import View as ViewGeometry
from tasks.record import Geometry, TiltSeries

Make = Callable[..., Any]


@pytest.fixture
def record(fake_run: Make) -> TiltSeries:
    return fake_run().series.imported()


def test_a_record_survives_json(record: TiltSeries) -> None:
    assert TiltSeries.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {"views": r.views[::-1]}, "not sorted by tilt angle"),
        (
            lambda r: {"views": (*r.views[:-1], r.views[-1].model_copy(update={"order": 1}))},
            "same acquisition order",
        ),
        (lambda r: {"defocus": 3}, "Extra inputs are not permitted"),
    ],
    ids=["re-stacked", "an order twice", "unknown field"],
)
def test_a_record_that_contradicts_itself_is_refused(
    record: TiltSeries, change: Callable[[TiltSeries], dict[str, Any]], message: str
) -> None:
    values = {**dict(record), **change(record)}
    with pytest.raises(ValidationError, match=message):
        TiltSeries.model_validate(values)


def test_a_record_cannot_be_changed_in_place(record: TiltSeries) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        record.views[0].excluded = "because"  # type: ignore[misc]


def test_geometry_is_nominal_until_a_view_is_aligned(record: TiltSeries) -> None:
    assert record.geometry(1) == ViewGeometry(tilt=-20.0, axis=85.3)
    aligned = Geometry(tilt=-19.7, axis=85.1, shift_x=12.0, shift_y=-3.0, magnification=1.01)
    views = list(record.views)
    views[1] = views[1].model_copy(update={"geometry": aligned})
    assert record.model_copy(update={"views": tuple(views)}).geometry(1) == ViewGeometry(
        tilt=-19.7, axis=85.1, shift_x=12.0, shift_y=-3.0, magnification=1.01
    )


def test_included_leaves_out_views_that_have_a_reason(record: TiltSeries) -> None:
    views = list(record.views)
    views[2] = views[2].model_copy(update={"excluded": "dark"})
    assert record.model_copy(update={"views": tuple(views)}).included == (0, 1, 3, 4, 5, 6)
