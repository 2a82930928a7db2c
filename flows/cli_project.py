"""The commands that read a project, write files from it, or tidy it up; none runs a flow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from flows import console
from flows.cli_common import BranchOption, ProjectArgument, SeriesOption, SubsetOption, names_of
from flows.options import as_yaml, pipeline_from
from flows.presets import PRESETS


def show(
    project: ProjectArgument,
    series: Annotated[str | None, typer.Argument(help="tilt series; default: all in brief")] = None,
    branch: BranchOption = "main",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    subset: SubsetOption = None,
) -> None:
    """Show the record of a project, or of one of its series."""
    from tasks.plan import check_branch
    from tasks.store import parse_project
    from tasks.subset_use import within
    from tasks.tables import project_rows, series_rows

    check_branch(project, branch)
    names = within(project, [series] if series else None, subset, branch)
    if series is None:
        rows = project_rows(project, branch, names)
        print(json.dumps(rows, indent=1)) if as_json else console.table(project, rows)
        return
    record = parse_project(project).series(series).record(branch)
    if as_json:
        print(record.model_dump_json(indent=1))
    else:
        console.table(f"{series}, branch {branch}", series_rows(record))


def status(
    project: ProjectArgument, branch: BranchOption = "main", subset: SubsetOption = None
) -> None:
    """Show which steps of which series are done."""
    from tasks.plan import check_branch
    from tasks.subset_use import within
    from tasks.tables import status_rows

    check_branch(project, branch)
    rows, reasons = status_rows(project, branch, within(project, None, subset, branch))
    console.table(f"{project}, branch {branch}", rows)
    for line in reasons:
        console.say(line)


def report(
    project: ProjectArgument,
    branch: BranchOption = "main",
    out: Annotated[Path, typer.Option(help="folder of report.html and qc.csv")] = Path("report"),
    subset: SubsetOption = None,
) -> None:
    """Write an HTML report with tables, plots and slices, and qc.csv."""
    from tasks.report import write_report
    from tasks.subset_use import within

    console.say(str(write_report(project, branch, out, within(project, None, subset, branch))))


def export(
    project: ProjectArgument,
    to: Annotated[Literal["imod", "aretomo", "novactf", "mrc"], typer.Option(help="the program")],
    out: Annotated[Path, typer.Option(help="folder; each series gets one of its own in it")],
    series: SeriesOption = None,
    branch: BranchOption = "main",
    subset: SubsetOption = None,
    mode: Annotated[
        int | None,
        typer.Option(
            help="MRC mode of tomograms: 2, 12, 1 or 0; as stored by default, floats as 2"
        ),
    ] = None,
) -> None:
    """Write files for other programs."""
    from flows.several import each
    from tasks.export import export_series
    from tasks.plan import chosen_series
    from tasks.subset_use import within

    def write(name: str) -> None:
        files = export_series(project, name, branch, to, out, say=console.say, mode=mode)
        console.say(f"{name}: {len(files)} files in {files[0].parent}")

    each(chosen_series(project, within(project, names_of(series), subset, branch)), write)


def config(
    preset: Annotated[str, typer.Option(help=" or ".join(PRESETS))] = "default",
) -> None:
    """Print all parameters as a commented YAML file."""
    print(as_yaml(pipeline_from(preset, None, None)))


def prune(
    project: ProjectArgument,
    yes: Annotated[bool, typer.Option("--yes", help="do it; otherwise only show them")] = False,
) -> None:
    """Remove the results that no branch reaches."""
    from tasks.prune import prune as remove
    from tasks.prune import unreachable

    lost = unreachable(project)
    rows = [{"result": result.path, "MB": result.size() / 1e6} for result in lost]
    console.table("no branch reaches", rows)
    if not yes:
        console.say("add --yes to remove them" if rows else "nothing to remove")
        return
    console.say(f"{remove(project) / 1e6:.1f} MB freed")
