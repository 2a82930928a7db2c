"""The command line: each command runs the Prefect flow of the same name."""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import cli_project, console, subset_command
from flows.cli_common import (
    BranchOption,
    ClusterOption,
    GpusOption,
    MemoryOption,
    ProjectArgument,
    SeriesOption,
    SubsetOption,
    ThreadsOption,
    WorkersOption,
    execution_of,
    names_of,
    run_flow,
)
from flows.cli_run import of_branches, request_before, run
from flows.options import changes_from, options_of, pipeline_from
from flows.presets import PRESETS
from tasks.errors import UserError, WrongParameter, one_line
from tasks.formats.errors import FormatError
from tasks.parameters import (
    GainFlip,
    ImportParameters,
    Parameters,
    Pipeline,
    SumParameters,
)
from tasks.steps import STEPS
from tasks.truth import SimulationParameters
from tasks.watch import WatchParameters

app = typer.Typer(
    name="tiltflow",
    help="Cryo-electron tomography: from raw movies to tomograms.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        console.say(f"tiltflow {version('tiltflow')}")
        raise typer.Exit


@app.callback()
def _whole(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="tell it, and end"),
    ] = False,
) -> None:
    """Cryo-electron tomography: from raw movies to tomograms."""


def main() -> None:
    """Run the command line; a user's error is one line, and every failure exits non-zero."""
    # Runs, states and tracebacks go to Prefect's own log, which its UI shows; Prefect reads this
    # when it is imported, which the commands do as late as they can.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    # A service that is stopped ends as by Ctrl-C, or Prefect's embedded server would outlive it.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(standalone_mode=False)  # Typer returns the code of an Exit or an interrupt
        if code == 130:
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except typer.Exit as ended:
        sys.exit(ended.exit_code)
    except typer.Abort:
        console.complain("stopped")
        sys.exit(130)
    except KeyboardInterrupt:
        console.complain("stopped; what is done is kept, and the next run goes on from there")
        sys.exit(130)
    except (UserError, FormatError, OSError) as error:
        console.complain(one_line(error))
        sys.exit(1)
    except Exception as error:
        if not hasattr(error, "format_message"):  # neither Typer's complaint about an option …
            raise  # … nor foreseen: a fault of tiltflow, whose traceback is wanted
        console.complain(error.format_message())
        sys.exit(2)


@app.command("import")
@options_of(ImportParameters)
def import_command(project: ProjectArgument, parameters: ImportParameters) -> None:
    """Import tilt series: movies listed by mdocs or named by a pattern, or stacks."""
    from flows.session import import_series
    from flows.several import SomeSeriesFailed

    try:
        records = run_flow(import_series, project, parameters)
    except SomeSeriesFailed as failed:
        console.import_reports(failed.done)
        raise
    console.import_reports(records)


app.command()(run)


def _add_step_command(name: str, model: type[Parameters], about: str) -> None:
    @options_of(model)
    def step_command(
        project: ProjectArgument,
        parameters: Any,
        series: SeriesOption = None,
        branch: BranchOption = "main",
        cluster: ClusterOption = "auto",
        workers: WorkersOption = None,
        threads: ThreadsOption = None,
        gpus: GpusOption = None,
        memory: MemoryOption = None,
        subset: SubsetOption = None,
    ) -> None:
        from flows import steps

        execution = execution_of(cluster, workers, threads, gpus, memory)
        chosen = project, parameters, names_of(series), branch, execution, subset
        run_flow(getattr(steps, name), *chosen)

    app.command(name, help=f"{about[0].upper()}{about[1:]}.")(step_command)


for _name, _step in STEPS.items():
    _add_step_command(_name, type(getattr(Pipeline(), _name)), _step.about)
_add_step_command("average", SumParameters, "sum the frames of each movie without aligning them")

for _command in (
    cli_project.show,
    cli_project.status,
    cli_project.report,
    cli_project.export,
    cli_project.config,
    cli_project.prune,
):
    app.command()(_command)


@app.command()
def gain(
    movies: Annotated[str, typer.Argument(help="movies (MRC, TIFF, EER): 'frames/*.mrc'")],
    out: Annotated[Path | None, typer.Option(help="make a gain reference: this file")] = None,
    check: Annotated[Path | None, typer.Option(help="judge the orientation of this one")] = None,
    gain_rotate: Annotated[int, typer.Option(min=0, max=3, help="how it is said to lie")] = 0,
    gain_flip: Annotated[GainFlip, typer.Option(help="and flipped, after the rotation")] = "none",
    gain_inverted: Annotated[bool, typer.Option(help="it is said to divide the counts")] = False,
    dark: Annotated[Path | None, typer.Option(help="dark reference: counts of each frame")] = None,
    cluster: ClusterOption = "auto",
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    gpus: GpusOption = None,
    memory: MemoryOption = None,
) -> None:
    """Make a gain reference from movies (--out), or judge how one lies (--check)."""
    if (out is None) == (check is None):
        raise WrongParameter("gain: give either --out to make one, or --check to judge one")
    if out is not None and (gain_rotate, gain_flip, gain_inverted) != (0, "none", False):
        raise WrongParameter(
            "gain: a gain made by --out lies as the movies: leave out --gain-rotate, --gain-flip "
            "and --gain-inverted"
        )
    from flows.gain import check_gain, make_gain

    execution = execution_of(cluster, workers, threads, gpus, memory)
    dark_file = None if dark is None else str(dark)
    if out is not None:
        console.say(run_flow(make_gain, movies, str(out), dark_file, execution).message)
        return
    lies = (gain_rotate, gain_flip, gain_inverted)
    found = run_flow(check_gain, movies, str(check), *lies, dark_file, execution)
    console.say(f"{check}: {found.message}")
    if found.verdict == "another is better":
        sys.exit(1)  # typer.Exit would be swallowed: the app does not run standalone


