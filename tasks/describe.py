"""What the files say of a tilt series before any movie is opened.

Names of movies and lists of angles are brought to the form of an mdoc, so that one way leads from
there to the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tasks.describe_stack import describe_stack
from tasks.description import Description, order_is_default, with_angle
from tasks.discover import SUFFIXES, Source
from tasks.errors import UnusableData
from tasks.formats.errors import shown
from tasks.formats.files import file_name
from tasks.formats.mdoc import Mdoc, MdocSection, section_from_values
from tasks.formats.movie_names import split_name
from tasks.formats.tilt_list import acquisition_order
from tasks.parameters import ImportParameters

# Of a movie of several views, what holds for the whole movie only.
OF_THE_MOVIE = {
    "TiltAngle",
    "ExposureDose",
    "DoseRate",
    "ExposureTime",
    "FrameDosesAndNumber",
    "MinMaxMean",
    "NumSubFrames",
    "DateTime",
}
# More numbers missing than this share of the views: they count something else than views.
MOST_GAPS = 0.2
LEAST_OTHERS = 2  # sections that tell which keys a section of an mdoc has


def describe(source: Source, user: ImportParameters) -> Description:
    """Return what the files of a series say.

    Raises
    ------
    UnusableData, FormatError
        Naming the file, the value and the remedy.
    """
    if source.fault is not None:
        raise source.fault
    if source.is_stack:
        return describe_stack(source.path, user)
    if source.mdoc is None:
        return _of_names(source, user)
    return _of_mdoc(source.mdoc, source.of_others, source.doubt, user)


# -- movies listed in an mdoc ---------------------------------------------------------------------


def _of_mdoc(
    mdoc: Mdoc, of_others: frozenset[str], doubt: str | None, user: ImportParameters
) -> Description:
    views = tuple(with_angle(view) for view in _with_ranges(mdoc))
    if not views:
        raise UnusableData(f"{mdoc.path}: has no views: give the mdoc of a tilt series")
    folders = [mdoc.path.parent, mdoc.path.parent / "frames"]
    if user.movies is not None:
        folders = [Path(user.movies).expanduser()]
    files: dict[int, Path] = {}
    missing, renamed = [], []
    owners: dict[str, MdocSection] = {}
    for i, view in enumerate(views):
        name = view.movie_name
        if name is None:
            raise UnusableData(_without_movie(mdoc, view))
        other = owners.setdefault(name, view)
        if other is not view and view.frame_range is None:
            raise UnusableData(
                f"{mdoc.path}: sections {other.number} and {view.number} name the same movie "
                f"{name}: correct one SubFramePath"
            )
        found = find_movie(name, folders)
        if found is None:
            missing.append(name)
            continue
        files[i] = found
        if found.name != name:
            renamed.append(f"{name} is {found.name}")
    if missing and not (files and user.allow_missing):
        raise UnusableData(
            f"{mdoc.path}: {len(missing)} of {len(views)} movies are missing, the first is "
            f"{folders[0] / missing[0]}: bring them, give their folder by --movies"
            + (", or use --allow-missing" if files else "")
        )
    doubts = [] if doubt is None else [("series", mdoc.path.name, "mdocs of movies", doubt)]
    if renamed:
        doubts.append(("movie names", f"{len(renamed)} with another suffix", "files", renamed[0]))
    if mdoc.ignored:
        number, text = mdoc.ignored[0]
        doubt = f"line {number} means nothing: {shown(text)}"
        doubts.append(("mdoc lines", f"{len(mdoc.ignored)} left out", "mdoc", doubt))
    unangled = [view.number for view in mdoc.views if "TiltAngle" not in view.fields]
    if unangled:
        doubt = f"no TiltAngle in the mdoc, first in section {unangled[0]}"
        doubts.append(("angles by name", f"{len(unangled)} of {len(views)}", "files", doubt))
    if (reason := cut_off(mdoc)) is not None:
        doubts.append(("mdoc", "may be cut off", "mdoc", reason))
    if more := [path.name for path in unlisted(files.values(), of_others)]:
        doubts.append(("unlisted movies", ", ".join(more), "files", "not in the mdoc"))
    timed = all(view.date_time is not None for view in views)
    return Description(
        mdoc=mdoc,
        views=views,
        files=files,
        said_by="mdoc, else the movies' names" if unangled else "mdoc",
        orders=tuple(range(1, len(views) + 1)),
        order_by="DateTime" if timed else "mdoc",
        missing=tuple(missing),
        doubts=tuple(doubts),
    )


def _with_ranges(mdoc: Mdoc) -> tuple[MdocSection, ...]:
    """Return the views by time; those that share one movie get what the mdoc says of it."""
    views = mdoc.views_by_time
    movie = next((section for section in mdoc.sections if section.kind == "FrameSet"), None)
    if movie is None or not views or views[0].kind == "FrameSet":
        return views
    shared = {key: text for key, text in movie.fields.items() if key not in OF_THE_MOVIE}
    return tuple(replace(view, fields={**shared, **view.fields}) for view in views)


def _without_movie(mdoc: Mdoc, view: MdocSection) -> str:
    where = f"{mdoc.path}: [{view.kind} = {view.number}] has no SubFramePath"
    stack = mdoc.path.parent / (file_name(mdoc.header.get("ImageFile", "")) or mdoc.path.stem)
    if stack.is_file() and not any(other.movie_name for other in mdoc.views):
        return f"{where}: there are no movies; for the tilt series {stack} use --stack"
    return f"{where}: add the movie's name to the mdoc"


def cut_off(mdoc: Mdoc) -> str | None:
    """Return why the mdoc seems to end within a section, or None: its last one lacks a key.

    The key is one that every other section has; of joined mdocs each has a last section.
    """
    lasts = {section.path: section for section in mdoc.sections}
    for path, last in lasts.items():
        others = [s.fields for s in mdoc.sections if s is not last and s.kind == last.kind]
        if len(others) < LEAST_OTHERS:
            continue
        for key in others[0]:
            if key not in last.fields and all(key in fields for fields in others):
                return (
                    f"{path}: [{last.kind} = {last.number}] ends before {key}, which all others "
                    "have: is the file whole?"
                )
    return None


def find_movie(name: str, folders: Sequence[Path]) -> Path | None:
    """Return the movie of that name, or of that name with another suffix; only folders count."""
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    for folder in folders:
        for suffix in SUFFIXES:
            if (other := (folder / name).with_suffix(suffix)).is_file():
                return other
    return None


def movies_by_series(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a folder whose names have a tilt angle, by the series they name."""
    found: dict[str, list[Path]] = {}
    for path in folder.iterdir():
        named = split_name(path.name)
        if named is not None and named.angle is not None:
            found.setdefault(named.series, []).append(path)
    return found


