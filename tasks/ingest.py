"""Import of tilt-series movies: from an mdoc and a folder of movies to a record."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext

from kernels.views import dark_views
from tasks import acquisition
from tasks.acquisition import Report
from tasks.errors import UnusableData
from tasks.formats.defects import read_defect_mask
from tasks.formats.gain_files import read_reference
from tasks.formats.mdoc import Mdoc, MdocSection, read_mdoc
from tasks.formats.movies import Movie, open_movie
from tasks.identity import identify
from tasks.parameters import ImportParameters
from tasks.record import Acquisition, FileIdentity, TiltSeries, View
from tasks.store import parse_project
from tasks.work import artifact_key

STACK_SUFFIXES = (".mrc", ".mrcs", ".st", ".ali", ".tif", ".tiff", ".eer")


def find_mdocs(pattern: str) -> list[Path]:
    """Return the mdoc files that `pattern` names, sorted.

    Raises
    ------
    UnusableData
        If there are none, or two belong to one series name.
    """
    paths = sorted(Path(name) for name in glob.glob(str(Path(pattern).expanduser())))
    if not paths:
        raise UnusableData(f"{pattern}: no such mdoc: check the path, and quote the wildcards")
    seen: dict[str, Path] = {}
    for path in paths:
        name = series_name(path)
        if name in seen:
            raise UnusableData(f"{path}: same series name {name!r} as {seen[name]}: rename one")
        seen[name] = path
    return paths


def series_name(mdoc: Path) -> str:
    """Return the name of the series of an mdoc: ``TS_01.mrc.mdoc`` is TS_01."""
    name = mdoc.name.removesuffix(".mdoc")
    for suffix in STACK_SUFFIXES:
        name = name.removesuffix(suffix)
    return re.sub(r"[^\w.+-]", "_", name)


@task(name="import", task_run_name="import {mdoc}", cache_policy=NO_CACHE, persist_result=False)
def import_series(project: str, mdoc: str, parameters: ImportParameters) -> TiltSeries:
    """Read an mdoc and the headers of its movies, and store the record.

    Results that exist for the series stay; a field that changes makes only those steps stale
    that read it.

    Raises
    ------
    UnusableData, FormatError
        Naming the file, the value and the remedy.
    """
    record = read_series(Path(mdoc), parameters)
    parse_project(project).add_series(record)
    if TaskRunContext.get() is not None:
        create_table_artifact(
            key=artifact_key(record.name, "import"),
            table=[line.model_dump() for line in record.import_report],
            description=f"{record.name}: where each field of the record comes from",
        )
    return record


def read_series(path: Path, user: ImportParameters) -> TiltSeries:
    """Return the record of the tilt series that an mdoc describes."""
    mdoc = read_mdoc(path)
    report = Report()
    # Prior dose counts from the order of acquisition, whatever number the first view has.
    taken = mdoc.views_by_time
    movies = _find_movies(mdoc, taken, user, report)
    sections = [taken[i] for i in movies]
    opened = [open_movie(movie) for movie in movies.values()]
    shape = _common_shape(opened)
    _note_frame_counts(sections, opened, report)
    pixel = acquisition.pixel_size(user, mdoc, shape, opened[0].pixel_size, report)
    constants = Acquisition(
        voltage=acquisition.voltage(user, mdoc, report),
        cs=_or_default("Cs", user.cs, acquisition.CS_MM, report),
        amplitude_contrast=_or_default(
            "amplitude contrast", user.amplitude_contrast, acquisition.AMPLITUDE_CONTRAST, report
        ),
        pixel_size=pixel,
        tilt_axis=acquisition.tilt_axis(user, mdoc, report),
        magnification=user.magnification or _float(sections[0].fields.get("Magnification")),
        gain=_reference("gain", user.gain, report, shape, user.gain_rotate),
        gain_rotation=user.gain_rotate,
        gain_flip=user.gain_flip,
        dark=_reference("dark reference", user.dark, report, shape, user.gain_rotate),
        defects=_defects(user.defects, report, shape),
    )
    # Views whose movies are missing have irradiated the specimen all the same.
    doses = acquisition.dose_of_view(user, mdoc, taken, pixel, report)
    views = [
        View(
            tilt_angle=_tilt_angle(taken[i], path),
            order=i + 1,
            prior_dose=user.initial_dose + sum(doses[:i]),
            dose=doses[i],
            movie=identify(movie),
            frames=frames.n_frames,
        )
        for (i, movie), frames in zip(movies.items(), opened, strict=True)
    ]
    _note_times(sections, report)
    views = _flag_dark(views, sections, user.dark_threshold, report)
    views.sort(key=lambda view: (view.tilt_angle, view.order))
    _note_angles(views, report)
    return TiltSeries(
        name=series_name(path),
        acquisition=constants,
        shape=shape,
        views=tuple(views),
        import_report=tuple(report.fields),
    )


def _find_movies(
    mdoc: Mdoc, views: Sequence[MdocSection], user: ImportParameters, report: Report
) -> dict[int, Path]:
    """Return the movies by the index of their view; only base names count, not the folders."""
    folders = [mdoc.path.parent, mdoc.path.parent / "frames"]
    if user.movies is not None:
        folders = [Path(user.movies).expanduser()]
    found: dict[int, Path] = {}
    missing: list[str] = []
    owners: dict[str, int] = {}
    for i, view in enumerate(views):
        name = view.movie_name
        if name is None:
            raise UnusableData(
                f"{mdoc.path}: [{view.kind} = {view.number}] has no SubFramePath: "
                "add the movie's name to the mdoc"
            )
        if name in owners:
            raise UnusableData(
                f"{mdoc.path}: sections {owners[name]} and {view.number} name the same movie "
                f"{name}: correct one SubFramePath"
            )
        owners[name] = view.number
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if path is None:
            missing.append(name)
        else:
            found[i] = path
    if missing and not (found and user.allow_missing):
        raise UnusableData(
            f"{mdoc.path}: {len(missing)} of {len(views)} movies are missing, the first is "
            f"{folders[0] / missing[0]}: bring them, give their folder by --movies"
            + (", or use --allow-missing" if found else "")
        )
    if not found:
        raise UnusableData(f"{mdoc.path}: has no views: give the mdoc of a tilt series")
    report.add(
        "movies",
        f"{len(found)} of {len(views)}",
        str(next(iter(found.values())).parent),
        f"missing: {', '.join(missing)}" if missing else None,
    )
    return found


def _common_shape(movies: Sequence[Movie]) -> tuple[int, int]:
    first = movies[0]
    for other in movies:
        if (other.ny, other.nx) != (first.ny, first.nx):
            raise UnusableData(
                f"{other.path}: frames of {other.ny}×{other.nx} pixels, but "
                f"{first.path} has {first.ny}×{first.nx}: one series needs one size"
            )
    return first.ny, first.nx


def _note_frame_counts(
    sections: Sequence[MdocSection], movies: Sequence[Movie], report: Report
) -> None:
    counts = sorted({movie.n_frames for movie in movies})
    differ = [
        f"{movie.path.name} has {movie.n_frames}, the mdoc says {section.num_sub_frames}"
        for section, movie in zip(sections, movies, strict=True)
        if section.num_sub_frames not in (None, movie.n_frames)
    ]
    conflict = differ[0] if differ else "the movies differ" if len(counts) > 1 else None
    report.add("frames", ", ".join(map(str, counts)), "movie headers", conflict)


def _note_times(taken: Sequence[MdocSection], report: Report) -> None:
    times = [view.date_time for view in taken]
    if any(time is None for time in times):
        report.add("order", "as in the mdoc", "mdoc", "DateTime is missing in some sections")
        return
    numbers = [view.number for view in taken]
    note = (
        None
        if numbers == sorted(numbers)
        else "DateTime and section numbers disagree; DateTime is used"
    )
    report.add("order", "by DateTime", "mdoc", note)


def _note_angles(views: list[View], report: Report) -> None:
    angles = [view.tilt_angle for view in views]
    close = [f"{a:g}°" for a, b in pairwise(angles) if abs(a - b) < 0.05]
    report.add(
        "tilt angles",
        f"{angles[0]:.2f}° … {angles[-1]:.2f}°, {len(angles)} views",
        "mdoc",
        f"recorded twice: {', '.join(close)}" if close else None,
    )


def _flag_dark(
    views: list[View], sections: Sequence[MdocSection], threshold: float, report: Report
) -> list[View]:
    means = [section.min_max_mean[2] if section.min_max_mean else None for section in sections]
    if any(mean is None for mean in means) or threshold == 0:
        return views
    known = [mean for mean in means if mean is not None]
    flagged = list(views)
    for dark in dark_views(known, [view.tilt_angle for view in views], threshold):
        reason = f"dark: mean {known[dark.index]:.3g} where about {dark.expected:.3g} is expected"
        flagged[dark.index] = views[dark.index].model_copy(update={"excluded": reason})
        angle = views[dark.index].tilt_angle
        report.add("excluded view", f"{angle:.2f}°", "mdoc MinMaxMean", reason)
    return flagged


def _reference(
    what: str,
    path: str | None,
    report: Report,
    shape: tuple[int, int] | None = None,
    rotation: int = 0,
) -> FileIdentity | None:
    if path is None:
        report.add(what, "none", "default")
        return None
    file = Path(path).expanduser()
    if not file.is_file():
        raise UnusableData(f"{file}: no such file: correct the path of the {what}")
    if shape is not None:
        found = read_reference(file).shape
        turned = found[::-1] if rotation % 2 else found
        if turned != shape:
            raise UnusableData(
                f"{file}: {turned[0]}×{turned[1]} pixels as rotated, the movies have "
                f"{shape[0]}×{shape[1]}: give the {what} of these movies, or --gain-rotate"
            )
    report.add(what, file, "user")
    return identify(file)


def _defects(path: str | None, report: Report, shape: tuple[int, int]) -> FileIdentity | None:
    identity = _reference("defects", path, report)
    if identity is not None:
        read_defect_mask(identity.path, shape)  # what cannot be used is refused now, not in a run
    return identity


def _or_default(field: str, user: float | None, default: float, report: Report) -> float:
    return report.choose(field, [("user", user), ("default", default)], tolerance=9e9) or 0.0


def _tilt_angle(section: MdocSection, path: Path) -> float:
    if section.tilt_angle is None:
        raise UnusableData(
            f"{path}: [{section.kind} = {section.number}] has no TiltAngle: add it to the mdoc"
        )
    return section.tilt_angle


def _float(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
