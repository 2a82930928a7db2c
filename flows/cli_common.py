"""What the commands of the command line share: options, and how a flow is run."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from typing import Annotated, Any

import typer

from flows import console
from flows.options import validated
from tasks.errors import UserError, one_line
from tasks.parameters import Execution

ProjectArgument = Annotated[str, typer.Argument(help="folder or URL of the project")]
BranchOption = Annotated[str, typer.Option(help="name under which results are kept together")]
SeriesOption = Annotated[
    str | None, typer.Option(help="tilt series, separated by commas; default: all")
]
SubsetOption = Annotated[
    str | None, typer.Option(help="named subset of the project: see `tiltflow subset`")
]
ClusterOption = Annotated[
    str,
    typer.Option(
        envvar="TILTFLOW_CLUSTER",
        help="auto, local, cuda, threads, slurm, kubernetes, or a scheduler's address tcp://…",
    ),
]
WorkersOption = Annotated[int | None, typer.Option(help="workers; default: one per GPU or core")]
ThreadsOption = Annotated[
    int | None, typer.Option(help="threads of one worker; default: 1, or a GPU's share of cores")
]
GpusOption = Annotated[str | None, typer.Option(help="GPUs to use, e.g. 0,1, or none")]
MemoryOption = Annotated[str | None, typer.Option(help="memory of one worker, e.g. 8GB")]


PATIENCE = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"


class NoServer(UserError):
    """Prefect's embedded server did not start."""


def names_of(series: str | None) -> list[str] | None:
    """Return the names in a list separated by commas; None for all."""
    return [name.strip() for name in series.split(",")] if series else None


def execution_of(
    cluster: str,
    workers: int | None,
    threads: int | None,
    gpus: str | None,
    memory: str | None,
) -> Execution:
    """Return how a run is executed, as the options say."""
    values = {"cluster": cluster, "workers": workers, "threads": threads, "gpus": gpus}
    return validated(Execution, {**values, "memory": memory})


def run_flow(flow: Callable[..., Any], *arguments: Any) -> Any:
    """Run a flow in this process, on Prefect's embedded server unless one is configured."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows import asking
    from flows.approval import Answer, Question, asked_by

    one_at_a_time = Lock()  # several series may be under way

    def ask(question: Question) -> Answer:
        with one_at_a_time:
            bars.stop()  # or they would write over what is typed
            try:
                return asking.ask(question)
            finally:
                bars.start()

    # Without this, every flow run ends with a second of waiting for its heartbeat's thread.
    with (
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
        console.following() as bars,
        asked_by(ask if asking.in_terminal() else None),
    ):
        try:
            return flow(*arguments)
        except RuntimeError as error:
            if "ephemeral Prefect API server" not in str(error):
                raise
            raise NoServer(
                "Prefect's embedded server does not answer: try again when the machine is less "
                "busy, allow more than "
                f"{PATIENCE}={os.environ.get(PATIENCE)}, or name a server by PREFECT_API_URL: "
                f"{one_line(error)}"
            ) from error
