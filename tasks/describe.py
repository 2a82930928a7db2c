"""What the files say of a tilt series before any movie is opened.

Names of movies and lists of angles are brought to the form of an mdoc, so that one way leads from
there to the record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tasks.discover import SUFFIXES, Source, series_name
from tasks.errors import UnusableData
from tasks.formats.errors import FormatError, shown
from tasks.formats.mdoc import Mdoc, MdocSection, read_mdoc, section_from_values
from tasks.formats.movie_names import split_name
from tasks.formats.mrc import open_frames
from tasks.formats.mrc_extended import axis_in_labels, read_sections
from tasks.formats.tilt_list import acquisition_order, parse_range, read_tilt_list
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


@dataclass(frozen=True)
class Description:
    """A tilt series as described.

    Attributes
    ----------
    mdoc : Mdoc
        As read, or made of what else there is.
    views : tuple of MdocSection
        In order of acquisition.
    files : dict of int to Path
        Movie of each view that has one.
    missing : tuple of str
        Names of the movies that are not there.
    orders : tuple of int
        Place of each view in the acquisition, from 1.
    said_by : str
        Who tells the angles.
    order_by : str
        Who tells the order.
    doubts : tuple of (field, value, source, doubt)
        For the import report.
    axis : (float, source) or None
        Tilt axis [°] that the stack itself tells.
    """

    mdoc: Mdoc
    views: tuple[MdocSection, ...]
    files: dict[int, Path]
    orders: tuple[int, ...]
    said_by: str = "mdoc"
    order_by: str = "mdoc"
    missing: tuple[str, ...] = ()
    doubts: tuple[tuple[str, str, str, str | None], ...] = field(default=())
    axis: tuple[float, str] | None = None
    is_stack: bool = False

    @property
    def path(self) -> Path:
        """What messages name."""
        return self.mdoc.path


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
        return _of_stack(source.path, user)
    if source.mdoc is None:
        return _of_names(source, user)
    return _of_mdoc(source.mdoc, source.of_others, source.doubt, user)


# -- movies listed in an mdoc ---------------------------------------------------------------------


def _of_mdoc(
    mdoc: Mdoc, of_others: frozenset[str], doubt: str | None, user: ImportParameters
) -> Description:
    views = tuple(_with_angle(view) for view in _with_ranges(mdoc))
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
    if unlisted := _unlisted(files.values(), of_others):
        doubts.append(("unlisted movies", ", ".join(unlisted), "files", "not in the mdoc"))
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


def _with_angle(view: MdocSection) -> MdocSection:
    """Return a section with a tilt angle, if need be that in its movie's name."""
    if view.tilt_angle is not None:
        return view
    named = split_name(view.movie_name or "")
    if named is None or named.angle is None:
        raise UnusableData(
            f"{view.path}: [{view.kind} = {view.number}] has no TiltAngle: add it to the mdoc"
        )
    return replace(view, fields={**view.fields, "TiltAngle": str(named.angle)})


def _without_movie(mdoc: Mdoc, view: MdocSection) -> str:
    where = f"{mdoc.path}: [{view.kind} = {view.number}] has no SubFramePath"
    stack = mdoc.path.parent / mdoc.header.get("ImageFile", mdoc.path.stem)
    if stack.is_file() and not any(other.movie_name for other in mdoc.views):
        return f"{where}: there are no movies; for the tilt series {stack} use --stack"
    return f"{where}: add the movie's name to the mdoc"


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


def _unlisted(movies: Iterable[Path], of_others: frozenset[str]) -> list[str]:
    """Return movies beside the listed ones whose names say that they belong to the series."""
    listed = list(movies)
    named = [split_name(path.name) for path in listed]
    series = {one.series for one in named if one is not None}
    if len(series) != 1 or None in named:
        return []
    names = {path.name for path in listed} | of_others
    suffixes = {path.suffix for path in listed}
    beside = (path for folder in {p.parent for p in listed} for path in folder.iterdir())
    return sorted(
        path.name
        for path in beside
        if path.suffix in suffixes
        and path.name not in names
        and (other := split_name(path.name)) is not None
        and other.series in series
        and other.angle is not None
    )


# -- movies by their names ------------------------------------------------------------------------


def _of_names(source: Source, user: ImportParameters) -> Description:
    angles = [float(named.angle or 0.0) for named in source.movies]
    if all(named.order is not None for named in source.movies):
        numbers = [int(named.order or 0) for named in source.movies]
        order_by, doubt = "{TO} in the names", None
    else:
        numbers = list(acquisition_order(angles, user.order))
        order_by = f"--order {user.order}"
        doubt = "the names have no order, on which the dose depends" if _is_default(user) else None
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


def _is_default(user: ImportParameters) -> bool:
    return "order" not in user.model_fields_set


# -- stacks ---------------------------------------------------------------------------------------


