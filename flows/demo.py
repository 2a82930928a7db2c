"""The demonstration: simulate movies with known truth, process them, compare."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.session import import_series, session
from tasks import cluster
from tasks.errors import UserError, WrongParameter
from tasks.parameters import Execution, ImportParameters, Pipeline
from tasks.report import write_report
from tasks.simulate import simulate_dataset
from tasks.truth import SimulationParameters
from tasks.verify import Line, compare


class DemoMissed(UserError):
    """A line of the comparison with the truth missed its limit."""


@flow(name="demo", persist_result=False)
def demo(directory: str, seed: int = 1, execution: Execution = Execution()) -> list[Line]:
    """Simulate two tilt series, take them to tomograms, and compare with the truth.

    Parameters
    ----------
    directory
        New folder, or that of an interrupted demo with the same seed, which goes on
    seed
        Changes everything that is random
    execution
        Where and how wide the work is executed; never changes a result

    Returns
    -------
    list of Line
        What was found against the truth, with the limit for each line.

    Raises
    ------
    WrongParameter
        If the folder holds something else.
    """
    files = Files(Path(directory).expanduser().absolute())
    parameters = SimulationParameters(seed=seed)
    files.check(parameters)
    with cluster.opened(execution) as running:
        truth = simulate_dataset(files.data, parameters, running)
        imported = ImportParameters(
            mdoc=str(files.data / "*.mdoc"), gain=str(files.data / "gain.mrc")
        )
        import_series(files.project, imported)
        session(files.project, Pipeline(), execution=running)
    write_report(files.project, "main", files.report)
    return compare(files.project, truth)


class Files:
    """What a demo writes, all in one folder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.project = str(directory / "project.zarr")
        self.report = directory / "report"

    def check(self, parameters: SimulationParameters) -> None:
        """Refuse a folder that holds something else than this demo."""
        note = self.directory / "demo.json"
        text = parameters.model_dump_json(indent=1)
        if self.directory.exists() and any(self.directory.iterdir()):
            if not note.exists() or note.read_text() != text:
                raise WrongParameter(
                    f"{self.directory}: is not empty, and no demo of seed {parameters.seed}: "
                    "name a new folder"
                )
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        note.write_text(text)


def judge(lines: list[Line]) -> None:
    """Raise DemoMissed when a line missed its limit."""
    missed = [f"{line.series}: {line.what}" for line in lines if not line.passed]
    if missed:
        raise DemoMissed(f"{len(missed)} of {len(lines)} lines missed: {'; '.join(missed)}")
