"""Which tilt series the user's files hold: mdocs, movies by name, or stacks."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from tasks.errors import UnusableData
from tasks.formats.errors import FormatError
from tasks.formats.mdoc import Mdoc, MdocSection, MontageError, read_mdoc
from tasks.formats.movie_names import Named, Pattern, split_name
from tasks.parameters import ImportParameters

SUFFIXES = (".mrc", ".mrcs", ".st", ".ali", ".tif", ".tiff", ".eer")

SAME_STAGE = 5.0  # µm: tracking moves the stage by less, another target lies farther
SAME_TILT = 0.25  # degrees: two movies so close together were meant to have one angle


@dataclass(frozen=True)
class Source:
    """A tilt series as its files show it: by an mdoc, by names of movies, or as a stack.

    Attributes
    ----------
    name : str
        Of the series.
    path : Path
        The mdoc, the first movie, or the stack.
    mdoc : Mdoc or None
        As read; those of single movies joined into one.
    movies : tuple of Named
        Of a pattern.
    is_stack : bool
    of_others : frozenset of str
        Names of movies that other mdocs of this import list.
    doubt : str, optional
        Why its movies may not be one series.
    fault : UserError, FormatError or OSError, optional
        Why it cannot be imported.
    """

    name: str
    path: Path
    mdoc: Mdoc | None = None
    movies: tuple[Named, ...] = ()
    is_stack: bool = False
    of_others: frozenset[str] = frozenset()
    doubt: str | None = None
    fault: Exception | None = None


@dataclass(frozen=True)
class Found:
    """The series, sorted by name, and the files that are none, with the reason."""

    sources: tuple[Source, ...]
    left_out: tuple[tuple[Path, str], ...] = ()


def find_sources(user: ImportParameters) -> Found:
    """Return the tilt series that the user's files hold.

    An mdoc that cannot be read is a source with a fault, as is a series that is there twice; a
    montage found by wildcards is left out.

    Raises
    ------
    UnusableData
        If there are none.
    """
    if user.pattern is not None:
        return _of_pattern(user.pattern)
    if user.stack is not None:
        paths = _matching(user.stack, "stack")
        return Found(_distinct(Source(series_name(path), path, is_stack=True) for path in paths))
    return of_mdocs(_matching(user.mdoc or "", "mdoc"))


def of_mdocs(paths: Sequence[Path]) -> Found:
    """Return the tilt series of mdoc files, those of single movies put together."""
    whole: list[Source] = []
    single: list[Mdoc] = []
    left_out: list[tuple[Path, str]] = []
    for path in paths:
        try:
            mdoc = read_mdoc(path)
        except FormatError as error:
            if isinstance(error, MontageError) and len(paths) > 1:
                left_out.append((path, error.problem))
            else:
                whole.append(Source(series_name(path), path, fault=error))
        except OSError as error:
            whole.append(Source(series_name(path), path, fault=error))
        else:
            if all(section.kind == "FrameSet" for section in mdoc.sections):
                single.append(_with_movie(mdoc))
            else:
                whole.append(Source(series_name(path), path, mdoc))
    listed = {s.path: _names(s.mdoc) for s in whole if s.mdoc is not None}
    everything = frozenset[str]().union(*listed.values())
    # SerialEM may have saved a series' mdoc, and one beside each of its movies.
    movies = [
        (mdoc, section)
        for mdoc in single
        for section in mdoc.sections
        if section.movie_name not in everything
    ]
    whole = [
        replace(s, of_others=everything - listed[s.path]) if s.path in listed else s for s in whole
    ]
    if not (whole or movies):
        path, reason = left_out[0]
        raise UnusableData(f"{path}: {reason}: give the mdoc of a tilt series")
    return Found(_distinct([*whole, *_grouped(movies)]), tuple(left_out))


def mdoc_source(path: Path) -> Source:
    """Return the one tilt series of an mdoc."""
    (source,) = of_mdocs([path]).sources
    return source


def series_name(path: Path) -> str:
    """Return the name of the series of an mdoc or stack: ``TS_01.mrc.mdoc`` is TS_01."""
    name = path.name.removesuffix(".mdoc")
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return _clean(name)


def _matching(pattern: str, what: str) -> list[Path]:
    text = str(Path(pattern).expanduser())
    # Brackets stand for themselves where they match nothing: folders may have them in their names.
    names = glob.glob(text) or glob.glob(text.replace("[", "[[]"))
    paths = sorted(Path(name) for name in names)
    if not paths:
        raise UnusableData(f"{pattern}: no such {what}: check the path, and quote the wildcards")
    return paths


def _distinct(sources: Iterable[Source]) -> tuple[Source, ...]:
    seen: dict[str, Source] = {}
    for source in sources:
        if (other := seen.setdefault(source.name, source)) is not source and other.fault is None:
            fault = UnusableData(
                f"{source.path}: same series name {source.name!r} as {other.path}: rename one"
            )
            seen[source.name] = replace(other, fault=fault)
    return tuple(seen[name] for name in sorted(seen))


def _of_pattern(text: str) -> Found:
    series: dict[str, list[Named]] = {}
    for named in Pattern(text).glob():
        series.setdefault(_clean(named.series), []).append(named)
    return Found(
        _distinct(
            Source(name, movies[0].path, movies=tuple(movies)) for name, movies in series.items()
        )
    )


# -- mdocs of single movies ---------------------------------------------------------------------


def _grouped(movies: Sequence[tuple[Mdoc, MdocSection]]) -> list[Source]:
    """Put the movies of FrameSet mdocs together that belong to one tilt series.

    They lie in one folder, their names begin alike, the stage stays, and an angle comes back only
    when a movie is taken again at once.
    """
    listed = frozenset(section.movie_name for _, section in movies if section.movie_name)
    kinds: dict[tuple[Path, str], list[tuple[Mdoc, MdocSection]]] = {}
    for mdoc, section in movies:
        kinds.setdefault((mdoc.path.parent, _prefix(section, mdoc)), []).append((mdoc, section))
    found = []
    for (_, prefix), members in kinds.items():
        members.sort(key=_time)
        runs = [members[:1]]
        doubts: list[str | None] = [None]
        for before, this in pairwise(members):
            if why := _another_series(runs[-1], before[1], this[1]):
                runs.append([])
                doubts.append(f"taken as another series than the movies before: {why}")
            runs[-1].append(this)
        for number, (run, doubt) in enumerate(zip(runs, doubts, strict=True), 1):
            name = prefix if number == 1 else f"{prefix}_{number}"  # whatever comes after it
            mdoc = _joined(run)
            others = listed - _names(mdoc)
            found.append(Source(_clean(name), mdoc.path, mdoc, of_others=others, doubt=doubt))
    return found


def _with_movie(mdoc: Mdoc) -> Mdoc:
    """Return the mdoc of one movie with the movie's name, if need be by that of the mdoc."""
    if len(mdoc.sections) != 1 or mdoc.sections[0].movie_name is not None:
        return mdoc
    (section,) = mdoc.sections
    fields = {**section.fields, "SubFramePath": mdoc.path.stem}
    return replace(mdoc, sections=(replace(section, fields=fields),))


