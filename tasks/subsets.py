"""Named subsets of a project: series, or views of series, by conditions on qc.csv or by list.

``subsets/NAME.json`` in the project says who belongs to it: it is settled when it is made, and
stays as it is when figures change later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.conditions import Condition, plain, read_condition
from tasks.errors import NotThere, UnusableData, WrongParameter
from tasks.exclude import view_list
from tasks.formats.files import read_lines
from tasks.plan import check_branch, chosen_series
from tasks.store import Project, checked_name, parse_project
from tasks.tables import Row, qc_rows

FOLDER = "subsets"
EXTRA = ("views", "views_excluded")  # figures of a series beside those of its views


class Subset(BaseModel):
    """A named subset.

    Attributes
    ----------
    name, of
    where, branch
        Conditions that all its members met, and the branch whose figures were read.
    series
        The series that belong to it; of one of views, those with views in it.
    views
        Series → views, from 1, sorted by tilt, that belong to it; empty in one of series.
    out
        Series → views that do not, though the branch used them.
    movies
        Series → digest of the movies that the numbers of the views refer to.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    of: Literal["series", "views"]
    series: tuple[str, ...]
    where: tuple[str, ...] = ()
    branch: str = "main"
    views: dict[str, tuple[int, ...]] = {}
    out: dict[str, tuple[int, ...]] = {}
    movies: dict[str, str] = {}
    made: str = ""


def make_subset(
    project: str,
    name: str,
    of: Literal["series", "views"] = "series",
    where: Sequence[str] = (),
    series: Sequence[str] | None = None,
    listed: Mapping[str, str] | None = None,
    *,
    invert: bool = False,
    branch: str = "main",
) -> Subset:
    """Make or replace a subset of a project.

    Parameters
    ----------
    project, name
    of : {"series", "views"}
        What its members are.
    where : sequence of str
        Conditions on columns of qc.csv, see `tasks.conditions`; members meet all of them. A column
        stands for the value of a view, or the median over the included views of a series; a value
        that is missing meets no condition.
    series : sequence of str, optional
        The series that are looked at; by default all.
    listed : mapping of str to str, optional
        The members that are looked at as a list has them: series → views such as ``1,3-5``, or
        nothing for all of its views; see `read_list`.
    invert : bool
        Take the others: of those series that are looked at, what would not be in the subset.
    branch : str
        Whose figures are read.

    Raises
    ------
    NotThere, WrongParameter
        If a series or column does not exist, or if nothing is in the subset.
    """
    checked_name("subset", name)
    check_branch(project, branch)
    project_of = parse_project(project)
    looked_at = chosen_series(project, list(series) if series else None)
    if listed is not None:
        chosen_series(project, list(listed))
        if of == "series" and any(listed.values()):
            raise WrongParameter(f"subset {name}: the list names views: add --of views")
    if not (where or series or listed):
        raise WrongParameter(f"subset {name}: of what? give --where, --series or --from-file")
    rows = {one: qc_rows(project_of.series(one), branch) for one in looked_at}
    columns = dict.fromkeys(c for of_series in rows.values() for row in of_series for c in row)
    extra = EXTRA if of == "series" else ()
    conditions = [read_condition(text, (*columns, *extra)) for text in where]
    values: dict[str, Any] = {"name": name, "of": of, "where": where, "branch": branch}
    values["made"] = datetime.now(UTC).isoformat(timespec="seconds")
    if of == "series":
        among = looked_at if listed is None else [one for one in looked_at if one in listed]
        meets = {one for one in among if _series_meets(conditions, rows[one])}
        subset = Subset(series=[one for one in looked_at if (one in meets) != invert], **values)
    else:
        views, out = _views(rows, conditions, listed, invert)
        members = [one for one in looked_at if views[one]]
        subset = Subset(
            series=members,
            views={one: views[one] for one in members},
            out={one: out[one] for one in members},
            movies={one: project_of.series(one).movies_digest() for one in members},
            **values,
        )
    if not subset.series:
        raise WrongParameter(f"subset {name}: nothing is in it: loosen what it asks for")
    project_of.write_json(_path(name), subset.model_dump(mode="json"))
    return subset


