"""What the methods of CTF estimation have in common: the result of a series, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kernels.ctf_profile import CtfProfile
from tasks.record import CtfEstimate, Handedness, Pretilt, TiltSeries
from tasks.work import Work

PROFILES = ("frequency", "average", "equiphase", "fit", "correlation", "noise")


@dataclass(frozen=True)
class Estimate:
    """The CTFs of a series.

    Attributes
    ----------
    views : mapping of int to CtfEstimate
        By index of the view.
    profiles : mapping of int to CtfProfile
        One-dimensional averages of the views that were fitted.
    hand : Handedness or None
    pretilt : Pretilt or None
    thickness : float or None
        [Å]
    doubts : sequence of str
        What a person should know, one line each.
    extra : mapping
        Further attributes of the result.
    """

    views: Mapping[int, CtfEstimate]
    profiles: Mapping[int, CtfProfile] = field(default_factory=dict)
    hand: Handedness | None = None
    pretilt: Pretilt | None = None
    thickness: float | None = None
    doubts: Sequence[str] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def used_hand(self) -> int | None:
        """Return the hand that corrections use: the user's word, else the measured one."""
        return None if self.hand is None else self.hand.hand


def write_profiles(work: Work, profiles: Mapping[int, CtfProfile]) -> None:
    """Write the array ``profiles`` (view, curve, k), NaN for views without a fit."""
    length = max((len(profile.frequency) for profile in profiles.values()), default=0)
    if not length:
        return
    values = np.full((len(work.record.views), len(PROFILES), length), np.nan)
    for i, profile in profiles.items():
        values[i] = [getattr(profile, name) for name in PROFILES]
    stored = work.result.create_array(
        "profiles", values.shape, values.shape, "float64", by_units=False
    )
    stored[:] = values


def message(estimate: Estimate) -> str:
    """Return one line about the result for people."""
    if not estimate.views:
        return "no view has a CTF"
    middle = float(np.median([view.defocus for view in estimate.views.values()]))
    doubtful = sum(not view.reliable for view in estimate.views.values())
    parts = [f"median defocus {middle / 1e4:.2f} µm", _hand(estimate.hand)]
    if estimate.pretilt is not None:
        angle = f"{estimate.pretilt.about_axis:+.1f}".replace("-", "−")
        parts.append(f"pre-tilt {angle}°")
    if estimate.thickness is not None:
        parts.append(f"thickness {estimate.thickness / 10:.0f} nm")
    if doubtful:
        parts.append(f"{doubtful} of {len(estimate.views)} views not from their own rings")
    return "; ".join([", ".join(filter(None, parts)), *estimate.doubts])


def _hand(hand: Handedness | None) -> str:
    if hand is None:
        return ""
    signs = {1: "+1", -1: "−1", None: "unknown"}
    return f"hand {signs[hand.hand]}" + (" as told" if hand.forced else "")


def table(record: TiltSeries, estimate: Estimate) -> list[dict[str, Any]]:
    """Return one row per view for people."""
    return [
        {
            "view": i + 1,
            "tilt angle [°]": record.views[i].tilt_angle,
            "defocus U [Å]": ctf.defocus_u,
            "defocus V [Å]": ctf.defocus_v,
            "angle [°]": ctf.astigmatism_angle,
            **({"phase shift [°]": ctf.phase_shift} if ctf.phase_shift else {}),
            "fit to [Å]": ctf.fit_resolution,
            "score": ctf.score,
            "uncertainty [Å]": ctf.uncertainty,
            "problem": ctf.problem or "",
        }
        for i, ctf in sorted(estimate.views.items())
    ]
