"""Stacks of the erased views for other programs: reduced, normalised, cropped, tapered."""

from __future__ import annotations

from kernels.fourier import Shape
from kernels.reduce import reduced_shape
from kernels.views import dark_views
from tasks.chunks.stacks import memory_of_preprocessing, preprocess_view
from tasks.errors import WrongParameter
from tasks.parameters import LEAST_PIXELS, Execution, PreprocessParameters
from tasks.result import Result
from tasks.scatter import Unit
from tasks.work import Outcome, Work, begin, step_task

NEARLY_EMPTY = 0.2  # of the expected mean: less is noise, whatever the exclusion has let pass


@step_task("preprocess")
def preprocess(
    project: str,
    series: str,
    parameters: PreprocessParameters = PreprocessParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Reduce, normalise, crop and taper the views, one worker per view.

    Writes ``images`` (section, y, x), sorted by tilt angle; the table tells which view a section
    is and whether it is left out. Dark views and those left out are never scaled up.
    """
    work = begin("preprocess", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    source, views = work.input("erase"), work.record.views
    shape = (source.images().shape[1], source.images().shape[2])
    used = _cropped(series, shape, parameters)
    reduced = checked_size(series, "preprocess", used, parameters.binning)
    sections = kept_views(work, parameters.excluded)
    work.result.create_array(
        "images", (len(sections), *reduced), (1, *reduced), axes=("view", "y", "x")
    )
    doubtful = _doubtful(work)
    reports = work.scatter(
        preprocess_view,
        [
            Unit(
                f"view-{i:03d}",
                (
                    source,
                    work.result,
                    i,
                    section,
                    parameters,
                    _nearest_good(i, doubtful, len(views)),
                ),
            )
            for section, i in enumerate(sections)
        ],
        memory=memory_of_preprocessing(shape, reduced),
    )
    pixel_size = work.image_pixel_size * parameters.binning
    dim = sum(i in doubtful for i in sections)
    told = f"{len(sections)} views of {reduced[1]}×{reduced[0]} pixels of {pixel_size:.4g} Å"
    return work.finish(
        told + (f", {dim} of them dark or left out" if dim else ""),
        table=[
            {
                "view": i + 1,
                "section": section,
                "tilt angle [°]": views[i].tilt_angle,
                "excluded": views[i].excluded or "",
                **reports[f"view-{i:03d}"],
            }
            for section, i in enumerate(sections, 1)
        ],
        extra={
            "pixel_size": pixel_size,
            "binning": parameters.binning,
            "dose_weighted": is_weighted(work, source),
            "tilt_angles": [views[i].tilt_angle for i in sections],
        },
    )


def is_weighted(work: Work, source: Result) -> bool:
    """Tell whether stored images are weighted by dose, by the dose step or before the import."""
    before = work.record.acquisition.dose_weighted
    return bool(source.attributes().get("dose_weighted", before))


def kept_views(work: Work, excluded: str) -> list[int]:
    """Return the views that a stack has: all, or without those that are left out."""
    return list(range(len(work.record.views))) if excluded == "keep" else [*work.record.included]


def checked_size(series: str, step: str, shape: Shape, binning: float) -> Shape:
    """Return the size of reduced views.

    Raises
    ------
    WrongParameter
        If they are too small to be of use.
    """
    if min(shape) < LEAST_PIXELS * binning:
        raise WrongParameter(
            f"{series}: binning {binning:g} leaves less than {LEAST_PIXELS} pixels of "
            f"{shape[0]}×{shape[1]}: use a smaller {step}.binning"
        )
    return reduced_shape(shape, binning)


def _cropped(series: str, shape: Shape, parameters: PreprocessParameters) -> Shape:
    crop = parameters.crop
    if crop is not None and (crop[0] > shape[0] or crop[1] > shape[1]):
        raise WrongParameter(
            f"{series}: crop {crop[0]}×{crop[1]} of images of {shape[0]}×{shape[1]} pixels: "
            "use a smaller preprocess.crop"
        )
    return crop or shape


def _doubtful(work: Work) -> set[int]:
    """Return the views that are left out or nearly empty."""
    views = work.record.views
    means = work.input("motion").attributes()["means"]
    empty = dark_views(means, [view.tilt_angle for view in views], NEARLY_EMPTY)
    left_out = {i for i, view in enumerate(views) if view.excluded is not None}
    return left_out | {view.index for view in empty}


def _nearest_good(index: int, doubtful: set[int], views: int) -> int | None:
    """Return the view in good order that is nearest to a doubtful one, else None."""
    good = [i for i in range(views) if i not in doubtful]
    if index not in doubtful or not good:
        return None
    return min(good, key=lambda i: abs(i - index))
