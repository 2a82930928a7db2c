"""Presets: what `tiltflow run --preset` starts from, and the branches that it makes.

A preset is one branch, or several that share their first steps: a result is named by what made it,
so that what branches agree on is computed once. The first bears the name that the user gives, the
others that name with an ending.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Values = Mapping[str, Mapping[str, Any]]  # step → parameter → value


@dataclass(frozen=True)
class Part:
    """One branch of a preset.

    Attributes
    ----------
    about : str
        What it is for.
    values : mapping
        What it changes in the defaults; of a further branch, in the first one.
    also : tuple of str
        Side steps that it takes.
    until : str or None
        Its last step; None: the tomogram.
    """

    about: str
    values: Values = field(default_factory=dict)
    also: tuple[str, ...] = ()
    until: str | None = None


# The Scipion tutorial on EMPIAR-10164: super-resolution movies of 0.675 Å, looked at by 4 × 1.35 Å.
_BINNING = 4
_BEFORE_ALIGNMENT: Values = {
    "motion": {"binning": 2.0},
    "dose": {"write": True},
    "preprocess": {"binning": _BINNING},
}
_STRIPS = Part(
    "defocus as ctfplotter finds it, each view by itself, to compare with the rings'",
    {"ctf": {"method": "strips", "angle_step": 0.0, "search_astigmatism": True}},
    until="ctf",
)


def _rests_on(alignment: str, thickness: float) -> Values:
    """Return what aligned stacks and tomograms of an alignment have in common."""
    box = {"alignment": alignment, "binning": _BINNING, "thickness": thickness}
    return {
        "transform": {"alignment": alignment, "binning": _BINNING},
        "thickness": {"alignment": alignment},
        "ctf2d": {"alignment": alignment},
        "reconstruct": box,
        "ctf3d": box,
    }


def _with(values: Values, *changes: Values) -> Values:
    joined = {step: dict(fields) for step, fields in values.items()}
    for change in changes:
        for step, fields in change.items():
            joined.setdefault(step, {}).update(fields)
    return joined


PRESETS: dict[str, dict[str, Part]] = {
    "default": {"": Part("every step with its defaults")},
    "fast": {
        "": Part(
            "a first look while the microscope is at work",
            {
                "motion": {"align": False},
                "markerfree": {"pixel_size": 20.0, "rounds": 2, "local": False},
                "reconstruct": {"binning": 8},
            },
        )
    },
    # As IMOD is used there: 30 beads, one rotation, magnification and tilt angles as they are.
    "tutorial-fiducial": {
        "": Part(
            "alignment by gold beads, tomogram filtered like 8 iterations of SIRT, tomogram "
            "corrected in 3-D without the gold",
            _with(
                _BEFORE_ALIGNMENT,
                {"fiducials": {"beads": 30}, "align": {"select": False, "local": "off"}},
                _rests_on("fiducial", 1836.0),
                {"reconstruct": {"sirt_like_iterations": 8}, "ctf3d": {"erase_gold": True}},
            ),
            also=("preprocess", "transform", "thickness", "ctf3d"),
        ),
        "coarse": Part(
            "the stack as coarsely aligned",
            {"transform": {"alignment": "coarse"}},
            until="transform",
        ),
        "ctf2d": Part(
            "stack and weighted back-projection of views corrected in strips, without the gold",
            {
                "transform": {"images": "ctf2d", "erase_gold": True},
                "reconstruct": {"images": "ctf2d", "erase_gold": True, "sirt_like_iterations": 0},
            },
            also=("transform",),
        ),
        "strips": _STRIPS,
    },
    # As AreTomo is used there: a volume of 1120 pixels to align in, 1300 pixels of tomogram; 15
    # rounds of SART with five views at a time, which at full steps would fit the noise.
    "tutorial-markerfree": {
        "": Part(
            "alignment without markers, tomogram by SART, tomogram corrected in 3-D",
            _with(
                _BEFORE_ALIGNMENT,
                {"markerfree": {"thickness": 1512.0}},
                _rests_on("markerfree", 1755.0),
                {
                    "reconstruct": {
                        "method": "sart",
                        "iterations": 15,
                        "subsets": 8,
                        "relaxation": 0.1,
                    }
                },
            ),
            also=("preprocess", "transform", "thickness", "ctf3d"),
        ),
        "wbp": Part("tomogram by weighted back-projection", {"reconstruct": {"method": "wbp"}}),
        "ctf2d": Part(
            "stack and weighted back-projection of views corrected in strips",
            {
                "transform": {"images": "ctf2d"},
                "reconstruct": {"images": "ctf2d", "method": "wbp"},
            },
            also=("transform",),
        ),
        "strips": _STRIPS,
    },
}


def values_of(preset: str, part: str = "") -> Values:
    """Return what one branch of a preset changes in the defaults."""
    first = PRESETS[preset][""].values
    return _with(first, PRESETS[preset][part].values) if part else first


def branch_of(branch: str, part: str) -> str:
    """Return the name of one branch of a preset, where its first one is called `branch`."""
    return f"{branch}-{part}" if part else branch
