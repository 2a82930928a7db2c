"""What the movies say at import of the orientation of their gain reference."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.errors import UnusableData, UserError, one_line
from tasks.formats.errors import FormatError
from tasks.gain import GainCheck, orientation_shown
from tasks.parameters import Execution, ImportParameters
from tasks.record import ImportedField, TiltSeries

FIELD = "gain orientation"


@task(name="gain orientation", cache_policy=NO_CACHE, persist_result=False)
def check_orientation(records: Sequence[TiltSeries], execution: Execution) -> GainCheck | str:
    """Compare the gain with a few movies of all series that share it; else tell why not."""
    try:
        return orientation_shown(records, execution)
    except (UserError, FormatError, OSError) as error:
        return one_line(error)


def with_orientation(
    record: TiltSeries, check: GainCheck | str | None, user: ImportParameters
) -> TiltSeries:
    """Return the record with the orientation, and a line of the import report about it.

    Raises
    ------
    UnusableData
        If the orientation is left to the movies and they do not show it clearly.
    """
    about = record.acquisition
    if about.gain is None:
        return record
    given = f"rotation {about.gain_rotation}, flip {about.gain_flip}"
    given += ", inverted" if about.gain_inverted else ""
    if user.gain_orientation == "auto":
        if not isinstance(check, GainCheck) or not check.clear:
            reason = check.message if isinstance(check, GainCheck) else check
            raise UnusableData(
                f"{about.gain.path}: --gain-orientation auto: {reason}: give --gain-rotate and "
                "--gain-flip"
            )
        best = check.best
        line = ImportedField(
            field=FIELD,
            value=str(best),
            source="movies",
            conflict=None if best == check.given.canonical() else f"given: {given}",
        )
        turned = about.model_copy(
            update={
                "gain_rotation": best.rotation,
                "gain_flip": best.flip,
                "gain_inverted": best.inverted,
            }
        )
        return _with_line(record.model_copy(update={"acquisition": turned}), line)
    if isinstance(check, GainCheck):
        doubt = None if check.verdict == "right" else check.message
    else:
        doubt = f"not checked: {check}" if check else None
    line = ImportedField(field=FIELD, value=given, source="user", conflict=doubt)
    return _with_line(record, line)


def _with_line(record: TiltSeries, line: ImportedField) -> TiltSeries:
    """Return the record with a line behind that of its gain."""
    lines = list(record.import_report)
    place = next((i for i, other in enumerate(lines, 1) if other.field == "gain"), len(lines))
    return record.model_copy(update={"import_report": (*lines[:place], line, *lines[place:])})
