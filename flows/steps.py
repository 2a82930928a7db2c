"""Each step as a flow of its own, over some or all series: run, scheduled and retried alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

from prefect import Flow

from flows.approval import refuse_rejected
from flows.arguments import Branch, Project, SeriesNames, Subset, run_name
from flows.session import tell_doubts
from flows.several import at_once, busy_elsewhere, each
from flows.tomogram import alone_on_branch, carry_out
from tasks import cluster
from tasks.branches import begin_branch
from tasks.parameters import (
    AlignParameters,
    CoarseParameters,
    Ctf2dParameters,
    Ctf3dParameters,
    CtfParameters,
    DoseParameters,
    EraseParameters,
    ExcludeParameters,
    Execution,
    FiducialParameters,
    MarkerfreeParameters,
    MotionParameters,
    Parameters,
    PreprocessParameters,
    ReconstructParameters,
    SumParameters,
    ThicknessParameters,
    TransformParameters,
)
from tasks.plan import chosen_series, current_parameters
from tasks.store import parse_project
from tasks.subset_use import within_step
from tasks.work import Outcome

P = ParamSpec("P")


def step_flow(name: str) -> Callable[[Callable[P, None]], Flow[P, None]]:
    """Return the decorator of the flow of step `name`, whose runs say step, series and branch."""
    return lambda function: Flow(
        function, name=name, flow_run_name=run_name(name), persist_result=False
    )


def run_step(
    step: str,
    project: str,
    parameters: Parameters,
    series: list[str] | None,
    branch: str,
    execution: Execution,
    subset: str | None = None,
) -> None:
    """Carry out one step of some or all series on what their branch has.

    A branch that is new begins with what main has. What rests on the specimen's position has it
    measured before, unless it has been.
    """
    of = parse_project(project)
    series, parameters = within_step(project, series, subset, parameters, branch)
    with cluster.opened(execution) as running:

        def take(name: str) -> Outcome:
            with alone_on_branch(of.series(name), branch):
                begin_branch(of.series(name), branch, step, parameters)
                if getattr(parameters, "by_position", False):
                    alignment = getattr(parameters, "alignment", None)
                    free = alignment in (None, "nominal")
                    chosen = {} if free else {"alignment": alignment}
                    how = current_parameters(of.series(name), branch, "thickness")
                    measured = how.model_copy(update=chosen)
                    carry_out("thickness", project, name, measured, branch, running)
                outcome = carry_out(step, project, name, parameters, branch, running)
                refuse_rejected(of.series(name), branch, outcome)
                return outcome

        each(
            chosen_series(project, series), take, at_once(running), busy_elsewhere(project, branch)
        )
    if step in ("align", "markerfree"):
        tell_doubts(project, branch)


@step_flow("motion")
def motion(
    project: Project,
    parameters: MotionParameters = MotionParameters(),
    series: SeriesNames = None,
    branch: Branch = "main",
    execution: Execution = Execution(),
    subset: Subset = None,
) -> None:
    """Correct the movies for gain and motion, and sum their frames."""
    run_step("motion", project, parameters, series, branch, execution, subset)


@step_flow("average")
def average(
    project: Project,
    parameters: SumParameters = SumParameters(),
    series: SeriesNames = None,
    branch: Branch = "main",
    execution: Execution = Execution(),
    subset: Subset = None,
) -> None:
    """Sum the frames of the movies as they are, in place of motion correction."""
    summed = MotionParameters(**parameters.model_dump(), align=False)
    run_step("motion", project, summed, series, branch, execution, subset)


@step_flow("exclude")
def exclude(
    project: Project,
    parameters: ExcludeParameters = ExcludeParameters(),
    series: SeriesNames = None,
    branch: Branch = "main",
    execution: Execution = Execution(),
    subset: Subset = None,
) -> None:
    """Find dark views, and leave out what the user names."""
    run_step("exclude", project, parameters, series, branch, execution, subset)


@step_flow("ctf")
def ctf(
    project: Project,
    parameters: CtfParameters = CtfParameters(),
    series: SeriesNames = None,
    branch: Branch = "main",
    execution: Execution = Execution(),
    subset: Subset = None,
) -> None:
    """Estimate defocus and astigmatism of every view."""
    run_step("ctf", project, parameters, series, branch, execution, subset)


@step_flow("erase")
def erase(
    project: Project,
    parameters: EraseParameters = EraseParameters(),
    series: SeriesNames = None,
    branch: Branch = "main",
    execution: Execution = Execution(),
    subset: Subset = None,
) -> None:
    """Erase X-ray hits and hot pixels."""
    run_step("erase", project, parameters, series, branch, execution, subset)


@step_flow("dose")
def dose(
    project: Project,
    parameters: DoseParameters = DoseParameters(),
    series: SeriesNames = None,
    branch: Branch = "main",
    execution: Execution = Execution(),
    subset: Subset = None,
) -> None:
    """Weight the views by the dose that the specimen has seen."""
    run_step("dose", project, parameters, series, branch, execution, subset)


@step_flow("ctf2d")
def ctf2d(
    project: Project,
    parameters: Ctf2dParameters = Ctf2dParameters(),
    series: SeriesNames = None,
    branch: Branch = "main",
    execution: Execution = Execution(),
    subset: Subset = None,
) -> None:
    """Correct every view for the CTF in strips along the tilt axis."""
    run_step("ctf2d", project, parameters, series, branch, execution, subset)


@step_flow("preprocess")
def preprocess(
    project: Project,
    parameters: PreprocessParameters = PreprocessParameters(),
    series: SeriesNames = None,
    branch: Branch = "main",
    execution: Execution = Execution(),
    subset: Subset = None,
) -> None:
    """Write the views binned, normalised and cropped, for other programs and for looking."""
    run_step("preprocess", project, parameters, series, branch, execution, subset)


@step_flow("coarse")
def coarse(
    project: Project,
    parameters: CoarseParameters = CoarseParameters(),
    series: SeriesNames = None,
    branch: Branch = "main",
    execution: Execution = Execution(),
    subset: Subset = None,
) -> None:
    """Align the views by cosine-stretched cross-correlation."""
    run_step("coarse", project, parameters, series, branch, execution, subset)


@step_flow("fiducials")
def fiducials(
    project: Project,
    parameters: FiducialParameters = FiducialParameters(),
    series: SeriesNames = None,
    branch: Branch = "main",
    execution: Execution = Execution(),
    subset: Subset = None,
) -> None:
    """Find gold beads and follow them through the views."""
    run_step("fiducials", project, parameters, series, branch, execution, subset)


@step_flow("align")
def align(
    project: Project,
    parameters: AlignParameters = AlignParameters(),
    series: SeriesNames = None,
    branch: Branch = "main",
    execution: Execution = Execution(),
    subset: Subset = None,
) -> None:
    """Align the views by their beads: bundle adjustment."""
    run_step("align", project, parameters, series, branch, execution, subset)


@step_flow("markerfree")
def markerfree(
    project: Project,
    parameters: MarkerfreeParameters = MarkerfreeParameters(),
    series: SeriesNames = None,
    branch: Branch = "main",
    execution: Execution = Execution(),
    subset: Subset = None,
) -> None:
    """Refine the alignment by matching projections of the specimen."""
    run_step("markerfree", project, parameters, series, branch, execution, subset)


@step_flow("transform")
def transform(
    project: Project,
    parameters: TransformParameters = TransformParameters(),
    series: SeriesNames = None,
    branch: Branch = "main",
    execution: Execution = Execution(),
    subset: Subset = None,
) -> None:
    """Write the views aligned by one interpolation, for other programs and for looking."""
    run_step("transform", project, parameters, series, branch, execution, subset)


@step_flow("thickness")
def thickness(
    project: Project,
    parameters: ThicknessParameters = ThicknessParameters(),
    series: SeriesNames = None,
    branch: Branch = "main",
    execution: Execution = Execution(),
    subset: Subset = None,
) -> None:
    """Measure thickness, height, pitch and rise of the specimen."""
    run_step("thickness", project, parameters, series, branch, execution, subset)


@step_flow("reconstruct")
def reconstruct(
    project: Project,
    parameters: ReconstructParameters = ReconstructParameters(),
    series: SeriesNames = None,
    branch: Branch = "main",
    execution: Execution = Execution(),
    subset: Subset = None,
) -> None:
    """Reconstruct tomograms by weighted back-projection."""
    run_step("reconstruct", project, parameters, series, branch, execution, subset)


@step_flow("ctf3d")
def ctf3d(
    project: Project,
    parameters: Ctf3dParameters = Ctf3dParameters(),
    series: SeriesNames = None,
    branch: Branch = "main",
    execution: Execution = Execution(),
    subset: Subset = None,
) -> None:
    """Reconstruct tomograms from views corrected for the CTF at planes of defocus."""
    run_step("ctf3d", project, parameters, series, branch, execution, subset)