def _prefix(section: MdocSection, mdoc: Mdoc) -> str:
    named = split_name(section.movie_name or "")
    return mdoc.path.parent.name if named is None else named.series


def _time(member: tuple[Mdoc, MdocSection]) -> tuple[datetime, int, str]:
    mdoc, section = member
    try:
        time = section.date_time
    except FormatError:
        time = None
    named = split_name(section.movie_name or "")
    order = -1 if named is None or named.order is None else named.order
    return time or datetime.min, order, str(mdoc.path)


def _another_series(
    run: Sequence[tuple[Mdoc, MdocSection]], before: MdocSection, this: MdocSection
) -> str | None:
    """Return why `this` begins another series, None if it does not."""
    here, there = run[0][1].stage_position, this.stage_position
    if here and there:
        moved = max(abs(a - b) for a, b in zip(here, there, strict=True))
        if moved > SAME_STAGE:
            return f"the stage has moved by {moved:.1f} µm"
    angle = this.tilt_angle
    if angle is None or _close(before.tilt_angle, angle):
        return None
    if any(_close(section.tilt_angle, angle) for _, section in run):
        return f"{angle:.1f}° came again; if they are one, bring the series' own mdoc"
    return None


def _close(one: float | None, other: float) -> bool:
    return one is not None and abs(one - other) < SAME_TILT


def _joined(run: Sequence[tuple[Mdoc, MdocSection]]) -> Mdoc:
    """Return one mdoc of the movies' sections, numbered as they were taken."""
    first = run[0][0]
    sections = [replace(section, number=i) for i, (_, section) in enumerate(run)]
    return replace(first, sections=tuple(sections))


def _names(mdoc: Mdoc) -> frozenset[str]:
    return frozenset(s.movie_name for s in mdoc.sections if s.movie_name)


def _clean(name: str) -> str:
    return re.sub(r"[^\w.+-]", "_", name)