@app.command()
@options_of(WatchParameters)
def watch(
    directory: Annotated[str, typer.Argument(help="folder that the microscope writes")],
    parameters: WatchParameters,
    project: Annotated[
        str | None, typer.Option(help="project; default: tiltflow.zarr in the folder")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file: see `tiltflow config`")] = None,
    preset: Annotated[str | None, typer.Option(help=" or ".join(PRESETS))] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="step.parameter=value, e.g. motion.binning=2")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="last step wanted: import, " + ", ".join(STEPS))
    ] = None,
    branch: BranchOption = "main",
    also: Annotated[
        str | None, typer.Option(help="further steps, e.g. preprocess,transform,thickness,ctf3d")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="take what is whole now, and end")] = False,
    stay: Annotated[
        bool, typer.Option("--stay", help="take what comes until nothing is waited for, and end")
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="try again what has failed, though it is the same")
    ] = False,
    cluster: ClusterOption = "auto",
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    gpus: GpusOption = None,
    memory: MemoryOption = None,
) -> None:
    """Import and process tilt series as a microscope writes them.

    A preset of several branches is taken whole, as by `tiltflow run`.
    """
    from flows.watch import project_of
    from flows.watch import watch as run_watch
    from tasks.store import parse_project

    into = project_of(directory, project)
    known = not (preset or config) and parse_project(into).exists()
    before = request_before(into, branch) if known else None
    pipeline = pipeline_from(preset, config, set_, before)
    execution = execution_of(cluster, workers, threads, gpus, memory)
    whole = of_branches(preset) and not (until or also)
    run_flow(
        *(run_watch, directory, into, parameters, pipeline, branch, until, once, retry, execution),
        *(stay, names_of(also)),
        *((preset, changes_from(config, set_)) if whole else ()),
    )


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="of the server, on this machine alone")] = 4200,
    limit: Annotated[int, typer.Option(min=1, help="runs at a time")] = 1,
) -> None:
    """Serve all flows in a browser: runs, schedules, forms, approval (Ctrl-C ends it)."""
    from flows.serving import serve_all

    where = os.environ.get("PREFECT_API_URL", f"http://127.0.0.1:{port}/api").removesuffix("/api")
    console.say(f"open {where} when it answers, in half a minute")
    serve_all(port, limit)


@app.command()
@options_of(SimulationParameters)
def simulate(
    directory: Annotated[Path, typer.Argument(help="folder of movies, mdocs, gain and truth.json")],
    parameters: SimulationParameters,
    cluster: ClusterOption = "auto",
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    gpus: GpusOption = None,
    memory: MemoryOption = None,
) -> None:
    """Simulate tilt-series movies with known truth, laid out as EMPIAR-10164."""
    from tasks.cluster import opened
    from tasks.simulate import simulate_dataset

    with opened(execution_of(cluster, workers, threads, gpus, memory)) as running:
        truth = simulate_dataset(directory, parameters, running)
    console.say(f"{directory}: {', '.join(series.name for series in truth.series)}")


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(help="a new folder")] = Path("tiltflow-demo"),
    seed: Annotated[int, typer.Option(help="changes everything that is random")] = 1,
    cluster: ClusterOption = "auto",
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    gpus: GpusOption = None,
    memory: MemoryOption = None,
) -> None:
    """Simulate a small data set, process it, and compare with the truth."""
    from flows.demo import Files, judge
    from flows.demo import demo as run_demo

    execution = execution_of(cluster, workers, threads, gpus, memory)
    lines = run_flow(run_demo, str(directory), seed, execution)
    rows = [
        {
            "series": line.series,
            "": line.what,
            "found": line.found,
            "limit": f"{'≥' if line.least else '≤'} {line.limit:g} {line.unit}",
            "passed": line.passed,
        }
        for line in lines
    ]
    console.table("found against the truth", rows)
    files = Files(directory)
    console.say(f"report    {files.report / 'report.html'}")
    console.say(f"project   {files.project} (tiltflow status, show, export …)")
    console.say(f"movies    {files.data}")
    judge(lines)


subset_command.add_to(app)

if __name__ == "__main__":
    main()
