"""What the readers of other programs' CTFs have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.errors import UnusableData
from tasks.record import CtfEstimate

Hand = Literal[1, -1] | None
Values = tuple[float, float, float, float]  # defocus U and V [Å], angle and phase shift [degrees]

MOST_DEFOCUS = 1e6  # Å; whatever is beyond has another unit
MOST_ANGLE = 360.0


@dataclass(frozen=True)
class Found:
    """CTFs of a file by index of the view, what the file says of the hand, and doubts."""

    estimates: Mapping[int, CtfEstimate]
    hand: Hand = None
    doubts: tuple[str, ...] = ()


def checked(path: Path, where: str, values: Values) -> Values:
    """Return defocus U, V, angle and phase shift, refusing what cannot be meant.

    Raises
    ------
    UnusableData
        If the mean defocus is not positive, or a value far beyond any microscope.
    """
    u, v, angle, phase = values
    if not ((u + v) / 2 > 0 and max(abs(u), abs(v)) <= MOST_DEFOCUS):
        raise UnusableData(
            f"{path}: {where}: a defocus of {u:g} and {v:g} Å: give underfocus, positive"
        )
    if max(abs(angle), abs(phase)) > MOST_ANGLE:
        raise UnusableData(
            f"{path}: {where}: an angle of {angle:g}° and a phase shift of {phase:g}°: correct them"
        )
    return u, v, angle, phase