def _series_meets(conditions: Iterable[Condition], rows: Sequence[Row]) -> bool:
    included = [row for row in rows if row["included"]]
    middle: dict[str, Any] = {column: _middle(column, included) for row in rows for column in row}
    middle |= {"views": len(rows), "views_excluded": len(rows) - len(included)}
    return all(condition.holds(middle, included) for condition in conditions)


def _middle(column: str, rows: Sequence[Row]) -> Any:
    """Return a column's median over views; of what has none, the value that all views have."""
    values = [value for row in rows if (value := plain(row.get(column))) is not None]
    numbers = [value for value in values if isinstance(value, float)]
    if numbers:
        return median(numbers)
    return values[0] if len(set(values)) == 1 else None


def _views(
    rows: Mapping[str, Sequence[Row]],
    conditions: Sequence[Condition],
    listed: Mapping[str, str] | None,
    invert: bool,
) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Return the included views that are in a subset, and those that are not, by series.

    Without conditions the list alone counts, and views that the branch leaves out count too.
    """
    inside: dict[str, list[int]] = {}
    out: dict[str, list[int]] = {}
    for name, of_series in rows.items():
        included = [row for row in of_series if row["included"]]
        inside[name], out[name] = [], []
        named = _named(listed, name, len(of_series))
        for row in included if conditions else of_series:
            meets = row["view"] in named and all(c.holds(row, included) for c in conditions)
            (inside if meets != invert else out)[name].append(row["view"])
    return inside, out


def _named(listed: Mapping[str, str] | None, name: str, views: int) -> set[int]:
    if listed is None or listed.get(name) == "":
        return set(range(1, views + 1))
    return {i + 1 for i in view_list(listed[name], name, views)} if name in listed else set()


def read_list(path: Path) -> dict[str, str]:
    """Return what lines such as ``TS_01`` or ``TS_01 1,3-5`` name: series → views, or nothing."""
    listed: dict[str, str] = {}
    for line in read_lines(path):
        name, _, views = line.partition("#")[0].strip().replace("\t", " ").partition(" ")
        if name:
            listed[name] = " ".join(filter(None, (listed.get(name), views.strip())))
    if not listed:
        raise UnusableData(f"{path}: names nothing: write lines such as TS_01, or TS_01 1,3-5")
    return listed


def subset_named(project: str, name: str) -> Subset:
    """Return a subset of a project.

    Raises
    ------
    NotThere
        If there is none of that name.
    """
    of = parse_project(project)
    of.require()
    value = of.read_json(_path(checked_name("subset", name)))
    if value is None:
        known = ", ".join(subset_names(of)) or "none yet: make one with `tiltflow subset`"
        raise NotThere(f"{project}: no subset {name!r} (there are: {known})")
    try:
        return Subset.model_validate(value)
    except ValidationError as error:
        raise UnusableData(
            f"{project}/{_path(name)}: is no subset of this version of tiltflow: make it again"
        ) from error


def subset_names(of: Project) -> list[str]:
    """Return the names of a project's subsets, sorted."""
    return [n.removesuffix(".json") for n in of.names(FOLDER) if n.endswith(".json")]


def subset_rows(project: str) -> list[Row]:
    """Return one row per subset of a project."""
    of = parse_project(project)
    of.require()
    return [
        {
            "subset": one.name,
            "of": one.of,
            "series": len(one.series),
            "views": sum(map(len, one.views.values())) or None,
            "left out": sum(map(len, one.out.values())) if one.of == "views" else None,
            "where": " and ".join(one.where) or "a list",
            "branch": one.branch,
        }
        for one in (subset_named(project, name) for name in subset_names(of))
    ]


def member_rows(subset: Subset) -> list[Row]:
    """Return one row per series of a subset."""
    if subset.of == "series":
        return [{"series": name} for name in subset.series]
    return [
        {
            "series": name,
            "views": ranges(subset.views[name]),
            "left out": ranges(subset.out.get(name, ())),
        }
        for name in subset.series
    ]


def delete_subset(project: str, name: str) -> None:
    """Delete a subset, which must exist; results made with it stay."""
    subset_named(project, name)
    parse_project(project).delete_object(_path(name))


def _path(name: str) -> str:
    return f"{FOLDER}/{name}.json"


def ranges(numbers: Iterable[int]) -> str:
    """Return sorted numbers as ``1,3-5``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)
