"""Whether images have been corrected for the CTF already: correcting twice destroys them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.errors import WrongParameter
from tasks.result import Result

CTF_CORRECTED = "ctf_corrected"  # attribute of a result whose images, or voxels, are corrected
# Steps whose images go into those of the steps that read them.
CARRIERS = ("motion", "erase", "dose", "ctf2d", "preprocess", "transform", "reconstruct", "ctf3d")


def already_corrected(result: Result) -> Mapping[str, Any] | None:
    """Return how the images of a result were corrected for the CTF, None if they were not.

    Also where the result itself says nothing, but one that its images come from.
    """
    about = result.attributes()
    if about.get(CTF_CORRECTED):
        return dict(about[CTF_CORRECTED])
    for step, key in about.get("inputs", {}).items():
        if step in CARRIERS and (found := already_corrected(result.series.result(step, key))):
            return found
    return None


def refuse_corrected(result: Result, step: str) -> None:
    """Refuse images that are corrected already.

    Raises
    ------
    WrongParameter
        Naming the result, and how it was corrected.
    """
    if found := already_corrected(result):
        raise WrongParameter(
            f"{result.series.name}: {step}: the images of {result.name} are already corrected for "
            f"the CTF ({', '.join(f'{name} {value}' for name, value in found.items())}): "
            f"choose others by {step}.images"
        )