def _of_stack(path: Path, user: ImportParameters) -> Description:
    header = open_frames(path).header
    count = header.shape[0]
    label = axis_in_labels(header.labels)
    axis = None if label is None else (label[0], "stack label")
    if user.aligned or (user.aligned is None and path.suffix == ".ali"):
        axis = (0.0, "aligned stack")
    where = user.angles or ""
    mdoc = _mdoc_beside(path) if where in ("", "mdoc") else None
    if mdoc is not None:
        return _of_stack_with_mdoc(path, count, mdoc, axis)
    if where == "mdoc":
        raise UnusableData(f"{path}: no mdoc beside it: bring {path.name}.mdoc, or give --angles")
    sections, said_by, order = _listed_sections(path, count, where)
    angles = [section.tilt_angle or 0.0 for section in sections]
    doubt = None
    if order is None:
        order, order_by = list(acquisition_order(angles, user.order)), f"--order {user.order}"
        if _is_default(user):
            doubt = "not known, the dose depends on it: say --order, or give an mdoc"
    else:
        order_by = said_by
    ranked = sorted(range(count), key=lambda i: order[i])
    views = tuple(sections[i] for i in ranked)
    return Description(
        mdoc=Mdoc(path, {}, (), tuple(sections)),
        views=views,
        files=dict.fromkeys(range(count), path),
        orders=tuple(range(1, count + 1)),
        said_by=said_by,
        order_by=order_by,
        doubts=(("order", order_by, "user" if doubt is None else "default", doubt),),
        axis=axis,
        is_stack=True,
    )


def _of_stack_with_mdoc(
    path: Path, count: int, mdoc: Mdoc, axis: tuple[float, str] | None
) -> Description:
    views = tuple(_with_angle(view) for view in mdoc.views_by_time)
    numbers = sorted(view.number for view in views)
    if numbers != list(range(count)):
        raise UnusableData(
            f"{path}: has {count} sections, {mdoc.path.name} tells of {len(views)} "
            f"({numbers[0]} to {numbers[-1]}): give the mdoc of this stack, or --angles"
            if numbers
            else f"{mdoc.path}: has no views: give --angles"
        )
    timed = all(view.date_time is not None for view in views)
    return Description(
        mdoc=mdoc,
        views=views,
        files=dict.fromkeys(range(count), path),
        orders=tuple(range(1, count + 1)),
        order_by="DateTime" if timed else "mdoc",
        axis=axis,
        is_stack=True,
    )


def _mdoc_beside(path: Path) -> Mdoc | None:
    names = dict.fromkeys([f"{path.name}.mdoc", f"{path.stem}.mrc.mdoc", f"{path.stem}.mdoc"])
    found = next((p for name in names if (p := path.with_name(name)).is_file()), None)
    return None if found is None else read_mdoc(found)


def _listed_sections(
    path: Path, count: int, where: str
) -> tuple[list[MdocSection], str, list[int] | None]:
    """Return a section of an mdoc for each section of a stack, who said so, and the order."""
    beside = [path.with_suffix(suffix) for suffix in (".rawtlt", ".tlt")]
    if not where:
        where = next((str(file) for file in beside if file.is_file()), "header")
    if where == "header":
        told = read_sections(path)
        if told is None or any(section.tilt_angle is None for section in told):
            raise UnusableData(
                f"{path}: its header tells no tilt angles, and there is no mdoc, .rawtlt or .tlt "
                "beside it: give --angles, a file or first,last,step"
            )
        angles = [float(section.tilt_angle or 0.0) for section in told]
        held = [section.exposure_dose for section in told]
        return _sections(path, count, angles, held, "stack header"), "stack header", None
    file = Path(where.replace("{TS}", series_name(path))).expanduser()
    if not file.is_file():
        try:
            angles = list(parse_range(where, count))
        except ValueError as error:
            if "{" in where or re.search("[A-Za-z/]", where):
                raise UnusableData(f"{file}: no such file: correct --angles") from error
            raise UnusableData(f"{path}: --angles {where}: {error}") from error
        return _sections(path, count, angles, None, "--angles"), "--angles", None
    table = read_tilt_list(file)
    order = None if table.order is None else [int(n) for n in table.order]
    doses = None if table.dose is None else [float(dose) for dose in table.dose]
    angles = [float(angle) for angle in table.angles]
    return _sections(path, count, angles, doses, str(file)), file.name, order


def _sections(
    path: Path,
    count: int,
    angles: Sequence[float],
    doses: Sequence[float | None] | None,
    said_by: str,
) -> list[MdocSection]:
    if len(angles) != count:
        raise FormatError(
            said_by if "/" in said_by else path,
            f"{len(angles)} tilt angles for the {count} sections of {path.name}",
            "give one for each section",
        )
    sections = []
    for i, angle in enumerate(angles):
        fields = {"TiltAngle": repr(angle)}
        if doses is not None and doses[i] is not None:
            fields["ExposureDose"] = repr(doses[i])
        sections.append(MdocSection("ZValue", i, fields, path))
    return sections
