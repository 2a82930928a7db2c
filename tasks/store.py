"""A project: one Zarr hierarchy of series, immutable results and branches (design §2).

PROJECT.zarr/
  TS_01/                        attributes: the imported record
    branches/main/motion.json   {"key": …}, replaced atomically
    motion-3fa2c1d0e5b7/        a result: arrays, attributes, unit/<n>.json while it is made
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import zarr
from pydantic import ValidationError
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from tasks.errors import NotThere, UnusableData, WrongParameter
from tasks.object_store import RemoteStore
from tasks.record import TiltSeries
from tasks.result import Result
from tasks.steps import ALIGNMENTS, STEPS

NAME = re.compile(r"[\w+-][\w.+-]*")  # never "..", nor a hidden folder


def checked_name(kind: str, name: str) -> str:
    """Return the name of a branch, series or result, which becomes a folder.

    Raises
    ------
    WrongParameter
        If it has other characters than a folder's name should have.
    """
    if not NAME.fullmatch(name):
        raise WrongParameter(
            f"{kind} name {name!r}: use letters, digits and _ . + -, not starting with a dot"
        )
    return name


def open_store(url: str) -> Store:
    """Open a local folder or an object store (s3://, gs://, az://) as a Zarr store.

    Raises
    ------
    WrongParameter
        If `url` is of no kind that is known, or remote and obstore is not installed.
    """
    scheme = urlparse(url).scheme
    if len(scheme) <= 1 or scheme == "file":
        return LocalStore(urlparse(url).path if scheme == "file" else url)
    return RemoteStore(url)


@dataclass(frozen=True)
class Project:
    """A project by its URL. Cheap to make; opens its store at first use."""

    url: str

    @cached_property
    def store(self) -> Store:
        """The Zarr store of the whole project."""
        return open_store(self.url)

    # -- small objects ---------------------------------------------------------------

    def read_json(self, path: str) -> Any | None:
        """Return the JSON object at `path`, or None when there is none."""
        buffer = sync(self.store.get(path, default_buffer_prototype()))
        if buffer is None:
            return None
        try:
            return json.loads(buffer.to_bytes())
        except ValueError as error:
            raise UnusableData(
                f"{self.url}/{path}: not JSON ({error}): restore or delete it"
            ) from error

    def write_json(self, path: str, value: Any) -> None:
        """Replace the JSON object at `path` atomically."""
        data = json.dumps(value, indent=1).encode()
        sync(self.store.set(path, default_buffer_prototype().buffer.from_bytes(data)))

    def names(self, path: str) -> list[str]:
        """Return what lies directly under `path`, sorted."""

        async def collect() -> list[str]:
            return [name async for name in self.store.list_dir(path)]

        return sorted(name.rstrip("/") for name in sync(collect()))

    def delete_object(self, path: str) -> None:
        """Delete the object at `path`."""
        sync(self.store.delete(path))

    def delete(self, path: str) -> None:
        """Delete everything under `path`."""
        sync(self.store.delete_dir(path))

    def size(self, path: str) -> int:
        """Return the bytes under `path`."""
        return sync(self.store.getsize_prefix(path))

    def requested(self, branch: str) -> Any | None:
        """Return the parameters of the last run on `branch`, step → fields, or None."""
        return self.read_json(f"requests/{checked_name('branch', branch)}.json")

    def note_request(self, branch: str, parameters: Mapping[str, Any]) -> None:
        """Write down the parameters of a run on `branch`: those of some or all steps."""
        known = self.requested(branch) or {}
        if {**known, **parameters} != known:
            path = f"requests/{checked_name('branch', branch)}.json"
            self.write_json(path, {**known, **parameters})

    # -- series ------------------------------------------------------------------------

    def exists(self) -> bool:
        """Tell whether there is a project at the URL."""
        if isinstance(self.store, LocalStore) and not self.store.root.is_dir():
            return False  # reading it would make the folder
        found = self.read_json("zarr.json") is not None
        if not found and isinstance(self.store, RemoteStore):
            self.store.check_bucket()
        return found

    def require(self) -> None:
        """Raise NotThere unless there is a project at the URL."""
        if not self.exists():
            raise NotThere(f"{self.url}: no project there: make one with `tiltflow import`")

    def series_names(self) -> list[str]:
        """Return the names of the imported series, sorted."""
        self.require()
        return [name for name in self.names("") if self._is_series(name)]

    def _is_series(self, name: str) -> bool:
        metadata = self.read_json(f"{name}/zarr.json")
        return metadata is not None and "series" in metadata.get("attributes", {})

    def series(self, name: str) -> Series:
        """Return series `name`, which must have been imported."""
        self.require()
        if not self._is_series(name):
            known = ", ".join(self.series_names()) or "none yet"
            raise NotThere(f"{self.url}: no series {name!r} (there are: {known})")
        return Series(self, name)

    def add_series(self, record: TiltSeries) -> Series:
        """Store an imported record; results that exist for the series stay."""
        checked_name("series", record.name)
        zarr.open_group(self.store, mode="a", zarr_format=3)
        group = zarr.open_group(self.store, path=record.name, mode="a", zarr_format=3)
        group.update_attributes({"series": record.model_dump(mode="json")})
        return Series(self, record.name)


@dataclass(frozen=True)
class Series:
    """One tilt series of a project."""

    project: Project
    name: str

    def imported(self) -> TiltSeries:
        """Return the record as it was imported."""
        metadata = self.project.read_json(f"{self.name}/zarr.json") or {}
        return self._validated(metadata["attributes"]["series"], "import it again")

    def branches(self) -> list[str]:
        """Return the names of the branches that have results."""
        return self.project.names(f"{self.name}/branches")

    def pointer(self, branch: str, step: str) -> str | None:
        """Return the key of the result of `step` on `branch`, or None."""
        value = self.project.read_json(self._path("branches", branch, step))
        return None if value is None else str(value["key"])

    def point(self, branch: str, step: str, key: str | None) -> None:
        """Let `branch` use the result `key` of `step`, or none."""
        path = self._path("branches", branch, step)
        if key is None:
            self.project.delete_object(path)
        else:
            self.project.write_json(path, {"key": key})

    def failure(self, branch: str, step: str) -> str | None:
        """Return why `step` failed on `branch` at its last try, or None."""
        value = self.project.read_json(self._path("failures", branch, step))
        return None if value is None else str(value["reason"])

    def note_failure(self, branch: str, step: str, reason: str) -> None:
        """Write down why `step` failed on `branch`."""
        self.project.write_json(self._path("failures", branch, step), {"reason": reason})

    def forget_failure(self, branch: str, step: str) -> None:
        """Forget that `step` failed on `branch`."""
        if self.failure(branch, step) is not None:
            self.project.delete_object(self._path("failures", branch, step))

    def _path(self, kind: str, branch: str, step: str) -> str:
        return f"{self.name}/{kind}/{checked_name('branch', branch)}/{step}.json"

    def result(self, step: str, key: str) -> Result:
        """Return the result `key` of `step`, made or not."""
        return Result(self, step, checked_name("result", key))

    def results(self) -> Iterator[Result]:
        """Yield every result in the store, complete or not."""
        by_prefix = {step.prefix: step.name for step in STEPS.values()}
        for name in self.project.names(self.name):
            prefix, _, key = name.rpartition("-")
            if prefix in by_prefix:
                yield Result(self, by_prefix[prefix], key)

    def current(self, branch: str, step: str) -> Result:
        """Return the complete result of `step` on `branch`.

        Raises
        ------
        NotThere
            If the step has not been run on that branch.
        """
        key = self.pointer(branch, step)
        if key is None or not self.result(step, key).complete():
            raise NotThere(
                f"{self.name}: {step} has not been run on branch {branch!r}: "
                f"`tiltflow run {self.project.url} --until {step} --branch {branch}`"
            )
        return self.result(step, key)

    def record(self, branch: str) -> TiltSeries:
        """Return the record as the results of `branch` have it."""
        pointers = {step: self.pointer(branch, step) for step in STEPS}
        keys = {step: key for step, key in pointers.items() if key is not None}
        used = self._alignment_of(keys)
        kept = {s: key for s, key in keys.items() if s == used or s not in ALIGNMENTS}
        if used is not None:
            # What it began with may have left out views.
            inputs = self.result(used, keys[used]).attributes().get("inputs", {})
            kept |= {step: key for step, key in inputs.items() if step in ALIGNMENTS}
        return self.record_of(kept)

    def _alignment_of(self, keys: Mapping[str, str]) -> str | None:
        """Return the step that decides a branch's geometry: its tomogram's, or the best there."""
        if "reconstruct" in keys:
            inputs = self.result("reconstruct", keys["reconstruct"]).attributes().get("inputs", {})
            if used := next((step for step in ALIGNMENTS if step in inputs), None):
                return used
        return next((step for step in ALIGNMENTS if step in keys), None)

    def record_of(self, keys: Mapping[str, str]) -> TiltSeries:
        """Return the imported record joined with what the given results decided."""
        record = self.imported().model_dump()
        for step in STEPS:
            if step not in keys:
                continue
            attributes = self.result(step, keys[step]).attributes()
            if not self.same_movies(attributes):
                continue  # made from another import: its views are others
            decided = attributes.get("decides", {})
            for view, fields in zip(record["views"], decided.get("views", []), strict=False):
                view.update(fields)
            record.update(decided.get("series", {}))
        return self._validated(record, "run its steps again on a new --branch")

    def same_movies(self, attributes: Mapping[str, Any]) -> bool:
        """Tell whether a result with such attributes was made from the movies imported now."""
        return attributes.get("movies") in (None, self.movies_digest())

    def movies_digest(self) -> str:
        """Return a hash of which movies the series has, in which order."""
        views = self.imported().views
        names = [f"{view.tilt_angle}:{view.movie.name}:{view.movie.digest}" for view in views]
        return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]

    def _validated(self, record: dict[str, Any], remedy: str) -> TiltSeries:
        try:
            return TiltSeries.model_validate(record)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise UnusableData(
                f"{self.project.url}/{self.name}: its record does not fit this version of "
                f"tiltflow ({where}: {fault['msg'].lower()}): {remedy}"
            ) from error


def parse_project(url: str) -> Project:
    """Return the project at `url`, local paths made absolute so that workers find them."""
    scheme = urlparse(url).scheme
    return Project(str(Path(url).expanduser().absolute()) if len(scheme) <= 1 else url)
