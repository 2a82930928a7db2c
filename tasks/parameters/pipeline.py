"""The parameters of all steps together, and how they are executed."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from tasks.parameters.alignment import (
    CoarseParameters,
    TransformParameters,
)
from tasks.parameters.base import Parameters
from tasks.parameters.ctf import Ctf2dParameters, CtfParameters
from tasks.parameters.fiducials import AlignParameters, FiducialParameters
from tasks.parameters.markerfree import MarkerfreeParameters
from tasks.parameters.motion import MotionParameters
from tasks.parameters.thickness import ThicknessParameters
from tasks.parameters.tomogram import Ctf3dParameters, ReconstructParameters
from tasks.parameters.views import (
    DoseParameters,
    EraseParameters,
    ExcludeParameters,
    PreprocessParameters,
)


class Pipeline(Parameters):
    """The parameters of every step, from movies to tomogram."""

    motion: MotionParameters = MotionParameters()
    exclude: ExcludeParameters = ExcludeParameters()
    ctf: CtfParameters = CtfParameters()
    erase: EraseParameters = EraseParameters()
    dose: DoseParameters = DoseParameters()
    preprocess: PreprocessParameters = PreprocessParameters()
    coarse: CoarseParameters = CoarseParameters()
    fiducials: FiducialParameters = FiducialParameters()
    align: AlignParameters = AlignParameters()
    markerfree: MarkerfreeParameters = MarkerfreeParameters()
    thickness: ThicknessParameters = ThicknessParameters()
    ctf2d: Ctf2dParameters = Ctf2dParameters()
    transform: TransformParameters = TransformParameters()
    reconstruct: ReconstructParameters = ReconstructParameters()
    ctf3d: Ctf3dParameters = Ctf3dParameters()

    @model_validator(mode="after")
    def _one_alignment(self) -> Self:
        """Let the specimen be measured, and strips laid, in the alignment that is reconstructed."""
        made = [self.reconstruct.alignment, self.ctf3d.alignment]
        chosen = next((alignment for alignment in made if alignment != "auto"), "auto")
        for name in ("thickness", "ctf2d"):
            given = getattr(self, name)
            if given.alignment == "auto" != chosen:
                object.__setattr__(self, name, given.model_copy(update={"alignment": chosen}))
        return self


class Execution(Parameters):
    """Where and how wide a run is executed; never changes a result."""

    cluster: str = Field(
        "auto",
        description="auto, local, cuda, threads, slurm, kubernetes or a scheduler's address tcp://…",
    )
    workers: int | None = Field(
        None, ge=1, description="number of workers; empty: one per GPU or core"
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="threads of one worker, started on this machine; empty: 1, or a GPU's share "
        "of the cores",
    )
    gpus: str | None = Field(
        None, description="GPUs to use, e.g. '0,1'; 'none' for the CPU; empty: all"
    )
    memory: str | None = Field(
        None, description="memory of one worker, e.g. '8GB'; empty: its share of this machine"
    )
    series_at_once: int | None = Field(
        None,
        ge=1,
        description="tilt series under way at once; empty: 1 on threads, on a cluster 2, and "
        "one more for every 16 workers",
    )
