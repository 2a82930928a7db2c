"""What the other series of a session say of one series' tilt axis and hand.

The axis belongs to the microscope: series of one session share it but for some tenths of a degree,
and all have the same hand. A series that differs is wrong, or was taken otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Fewer other series are no witnesses: of two that differ, either may be wrong.
LEAST_OTHERS = 2
# A difference is told from so many standard errors on.
APART = 3.0
# Axes of one session differ by this without being wrong [degrees].
SPREAD = 0.2
# Share of the others that must agree on a half turn, or on a hand.
AGREED = 0.75


@dataclass(frozen=True)
class Witness:
    """What one series says.

    Attributes
    ----------
    axis : float
        Tilt axis, counter-clockwise from image +y [degrees].
    error : float
        Its standard error [degrees].
    hand : {+1, -1} or None
        Sign of the defocus gradient that its spectra show; None where they cannot tell.
    """

    axis: float
    error: float
    hand: int | None = None


def against_others(one: Witness, others: Sequence[Witness]) -> str | None:
    """Say in what a series contradicts the others of its session, None where it does not.

    Parameters
    ----------
    one : Witness
    others : sequence of Witness
        Without `one`; fewer than `LEAST_OTHERS` say nothing.
    """
    if len(others) < LEAST_OTHERS:
        return None
    middle, spread, same = _common(others)
    off = (one.axis - middle + 90) % 180 - 90
    error = float(np.hypot(one.error, spread))
    if abs(off) > APART * error:
        return (
            f"the tilt axis differs by {abs(off):.1f}° ± {error:.1f}° from that of the "
            f"session's other series ({_turned(middle):.1f}°)"
        ).replace("-", "−")
    if same >= AGREED and np.cos(np.radians(one.axis - middle)) < 0:
        return (
            f"the tilt axis is half a turn from that of the session's other series "
            f"({_turned(middle):.1f}°): the tomogram's hand is the other"
        ).replace("(-", "(−")
    hands = [other.hand for other in others if other.hand is not None]
    if one.hand is None or len(hands) < LEAST_OTHERS:
        return None
    if np.mean([hand == -one.hand for hand in hands]) >= AGREED:
        return (
            f"the defocus gradient shows hand {one.hand:+d}, that of the session's other series "
            f"{-one.hand:+d}: the tilt axis is wrong by 180°"
        ).replace("-", "−")
    return None


def shared_axis(others: Sequence[Witness]) -> float | None:
    """Return the tilt axis on which series agree, within ± 180° [degrees].

    None where there is no series, or where they disagree on the half turn.
    """
    if not others:
        return None
    middle, _, same = _common(others)
    return _turned(middle) if same >= AGREED else None


def _common(others: Sequence[Witness]) -> tuple[float, float, float]:
    """Return the axis of most, its spread [degrees], and the share that agree on its half turn."""
    axes = np.array([other.axis for other in others])
    # Differences from any one of them, first of the line alone, half a turn being none.
    away = (axes - axes[0] + 90) % 180 - 90
    middle = float(np.median(away))
    spread = max(1.4826 * float(np.median(np.abs(away - middle))), SPREAD)
    middle += float(axes[0])
    same = float(np.mean(np.cos(np.radians(axes - middle)) > 0))
    return (middle, spread, same) if same >= 0.5 else (middle + 180, spread, 1 - same)


def _turned(axis: float) -> float:
    """Return an angle within ± 180°."""
    return (axis + 180) % 360 - 180
