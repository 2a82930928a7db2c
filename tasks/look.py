"""Look after the files of a microscope session: what there is of each series, and since when."""

from __future__ import annotations

import functools
import glob
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from tasks.describe import cut_off, describe, find_movie, movies_by_series, unlisted
from tasks.discover import Found, Source, find_sources, of_mdocs, series_name
from tasks.errors import UnusableData, UserError, one_line
from tasks.formats.errors import FormatError
from tasks.formats.mdoc import Mdoc
from tasks.formats.movie_names import Pattern
from tasks.formats.movies import open_movie
from tasks.parameters import ImportParameters
from tasks.store import Project
from tasks.watch import (
    Memory,
    Seen,
    Stamps,
    Verdict,
    WatchParameters,
    judge,
    mark_of,
    remember,
)

BESIDE_A_STACK = (".mdoc", ".mrc.mdoc", ".rawtlt", ".tlt")


@dataclass(frozen=True)
class Watched:
    """A series as the last look has found it."""

    source: Source
    verdict: Verdict
    seen: Seen


class Lookout:
    """Looks at a folder again and again; remembers in the project what it has seen.

    Two threads may look: one while the other is at work.

    Parameters
    ----------
    project
        Keeps a small object for each series: ``watch/<series>.json``.
    directory
        The folder.
    asked
        Which series are taken, and when.
    request
        What else decides on a failure: a series that failed is tried again when it changes.
    clock
        Returns this machine's time [s].
    """

    def __init__(
        self,
        project: Project,
        directory: Path,
        asked: WatchParameters,
        request: tuple[BaseModel | str | None, ...] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.asked, self.imports = asked, asked.imports(directory)
        if self.imports.pattern is not None:
            Pattern(self.imports.pattern)  # a wrong one is refused now, not waited for
        self.trouble: str | None = None
        self.left_out: dict[Path, str] = {}
        self._project, self._request, self._clock = project, request, clock
        self._memories: dict[str, Memory] = {}
        self._opened: set[tuple[str, int, int]] = set()
        self._found: tuple[Stamps, Found] = ({}, Found(()))
        self._beside = movies_by_series
        self._lock = threading.Lock()

    def look(self) -> dict[str, Watched]:
        """Return what is there now, by the names of the series.

        What keeps series from being told at all is in `trouble`, files that are none in `left_out`.
        """
        with self._lock:
            try:
                found = self._sources()
                self.trouble = None
            except (UserError, FormatError, OSError) as error:
                found, self.trouble = Found(()), one_line(error)
            self.left_out = dict(found.left_out)
            self._beside = functools.cache(movies_by_series)  # a folder is listed once for a look
            return {source.name: self._watched(source) for source in found.sources}

    def note_imported(self, watched: Watched) -> bool:
        """Note that a series is imported; False if its files have changed since the look."""
        return self._note(watched, imported=self._mark(watched.seen), failed=None, reason="")

    def note_failed(self, watched: Watched, reason: str) -> bool:
        """Note that a series fails as it is; False if its files have changed since the look."""
        return self._note(watched, failed=self._mark(watched.seen, *self._request), reason=reason)

    def forget_failures(self) -> None:
        """Let every series that failed be tried again."""
        with self._lock:
            for file in self._project.names("watch"):
                name = file.removesuffix(".json")
                memory = self._memory(name)
                if memory is not None and memory.failed is not None:
                    self._save(name, memory.model_copy(update={"failed": None, "reason": ""}))

    # -- series -----------------------------------------------------------------------------------

    def _sources(self) -> Found:
        if self.imports.mdoc is None:
            return find_sources(self.imports)
        paths = sorted(Path(name) for name in glob.glob(self.imports.mdoc))
        if not paths:
            raise UnusableData(f"nothing there yet, waits for {self.imports.mdoc}")
        stamps = _stamps(paths)
        if stamps != self._found[0]:
            named: dict[str, Path] = {}
            left_out = []
            for path in paths:
                first = named.setdefault(series_name(path), path)
                if first is not path:
                    left_out.append((path, f"same series name as {first.name}: rename one"))
            found = of_mdocs(list(named.values()))
            self._found = stamps, Found(found.sources, (*found.left_out, *left_out))
        return self._found[1]

    def _watched(self, source: Source) -> Watched:
        seen, now = self._seen(source), self._clock()
        try:
            before = self._memory(source.name)
            memory = remember(before, {**seen.files, **seen.beside}, now)
            if memory is not before:
                self._save(source.name, memory)
        except OSError as error:  # a disk that is full now may have room later
            return Watched(source, Verdict("waiting", one_line(error)), seen)
        if memory.failed == self._mark(seen, *self._request):
            verdict = Verdict("refused", memory.reason)
        elif memory.imported == self._mark(seen):
            verdict = Verdict("imported")
        else:
            verdict = judge(seen, memory, self.asked, now, lambda: self._fault(source))
        return Watched(source, verdict, seen)

    def _seen(self, source: Source) -> Seen:
        files, beside = [source.path], list[Path]()
        missing: list[str] = []
        views, unfinished, fault = 0, None, None
        if source.fault is not None:
            fault = one_line(source.fault)
        elif source.is_stack:
            names = [f"{source.path.name}.mdoc", *(source.path.stem + s for s in BESIDE_A_STACK)]
            files += [source.path.with_name(name) for name in dict.fromkeys(names)]
            try:
                views = open_movie(source.path).n_frames
            except (FormatError, OSError) as error:
                fault = one_line(error)
        elif source.mdoc is None:
            files = [named.path for named in source.movies]
            views = len(files)
        else:
            movies, missing = _movies(source.mdoc, self.imports)
            files = [*dict.fromkeys(s.path for s in source.mdoc.sections), *movies]
            views, fault = len(source.mdoc.views), cut_off(source.mdoc)
            unfinished = _open_end(source.mdoc)
            beside = unlisted(movies, source.of_others, self._beside)
        for reference in (self.imports.gain, self.imports.dark, self.imports.defects):
            if reference is not None:
                files.append(path := Path(reference).expanduser())
                if not path.is_file():
                    fault = f"{path}: no such file"
        return Seen(views, _stamps(files), tuple(missing), unfinished, fault, _stamps(beside))

    def _fault(self, source: Source) -> str | None:
        """Return why a series cannot be imported; opens the movies that it has not opened yet."""
        try:
            for path in dict.fromkeys(describe(source, self.imports).files.values()):
                status = path.stat()
                stamp = str(path), status.st_size, status.st_mtime_ns
                if stamp not in self._opened:
                    open_movie(path, eer_fractions=1, eer_sampling=self.imports.eer_sampling)
                    self._opened.add(stamp)
        except Exception as error:  # whatever a half-written file leads to, the watch goes on
            return one_line(error)
        return None

    # -- memory -----------------------------------------------------------------------------------

    def _mark(self, seen: Seen, *asked: BaseModel | str | None) -> str:
        return mark_of(seen.files, self.imports, *asked)

    def _memory(self, name: str) -> Memory | None:
        if name not in self._memories:
            try:
                self._memories[name] = Memory.model_validate(
                    self._project.read_json(f"watch/{name}.json")
                )
            except (UserError, ValidationError):  # there is none, or none that can be read
                return None
        return self._memories[name]

    def _note(self, watched: Watched, **noted: str | None) -> bool:
        with self._lock:
            name, files, beside = watched.source.name, watched.seen.files, watched.seen.beside
            if _stamps(map(Path, files)) != files:
                return False
            memory = self._memory(name) or remember(None, {**files, **beside}, self._clock())
            self._save(name, memory.model_copy(update=noted))
            return True

    def _save(self, name: str, memory: Memory) -> None:
        self._memories[name] = memory
        self._project.write_json(f"watch/{name}.json", memory.model_dump())


def _movies(mdoc: Mdoc, imports: ImportParameters) -> tuple[list[Path], list[str]]:
    """Return the movies of an mdoc that are there, and the names of those that are not."""
    folders = [mdoc.path.parent, mdoc.path.parent / "frames"]
    if imports.movies is not None:
        folders = [Path(imports.movies).expanduser()]
    names = dict.fromkeys(view.movie_name for view in mdoc.views if view.movie_name is not None)
    found = {name: find_movie(name, folders) for name in names}
    there = [path for path in found.values() if path is not None]
    return there, [name for name, path in found.items() if path is None]


def _open_end(mdoc: Mdoc) -> str | None:
    """Return why an mdoc looks as if its writer had stopped within a line, or None."""
    for path in dict.fromkeys(section.path for section in mdoc.sections):
        try:
            with path.open("rb") as file:
                file.seek(-1, 2)
                if file.read(1) not in b"\r\n":
                    return f"{path.name} ends within a line"
        except OSError as error:
            return one_line(error)
    return None


def _stamps(paths: Iterable[Path]) -> dict[str, tuple[int, int]]:
    """Return size [bytes] and modification time [ns] of those that are there."""
    stamps = {}
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        stamps[str(path)] = status.st_size, status.st_mtime_ns
    return stamps
