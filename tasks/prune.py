"""Clean-up: results that no branch reaches, and files that interrupted writes have left.

A result is reached when a branch points to it, or when a reached result was made from it.
What another run may be writing at this moment is kept: an incomplete result that was written to
within the last day, and a complete one that ended within the last minute, whose branch may not
point to it yet. Where the store does not tell when it was written to, an incomplete result stays.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from zarr.storage import LocalStore, ObjectStore

from tasks.errors import UnusableData
from tasks.result import Result
from tasks.steps import STEPS
from tasks.store import Project, Series, parse_project

BEING_WRITTEN = timedelta(days=1)
BEING_POINTED_TO = timedelta(minutes=1)
PARTIAL = ".partial"  # what zarr's LocalStore appends to files that it is writing


def unreachable(project: str, now: datetime | None = None) -> list[Result]:
    """Return the results that no branch reaches and no run is making, sorted by series.

    Raises
    ------
    NotThere
        If there is no project.
    UnusableData
        If a branch has steps that this version does not know.
    """
    of, now = parse_project(project), now or datetime.now(UTC)
    lost = []
    for name in of.series_names():
        series = of.series(name)
        reached = _reached(series)
        lost += [
            result
            for result in series.results()
            if result.path not in reached and not _in_use(result, now)
        ]
    return lost


def prune(project: str, now: datetime | None = None) -> int:
    """Delete what `unreachable` names, and left-over temporary files.

    Returns
    -------
    int
        Bytes freed.
    """
    of, now = parse_project(project), now or datetime.now(UTC)
    freed = 0
    for result in unreachable(project, now):
        freed += of.size(result.path)
        # First what makes it complete: half a result must never pass for a whole one.
        of.delete_object(f"{result.path}/zarr.json")
        of.delete(result.path)
    for path in leftovers(of, now):
        freed += path.stat().st_size
        path.unlink(missing_ok=True)
    return freed


def leftovers(project: Project, now: datetime | None = None) -> list[Path]:
    """Return the temporary files of writes that were killed: untouched for a day."""
    if not isinstance(project.store, LocalStore):
        return []
    now = now or datetime.now(UTC)
    return [
        path
        for path in sorted(project.store.root.rglob(f"*{PARTIAL}"))
        if path.is_file() and now - _modified(path) > BEING_WRITTEN
    ]


def _reached(series: Series) -> set[str]:
    reached: set[str] = set()
    todo = [
        (step, key)
        for branch in series.branches()
        for name in series.project.names(f"{series.name}/branches/{branch}")
        if (key := series.pointer(branch, step := name.removesuffix(".json"))) is not None
    ]
    while todo:
        step, key = todo.pop()
        if step not in STEPS:
            raise UnusableData(
                f"{series.name}: has results of a step {step!r} that this version of tiltflow does "
                "not know: nothing is pruned, use the newer version"
            )
        result = series.result(step, key)
        if result.path not in reached:
            reached.add(result.path)
            attributes = result.attributes()
            todo.extend(attributes.get("inputs", {}).items())
            if "images_in" in attributes:
                reached.add(attributes["images_in"])
    return reached


def _in_use(result: Result, now: datetime) -> bool:
    attributes = result.attributes()
    if attributes.get("complete"):
        ended = attributes.get("ended")
        return ended is not None and now - datetime.fromisoformat(ended) < BEING_POINTED_TO
    written = _last_written(result)
    return written is None or now - written < BEING_WRITTEN


def _last_written(result: Result) -> datetime | None:
    """Return when any object of a result was last written, or None where that is not known."""
    store = result.series.project.store
    if isinstance(store, LocalStore):
        times = [_modified(path) for path in (store.root / result.path).rglob("*")]
    elif isinstance(store, ObjectStore):
        listed = store.store.list(prefix=result.path + "/")
        times = [found["last_modified"] for batch in listed for found in batch]
    else:
        return None
    return max(times, default=None)


def _modified(path: Path) -> datetime:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:  # gone since it was listed: someone is at work here
        return datetime.now(UTC)
