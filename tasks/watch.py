"""Which series are whole while a microscope still writes: told from looks, whatever their times.

Only this machine's clock counts: a file is settled when looks that lie far enough apart have
shown the same size and modification time, and that time itself may be of any other clock.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.parameters import ImportParameters

# imported: as it is now. failed: for the first time, refused: as it was when it failed.
State = Literal["waiting", "ready", "imported", "failed", "refused"]
Stamps = Mapping[str, tuple[int, int]]  # path → size [bytes], modification time [ns]


class WatchParameters(ImportParameters):
    """Which series of a folder are taken, when, and what the user says of them."""

    mdoc: str | None = Field(
        None, description="mdoc files, in the folder unless a full path; empty: '*.mdoc'"
    )
    pattern: str | None = Field(
        None, description="movies by name, likewise: '{TS}_{TO}_{TA}_*.mrc'"
    )
    stack: str | None = Field(None, description="tilt series without movies, likewise: '*.st'")
    settle: float = Field(
        30.0, gt=0, description="a file is whole when it has not changed for so long [s]"
    )
    idle: float = Field(
        15.0, ge=0, description="a series is whole when nothing of it has changed for so long [min]"
    )
    views: int | None = Field(
        None, ge=1, description="a series is whole with so many views, too; empty: only when idle"
    )
    stop_after: float | None = Field(
        None, gt=0, description="end so long after the start [min]; empty: never"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("mdoc", "pattern", "stack") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} given: name the tilt series by one of them")
        return self

    def imports(self, directory: Path) -> ImportParameters:
        """Return what the import of a series in `directory` is told."""
        values = {
            name: getattr(self, name)
            for name in self.model_fields_set
            if name in ImportParameters.model_fields
        }
        where = next((n for n in ("pattern", "stack") if values.get(n) is not None), "mdoc")
        folder = str(directory) if where == "pattern" else glob.escape(str(directory))
        text = Path(folder) / Path(values.get(where) or "*.mdoc").expanduser()
        return ImportParameters.model_validate({**values, where: str(text)})


@dataclass(frozen=True)
class Seen:
    """What one look shows of a series.

    Attributes
    ----------
    views : int
    files : mapping of str to (int, int)
        Path → size [bytes] and modification time [ns], of all that belongs to it and is there.
    missing : tuple of str
        Names of the movies that are not there.
    unfinished : str or None
        What looks as if it were to go on.
    fault : str or None
        Why what is there cannot be imported.
    beside : mapping of str to (int, int)
        Likewise of movies whose names say that they belong to it, though no mdoc lists them: an
        mdoc that is cut off cannot, yet the microscope is still at work.
    """

    views: int
    files: Stamps
    missing: tuple[str, ...] = ()
    unfinished: str | None = None
    fault: str | None = None
    beside: Stamps = field(default_factory=dict)


class Memory(BaseModel):
    """What is remembered of a series between looks, and kept in the project.

    Attributes
    ----------
    files : dict of str to (int, int, float)
        Path → size [bytes], modification time [ns], and since when both are so [s].
    changed : float
        When anything of it changed last [s].
    imported, failed : str or None
        Marks (`mark_of`) of what was imported, and of what failed.
    reason : str
        Why it failed.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    files: dict[str, tuple[int, int, float]]
    changed: float
    imported: str | None = None
    failed: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Verdict:
    """What to do with a series, and why, for people."""

    state: State
    reason: str = ""


def remember(before: Memory | None, seen: Stamps, now: float) -> Memory:
    """Return the memory after a look at time `now` [s]; `before` itself if nothing has changed.

    A clock that was set back begins all waiting anew.
    """
    if before is None:
        return Memory(files={path: (*stamp, now) for path, stamp in seen.items()}, changed=now)
    files: dict[str, tuple[int, int, float]] = {}
    for path, stamp in seen.items():
        *known, since = before.files.get(path, (-1, -1, now))
        files[path] = (*stamp, since if tuple(known) == stamp and since <= now else now)
    if files == before.files and before.changed <= now:
        return before
    return before.model_copy(update={"files": files, "changed": now})


def mark_of(files: Stamps, *asked: BaseModel | str | None) -> str:
    """Return the mark of files as they are, and of what was asked for: 12 hexadecimal digits."""
    told = [one.model_dump(mode="json") if isinstance(one, BaseModel) else one for one in asked]
    text = json.dumps([sorted(files.items()), told], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def judge(
    seen: Seen,
    memory: Memory,
    asked: WatchParameters,
    now: float,
    check: Callable[[], str | None],
) -> Verdict:
    """Tell whether a series is whole.

    Parameters
    ----------
    seen, memory
        Of this look, and with it remembered.
    asked
        When it counts as whole.
    now
        Time of this machine's clock [s].
    check
        Returns why the movies cannot be read, or None; asked last, for it opens them.

    Returns
    -------
    Verdict
        waiting, ready or failed. A fault makes a series wait until it is idle; then it fails.
    """
    ends = memory.changed + 60 * asked.idle
    idle = now >= ends
    views = _count(seen.views, "view")
    if now - memory.changed < asked.settle:
        return Verdict("waiting", f"{views}, still changing")
    if seen.fault is not None:
        return _faulty(views, seen.fault, ends, idle)
    if seen.missing and not (idle and asked.allow_missing and len(seen.missing) < seen.views):
        movies = f"{_count(len(seen.missing), 'movie')}, first {seen.missing[0]}"
        if not idle:
            return Verdict("waiting", f"{views}, waits for {movies}")
        return Verdict(
            "failed",
            f"{views}, of which {movies} never came: bring them, give their folder by --movies, "
            "or use --allow-missing",
        )
    enough = asked.views is not None and seen.views >= asked.views
    if not idle and (seen.unfinished is not None or not enough):
        of = views if asked.views is None or enough else f"{seen.views} of {asked.views} views"
        more = "" if seen.unfinished is None else f", {seen.unfinished}"
        return Verdict("waiting", f"{of}{more}, starts at {_time(ends)} unless more comes")
    fault = check()
    return Verdict("ready", views) if fault is None else _faulty(views, fault, ends, idle)


def _faulty(views: str, fault: str, ends: float, idle: bool) -> Verdict:
    if idle:
        return Verdict("failed", fault)
    return Verdict("waiting", f"{views}, may become whole until {_time(ends)}: {fault}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%H:%M:%S}"
