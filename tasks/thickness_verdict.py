"""Whether a measured position of the specimen is to be trusted, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from kernels.thickness import QUANTITIES, Estimate, Verdict

THINNEST = 150.0  # Å; of what is found thinner, only a layer is seen
WORST = {"thickness": 0.15, "centre": 0.05}  # standard errors, in thicknesses, of what is good
WORST_ANGLE = 1.0  # degrees
UNITS = {"thickness": "Å", "centre": "Å", "pitch": "°", "rise": "°"}
NAMES = {"centre": "z-centre", "rise": "x-tilt"}


def judged(
    together: Verdict, estimates: Sequence[Estimate], height: float, silent: str = ""
) -> tuple[str, list[str]]:
    """Return good, doubtful or failed, and why.

    Parameters
    ----------
    together : Verdict
    estimates : sequence of Estimate
        That it is made of.
    height : float
        Of the quick tomogram [Å].
    silent : str
        Why what was asked for cannot be measured, if so.
    """
    slab = together.slab
    if not isfinite(slab.thickness) or not isfinite(slab.centre):
        lacking = "thickness" if not isfinite(slab.thickness) else "height"
        asked = ", ".join(e.method for e in estimates) or "none"
        return "failed", [f"nothing tells the {lacking}: {silent or f'asked were {asked}'}"]
    if not THINNEST <= slab.thickness <= height:
        return "failed", [
            f"a thickness of {slab.thickness:.0f} Å is not within {THINNEST:.0f} Å and the quick "
            f"tomogram's height of {height:.0f} Å: change thickness.height"
        ]
    reasons = list(together.doubts)
    if abs(slab.centre) + 0.8 * slab.thickness > height / 2:
        reasons.append("the specimen is near the end of the quick tomogram: raise thickness.height")
    for name, part in WORST.items():
        if getattr(slab, f"{name}_error") > part * slab.thickness:
            reasons.append(f"{NAMES.get(name, name)} is known to {_pair(slab, name)} only")
    if not slab.pitch_error <= WORST_ANGLE:
        reasons.append(
            f"pitch is known to {_pair(slab, 'pitch')} only"
            if isfinite(slab.pitch)
            else "pitch is not known"
        )
    return ("doubtful" if reasons else "good"), reasons


def _pair(slab: Estimate, name: str) -> str:
    value, error = getattr(slab, name), getattr(slab, f"{name}_error")
    digits = 0 if UNITS[name] == "Å" else 1
    text = f"{value:.{digits}f} ± {error:.{digits}f} {UNITS[name]}".replace("-", "−")
    return text.replace(" °", "°")


def told(slab: Estimate, word: str, reasons: Sequence[str]) -> str:
    """Return the slab and its verdict in one line."""
    if word == "failed":
        return f"failed: {'; '.join(reasons)}"
    parts = [
        f"{NAMES.get(name, name)} {_pair(slab, name)}"
        for name in QUANTITIES
        if isfinite(getattr(slab, name))
    ]
    line = f"{word}: {', '.join(parts)}"
    return f"{line}; but {'; '.join(reasons)}" if reasons else line


def row(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as a row of the step's table, errors beside values."""
    made: dict[str, Any] = {"method": estimate.method}
    for name in QUANTITIES:
        label = NAMES.get(name, name)
        made[f"{label} [{UNITS[name]}]"] = finite(getattr(estimate, name))
        made[f"error of {label} [{UNITS[name]}]"] = finite(getattr(estimate, f"{name}_error"))
    return made


def finite(value: Any) -> Any:
    """Return None in place of a number that is none, for JSON."""
    return None if isinstance(value, float) and not isfinite(value) else value
