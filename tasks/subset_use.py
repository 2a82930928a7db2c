"""What a command takes when it is given a subset: its series, and of one of views, no others."""

from __future__ import annotations

from collections.abc import Iterable

from tasks.errors import WrongParameter
from tasks.parameters import ExcludeParameters, Parameters, Pipeline, SumParameters
from tasks.plan import chosen_series
from tasks.store import Series, parse_project
from tasks.subsets import Subset, ranges, subset_named


def within(
    project: str, series: list[str] | None, subset: str | None, branch: str = "main"
) -> list[str] | None:
    """Return the series that a command takes: those named that are in the subset.

    A subset of views counts as that of its series where the branch leaves out what it leaves out.

    Raises
    ------
    NotThere, WrongParameter
        If there is no such subset, or no series left; of one of views, if the branch uses others.
    """
    if subset is None:
        return series
    found = subset_named(project, subset)
    names = _series_in(project, series, found)
    for name in names if found.of == "views" else ():
        views = _checked(parse_project(project).series(name), found).record(branch).views
        used = [i for i in found.out.get(name, ()) if views[i - 1].excluded is None]
        if used:
            raise WrongParameter(
                f"{name}: branch {branch} uses views {ranges(used)}, which subset {subset!r} "
                f"leaves out: first `tiltflow exclude {project} --branch {branch} --subset "
                f"{subset}`, or take them out in `tiltflow run` by the same option"
            )
    return names


def within_run(
    project: str, series: list[str] | None, subset: str | None, pipeline: Pipeline
) -> tuple[list[str] | None, Pipeline]:
    """Return the series and parameters of a run: its exclude step leaves out what a subset does."""
    if subset is None:
        return series, pipeline
    found = subset_named(project, subset)
    names = _series_in(project, series, found)
    if found.of == "series":
        return names, pipeline
    return names, pipeline.model_copy(
        update={"exclude": _leaving_out(project, names, found, pipeline.exclude)}
    )


def within_step(
    project: str,
    series: list[str] | None,
    subset: str | None,
    parameters: Parameters,
    branch: str,
) -> tuple[list[str] | None, Parameters]:
    """Return the series and parameters of one step; views are left out by exclude alone."""
    if subset is None:
        return series, parameters
    found = subset_named(project, subset)
    if found.of == "views" and isinstance(parameters, ExcludeParameters):
        names = _series_in(project, series, found)
        return names, _leaving_out(project, names, found, parameters)
    if isinstance(parameters, SumParameters):  # comes before any view is left out
        return _series_in(project, series, found), parameters
    return within(project, series, subset, branch), parameters


def _series_in(project: str, series: list[str] | None, subset: Subset) -> list[str]:
    known = parse_project(project).series_names()
    names = [name for name in series or known if name in subset.series]
    if series:
        chosen_series(project, series)
    if not names:
        raise WrongParameter(
            f"subset {subset.name!r} has none of these series: it has {', '.join(subset.series)}"
        )
    return names


def _leaving_out(
    project: str, names: Iterable[str], subset: Subset, parameters: ExcludeParameters
) -> ExcludeParameters:
    of = parse_project(project)
    for name in names:
        _checked(of.series(name), subset)
    lists = {name: ranges(subset.out.get(name, ())) for name in names}
    others = {name: text for name, text in parameters.subset_views.items() if name not in lists}
    kept = {name: text for name, text in {**others, **lists}.items() if text}
    return parameters.model_copy(update={"subset_views": kept})


def _checked(series: Series, subset: Subset) -> Series:
    if subset.movies.get(series.name) != series.movies_digest():
        raise WrongParameter(
            f"{series.name}: subset {subset.name!r} was made from movies imported before, its "
            "views are others: make it again with `tiltflow subset`"
        )
    return series