def unlisted(
    movies: Iterable[Path],
    of_others: frozenset[str],
    beside: Callable[[Path], Mapping[str, Sequence[Path]]] = movies_by_series,
) -> list[Path]:
    """Return movies beside the listed ones whose names say that they belong to the series.

    Parameters
    ----------
    movies
        Those that the mdoc lists and that are there.
    of_others
        Names of movies that other mdocs list.
    beside
        Returns the movies of a folder by the series they name.
    """
    listed = list(movies)
    named = [split_name(path.name) for path in listed]
    series = {one.series for one in named if one is not None}
    if len(series) != 1 or None in named:
        return []
    (own,) = series
    names = {path.name for path in listed} | of_others
    suffixes = {path.suffix for path in listed}
    folders = sorted({path.parent for path in listed})
    found = (path for folder in folders for path in beside(folder).get(own, ()))
    return sorted(path for path in found if path.suffix in suffixes and path.name not in names)


# -- movies by their names ------------------------------------------------------------------------


def _of_names(source: Source, user: ImportParameters) -> Description:
    angles = [float(named.angle or 0.0) for named in source.movies]
    if all(named.order is not None for named in source.movies):
        numbers = [int(named.order or 0) for named in source.movies]
        order_by, doubt = "{TO} in the names", None
    else:
        numbers = list(acquisition_order(angles, user.order))
        order_by = f"--order {user.order}"
        doubt = (
            "the names have no order, on which the dose depends" if order_is_default(user) else None
        )
    ranked = sorted(range(len(numbers)), key=lambda i: numbers[i])
    taken = [source.movies[i] for i in ranked]
    first, last = numbers[ranked[0]], numbers[ranked[-1]]
    gaps = sorted(set(range(first, last + 1)) - set(numbers))
    orders = [numbers[i] - first + 1 for i in ranked]
    if len(gaps) > MOST_GAPS * len(taken):
        doubt = f"of the numbers {first} to {last} many are missing: taken as one after the other"
        orders = list(range(1, len(taken) + 1))
    elif gaps:
        doubt = f"no movie of {', '.join(map(str, gaps[:9]))}: the dose counts all the same"
    sections = [
        replace(
            section_from_values(
                i, {"TiltAngle": repr(angles[ranked[i]]), "SubFramePath": named.path.name}
            ),
            path=named.path,
        )
        for i, named in enumerate(taken)
    ]
    return Description(
        mdoc=Mdoc(taken[0].path, {}, (), tuple(sections)),
        views=tuple(sections),
        files={i: named.path for i, named in enumerate(taken)},
        orders=tuple(orders),
        said_by="{TA} in the names",
        order_by=order_by,
        doubts=(("order", order_by, "names", doubt),) if doubt else (),
    )
