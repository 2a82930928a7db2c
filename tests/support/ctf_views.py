"""Records of other views, for tests of CTFs that come from files."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.ctf_import import ImportedCtf
from tasks.record import TiltSeries, View


def with_views(record: TiltSeries, views: Sequence[View]) -> TiltSeries:
    return record.model_copy(update={"views": tuple(views)})


def without(record: TiltSeries, *indices: int) -> TiltSeries:
    """Return the record with other views excluded than those that are."""
    return with_views(
        record,
        [
            view.model_copy(update={"excluded": "the user" if i in indices else None})
            for i, view in enumerate(record.views)
        ],
    )


def at(
    record: TiltSeries, tilts: Sequence[float], names: Sequence[str] | None = None
) -> TiltSeries:
    """Return a record of views at other angles, with other movies."""
    first = record.views[0]
    return with_views(
        record,
        [
            first.model_copy(
                update={
                    "tilt_angle": tilt,
                    "order": i + 1,
                    "excluded": None,
                    "movie": first.movie.model_copy(
                        update={"name": names[i] if names else f"{i}.mrc", "path": f"/raw/{i}.mrc"}
                    ),
                }
            )
            for i, tilt in enumerate(tilts)
        ],
    )


def as_stack(record: TiltSeries, sections: Sequence[int]) -> TiltSeries:
    movie = record.views[0].movie
    return with_views(
        record,
        [
            view.model_copy(update={"movie": movie, "first_frame": n, "frames": 1})
            for view, n in zip(record.views, sections, strict=True)
        ],
    )


def defoci(found: ImportedCtf) -> list[float | None]:
    return [None if e is None else round(e.defocus) for e in found.estimates]
