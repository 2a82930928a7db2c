"""Whether images have been corrected for the CTF already: correcting twice destroys them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.errors import WrongParameter
from tasks.result import Result

CTF_CORRECTED = "ctf_corrected"  # attribute of a result whose images, or voxels, are corrected
IMPORTED = {"by": "another program", "mode": "unknown"}
# Steps whose images go into those of the steps that read them.
CARRIERS = ("motion", "erase", "dose", "ctf2d", "preprocess", "transform", "reconstruct", "ctf3d")


def already_corrected(result: Result) -> Mapping[str, Any] | None:
    """Return how the images of a result were corrected for the CTF, None if they were not.

    Also where the result itself says nothing, but one that its images come from, or the import.
    """
    about = result.attributes()
    if about.get(CTF_CORRECTED):
        return dict(about[CTF_CORRECTED])
    for step, key in about.get("inputs", {}).items():
        if step in CARRIERS and (found := already_corrected(result.series.result(step, key))):
            return found
    if result.step == "motion" and result.series.imported().acquisition.ctf_corrected:
        return dict(IMPORTED)
    return None


def refuse_corrected(result: Result, step: str) -> None:
    """Refuse images that are corrected already, to correct them again or to look for rings.

    Raises
    ------
    WrongParameter
        Naming the result, and how it was corrected.
    """
    found = already_corrected(result)
    if found is None:
        return
    how = ", ".join(f"{name} {value}" for name, value in found.items())
    remedy = f"leave {step} out" + (" (run --until reconstruct)" if step == "ctf" else "")
    if found == IMPORTED:
        remedy += ", or import with --ctf-corrected no if they are not"
    raise WrongParameter(
        f"{result.series.name}: {step}: the images of {result.name} are already corrected for the "
        f"CTF ({how}): {remedy}"
    )
