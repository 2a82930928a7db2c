"""Every parameter of every step: one source for options, YAML files, forms and docs.

Lengths in Å, angles in degrees, dose in e/Å²; other units are in the name. What is here enters
the key of a result. How a step is executed (`Execution`) never does.
"""

from tasks.parameters.alignment import (
    Aligned,
    CoarseParameters,
    TransformParameters,
)
from tasks.parameters.base import Pair, Parameters
from tasks.parameters.ctf import Ctf2dParameters, CtfParameters
from tasks.parameters.fiducials import AlignParameters, FiducialParameters
from tasks.parameters.imports import GainFlip, GainRotation, ImportParameters
from tasks.parameters.markerfree import MarkerfreeParameters
from tasks.parameters.motion import LEAST_PIXELS, MotionParameters, SumParameters
from tasks.parameters.pipeline import Execution, Pipeline
from tasks.parameters.thickness import ThicknessParameters
from tasks.parameters.tomogram import Ctf3dParameters, ReconstructParameters, TomogramParameters
from tasks.parameters.views import (
    DoseParameters,
    EraseParameters,
    ExcludeParameters,
    PreprocessParameters,
    ReductionFilter,
)

__all__ = [
    "LEAST_PIXELS",
    "AlignParameters",
    "Aligned",
    "CoarseParameters",
    "Ctf2dParameters",
    "Ctf3dParameters",
    "CtfParameters",
    "DoseParameters",
    "EraseParameters",
    "ExcludeParameters",
    "Execution",
    "FiducialParameters",
    "GainFlip",
    "GainRotation",
    "ImportParameters",
    "MarkerfreeParameters",
    "MotionParameters",
    "Pair",
    "Parameters",
    "Pipeline",
    "PreprocessParameters",
    "ReconstructParameters",
    "ReductionFilter",
    "SumParameters",
    "ThicknessParameters",
    "TomogramParameters",
    "TransformParameters",
]
