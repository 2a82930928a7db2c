"""``tiltflow subset``: named subsets of series or views, made, shown and deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows import console
from tasks.errors import WrongParameter


def add_to(app: typer.Typer) -> None:
    """Give the command line its command ``subset``."""
    app.command()(subset)


def subset(
    project: Annotated[str, typer.Argument(help="folder or URL of the project")],
    name: Annotated[str | None, typer.Argument(help="of the subset; default: list all")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="condition on columns of qc.csv, repeatable: 'resolution < 8'"),
    ] = None,
    of: Annotated[Literal["series", "views"], typer.Option(help="what it consists of")] = "series",
    series: Annotated[
        str | None, typer.Option(help="tilt series, separated by commas; default: all")
    ] = None,
    from_file: Annotated[
        Path | None, typer.Option(help="file of lines 'TS_01', or of views: 'TS_01 1,3-5'")
    ] = None,
    invert: Annotated[bool, typer.Option("--invert", help="take all others")] = False,
    branch: Annotated[str, typer.Option(help="whose figures are read")] = "main",
    delete: Annotated[bool, typer.Option("--delete", help="delete it; results stay")] = False,
) -> None:
    """Name the good series or views, for the option --subset of other commands."""
    from tasks import subsets

    makes = bool(where or series or from_file)
    if name is None:
        if makes or delete:
            raise WrongParameter("subset: give its name after the project")
        console.table(f"subsets of {project}", subsets.subset_rows(project))
        return
    if delete:
        if makes:
            raise WrongParameter("subset: --delete takes no conditions")
        subsets.delete_subset(project, name)
        console.say(f"subset {name} deleted")
        return
    if makes:
        found = subsets.make_subset(
            project,
            name,
            of,
            where or (),
            [one.strip() for one in series.split(",")] if series else None,
            None if from_file is None else subsets.read_list(from_file),
            invert=invert,
            branch=branch,
        )
    else:
        found = subsets.subset_named(project, name)
    console.table(f"subset {name}, of {found.of}", subsets.member_rows(found))
