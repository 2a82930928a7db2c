"""Import: from what the files say of a tilt series to its record."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext

from kernels.views import dark_views
from tasks import acquisition
from tasks.acquisition import Report
from tasks.artifacts import artifact_key
from tasks.describe import describe
from tasks.description import Description
from tasks.discover import Source
from tasks.errors import UnusableData
from tasks.formats.eer import EerMovie, raw_frames_for_dose
from tasks.formats.mdoc import MdocSection
from tasks.formats.movie_names import split_name
from tasks.formats.movies import Movie, open_movie
from tasks.formats.tilt_list import STEEPEST
from tasks.parameters import ImportParameters
from tasks.record import Acquisition, TiltSeries, View
from tasks.references import Shape, dark_file, defects_file, gain_file, identity_of
from tasks.store import parse_project

OFF_NAME = 1.5  # degrees by which a movie's name may miss the stage's tilt
MOST_HALF_LIT = 2  # frames of a view for which the beam came or went


@task(name="read", task_run_name="read {source.name}", cache_policy=NO_CACHE, persist_result=False)
def read_series(source: Source, user: ImportParameters) -> TiltSeries:
    """Read what the files say of a tilt series, and the headers of its movies.

    Raises
    ------
    UnusableData, FormatError
        Naming the file, the value and the remedy.
    """
    told = describe(source, user)
    report = Report()
    for line in told.doubts:
        report.add(*line)
    files = {
        path: open_movie(path, eer_fractions=1, eer_sampling=user.eer_sampling)
        for path in dict.fromkeys(told.files.values())
    }
    opened = {i: files[path] for i, path in told.files.items()}
    movies = list(opened.values())
    report.add(
        "stack" if told.is_stack else "movies",
        told.files[0] if told.is_stack else f"{len(movies)} of {len(told.views)}",
        str(movies[0].path.parent),
        f"missing: {', '.join(told.missing)}" if told.missing else None,
    )
    shape = _common_shape(movies)
    eer = any(isinstance(movie, EerMovie) for movie in movies)
    sampling = user.eer_sampling if eer else 1
    pixel = acquisition.pixel_size(user, told, shape, movies[0].pixel_size, sampling, report)
    constants = Acquisition(
        voltage=acquisition.voltage(user, told, report),
        cs=_or_default("Cs", user.cs, acquisition.CS_MM, report, " mm"),
        amplitude_contrast=_or_default(
            "amplitude contrast", user.amplitude_contrast, acquisition.AMPLITUDE_CONTRAST, report
        ),
        pixel_size=pixel,
        tilt_axis=acquisition.tilt_axis(user, told, report),
        magnification=user.magnification or _float(told.views[0].fields.get("Magnification")),
        gain=gain_file(user, report, shape),
        gain_rotation=user.gain_rotate,
        gain_flip=user.gain_flip,
        gain_inverted=user.gain_inverted,
        dark=dark_file(user, report, shape),
        defects=defects_file(user, report, shape),
        eer_sampling=sampling,
        dose_weighted=user.dose_weighted,
        ctf_corrected=acquisition.ctf_corrected(user, told, report),
    )
    if user.dose_weighted:
        report.add("dose weighting", "before the import", "user")
    doses = acquisition.dose_of_view(user, told, pixel, report)
    prior = acquisition.prior_doses(user, told, doses, report)
    ranges = _frame_ranges(told, opened, report)
    frames = {i: _frames_of(movie, ranges.get(i), doses[i], user) for i, movie in opened.items()}
    _note_frame_counts(told, opened, frames, user, report)
    views = [
        View(
            tilt_angle=_tilt_angle(told.views[i]),
            order=told.orders[i],
            prior_dose=prior[i],
            dose=doses[i],
            movie=identity_of(path),
            first_frame=frames[i][0] + 1,
            frames=frames[i][1],
            grouping=frames[i][2],
        )
        for i, path in told.files.items()
    ]
    _note_times(told, report)
    views = _flag_dark(views, [told.views[i] for i in opened], user.dark_threshold, report)
    views.sort(key=lambda view: (view.tilt_angle, view.order))
    _note_angles(views, told.said_by, report)
    return TiltSeries(
        name=source.name,
        acquisition=constants,
        shape=shape,
        views=tuple(views),
        import_report=tuple(report.fields),
    )


@task(
    name="import", task_run_name="import {record.name}", cache_policy=NO_CACHE, persist_result=False
)
def store_series(project: str, record: TiltSeries) -> TiltSeries:
    """Store an imported record.

    Results that exist for the series stay; a field that changes makes only those steps stale
    that read it.
    """
    parse_project(project).add_series(record)
    if TaskRunContext.get() is not None:
        create_table_artifact(
            key=artifact_key(record.name, "import"),
            table=[line.model_dump() for line in record.import_report],
            description=f"{record.name}: where each field of the record comes from",
        )
    return record


# -- frames ---------------------------------------------------------------------------------------


def _frame_ranges(
    told: Description, opened: dict[int, Movie], report: Report
) -> dict[int, tuple[int, int]]:
    """Return the frames, from 0, of views that have a part of a file.

    SerialEM may save no frames while the beam is off, and yet counts them.
    """
    if told.is_stack:
        return {i: (view.number, view.number + 1) for i, view in enumerate(told.views)}
    asked = {i: r for i in opened if (r := told.views[i].frame_range) is not None}
    if not asked:
        return {}
    movie = opened[next(iter(asked))]
    last, lit = max(end for _, end in asked.values()), sum(b - a for a, b in asked.values())
    if last <= movie.n_frames:
        return asked
    rest = movie.n_frames - lit
    if not 0 <= rest <= MOST_HALF_LIT * len(asked):
        raise UnusableData(
            f"{told.path}: tells of {last} frames, {lit} of them with the beam on, {movie.path} "
            f"has {movie.n_frames}: bring the whole movie"
        )
    ranges, start = {}, 0
    for n, (i, (a, b)) in enumerate(sorted(asked.items(), key=lambda item: item[1])):
        before = start + round(rest * (n + 0.5) / len(asked))
        ranges[i] = (before, before + b - a)
        start += b - a
    report.add(
        "frames of the views",
        f"{lit} of {movie.n_frames}, one view after the other",
        "mdoc FrameTSStartEndFrames",
        f"counts to {last}: blank frames were not saved, bounds may be off by {max(1, rest)}",
    )
    return ranges


def _frames_of(
    movie: Movie,
    frames: tuple[int, int] | None,
    dose: float,
    user: ImportParameters,
) -> tuple[int, int, int]:
    """Return the first frame, from 0, the number of frames, and the raw frames in each."""
    if frames is not None:
        return frames[0], frames[1] - frames[0], 1
    if not isinstance(movie, EerMovie):
        return 0, movie.n_frames, 1
    grouping = user.eer_grouping or raw_frames_for_dose(movie.n_raw, dose, user.eer_dose)
    if grouping > movie.n_raw:
        raise UnusableData(
            f"{movie.path}: has {movie.n_raw} raw frames, fewer than the {grouping} that "
            "--eer-grouping puts into one frame: choose fewer"
        )
    return 0, movie.n_raw // grouping, grouping


def _note_frame_counts(
    told: Description,
    opened: dict[int, Movie],
    frames: dict[int, tuple[int, int, int]],
    user: ImportParameters,
    report: Report,
) -> None:
    if told.is_stack:
        return
    counts = sorted({count for _, count, _ in frames.values()})
    differ, rest = [], []
    for i, movie in opened.items():
        first, count, grouping = frames[i]
        listed = told.views[i].num_sub_frames
        held = movie.n_raw if isinstance(movie, EerMovie) else movie.n_frames
        if told.views[i].frame_range is None and listed not in (None, held):
            differ.append(f"{movie.path.name} has {held}, the mdoc says {listed}")
        if isinstance(movie, EerMovie) and held > first + count * grouping:
            rest.append(f"{held - count * grouping} of {held} raw frames")
    conflict = differ[0] if differ else "the movies differ" if len(counts) > 1 else None
    report.add("frames", ", ".join(map(str, counts)), "movie headers", conflict)
    if any(isinstance(movie, EerMovie) for movie in opened.values()):
        groups = sorted({grouping for _, _, grouping in frames.values()})
        report.add(
            "raw frames in a frame",
            ", ".join(map(str, groups)),
            "dose of the views" if user.eer_grouping is None else "user",
            f"not used at the end: {rest[0]}" if rest else None,
        )


def _common_shape(movies: Sequence[Movie]) -> Shape:
    first = movies[0]
    for other in movies:
        if (other.ny, other.nx) != (first.ny, first.nx):
            raise UnusableData(
                f"{other.path}: frames of {other.ny}×{other.nx} pixels, but "
                f"{first.path} has {first.ny}×{first.nx}: one series needs one size"
            )
    return first.ny, first.nx


# -- what is doubtful -----------------------------------------------------------------------------


def _note_times(told: Description, report: Report) -> None:
    if any(field == "order" for field, *_ in told.doubts):
        return
    numbers = [view.number for view in told.views]
    doubt = None
    if told.order_by == "mdoc" and any(view.frame_range is None for view in told.views):
        doubt = "DateTime is missing in some sections: taken in the order of their numbers"
    elif told.order_by == "DateTime" and numbers != sorted(numbers):
        doubt = "DateTime and section numbers disagree; DateTime is used"
    times = [view.date_time for view in told.views]
    same = [str(a) for a, b in pairwise(times) if a is not None and a == b]
    if same and doubt is None:
        doubt = f"two views were taken at {same[0]}"
    report.add("order", f"by {told.order_by}", told.said_by, doubt)


def _note_angles(views: list[View], said_by: str, report: Report) -> None:
    angles = [view.tilt_angle for view in views]
    close = [f"{a:g}°" for a, b in pairwise(angles) if abs(a - b) < 0.05]
    doubts = [f"recorded twice: {', '.join(dict.fromkeys(close))}"] if close else []
    for view in views:
        named = split_name(view.movie.name)
        if named is not None and abs((named.angle or 0.0) - view.tilt_angle) > OFF_NAME:
            doubts.append(f"{view.movie.name} is said to be at {view.tilt_angle:g}°")
    report.add(
        "tilt angles",
        f"{angles[0]:.2f}° … {angles[-1]:.2f}°, {len(angles)} views",
        said_by,
        "; ".join(doubts[:3]) or None,
    )


def _flag_dark(
    views: list[View], sections: Sequence[MdocSection], threshold: float, report: Report
) -> list[View]:
    means = {i: told.min_max_mean[2] for i, told in enumerate(sections) if told.min_max_mean}
    flagged = list(views)
    if not means or threshold == 0:
        return flagged
    known = list(means)
    angles = [views[i].tilt_angle for i in known]
    for dark in dark_views(list(means.values()), angles, threshold):
        i = known[dark.index]
        reason = f"dark: mean {means[i]:.3g} where about {dark.expected:.3g} is expected"
        flagged[i] = views[i].model_copy(update={"excluded": reason})
        report.add("excluded view", f"{angles[dark.index]:.2f}°", "mdoc MinMaxMean", reason)
    return flagged


# -- values ---------------------------------------------------------------------------------------


def _or_default(
    field: str, user: float | None, default: float, report: Report, unit: str = ""
) -> float:
    return report.choose(field, [("user", user), ("default", default)], unit, 9e9) or 0.0


def _tilt_angle(section: MdocSection) -> float:
    angle = section.tilt_angle
    if angle is None or abs(angle) > STEEPEST:
        raise UnusableData(
            f"{section.path}: [{section.kind} = {section.number}] has TiltAngle = {angle}: "
            "correct it"
        )
    return angle


def _float(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if isfinite(value) and value > 0 else None
