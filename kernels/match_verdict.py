"""How far an alignment without markers can be believed: good, doubtful or failed, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kernels.align_matching import Aligned
from kernels.patch_align import Local

# Mean correlation of views with their references: 0.4 to 0.8 where there is something to match,
# 0.02 where there is nothing.
LEAST_SCORE = 0.1
WEAK_SCORE = 0.15
# Of the used views that may be lost before the whole is not believed.
MOST_LOST = 0.25
# Standard error of the axis [degrees], of the field [Å]; shifts that still move [Å].
AXIS_ERROR = 0.15
FIELD_ERROR = 15.0
RESTLESS = 3.0
# Share of the observations of patches that a field may have to disregard.
MOST_DISREGARDED = 0.3


@dataclass(frozen=True)
class Verdict:
    """Good, doubtful or failed, with every reason against good."""

    word: Literal["good", "doubtful", "failed"]
    reasons: tuple[str, ...]


def judge(
    aligned: Aligned,
    used: Sequence[bool],
    pixel_size: float,
    local: Local | None = None,
    hand: tuple[int, int] | None = None,
    unmeasured: Sequence[str] = (),
    left_out: bool = True,
) -> Verdict:
    """Judge an alignment.

    Parameters
    ----------
    aligned : Aligned
    used : (n,)
        Views that were to take part.
    pixel_size : float
        Of the images that were matched [Å].
    local : Local, optional
    hand : (int, int), optional
        Sign of the defocus gradient that is believed for this axis (given, or shared by the
        session's other series), and the one that the spectra show. A contradiction means that
        the axis is wrong by 180°.
    unmeasured : sequence of str
        What was asked for and could not be measured, and why.
    left_out : bool
        Whether the views that do not match are left out in the end.
    """
    scores = aligned.matched.scores
    taking = [i for i, flag in enumerate(used) if flag and i not in aligned.lost]
    failed, doubtful = [], []
    if aligned.matched.score < LEAST_SCORE:
        failed.append(f"the views do not match (mean correlation {aligned.matched.score:.2f})")
    elif aligned.matched.score < WEAK_SCORE:
        doubtful.append(f"the views hardly match (mean correlation {aligned.matched.score:.2f})")
    if len(aligned.lost) > MOST_LOST * sum(used):
        failed.append(f"{len(aligned.lost)} of {sum(used)} views do not match the others")
    elif aligned.lost:
        names = ", ".join(str(i + 1) for i in aligned.lost)
        how = "left out, as they do" if left_out else "used, though they do"
        doubtful.append(f"{how} not match the others: views {names}")
    if aligned.turn is not None:
        if aligned.turn.at_end:
            doubtful.append("the tilt axis may lie beyond the range that was searched")
        elif aligned.turn.error > AXIS_ERROR:
            doubtful.append(f"the tilt axis is known to ± {aligned.turn.error:.2f}° only")
    if aligned.matched.change > max(RESTLESS, 0.3 * pixel_size):
        doubtful.append(f"the shifts still move by {aligned.matched.change:.1f} Å")
    if taking and float(np.min(scores[taking])) <= 0:
        doubtful.append("a view has no correlation with the others")
    if local is not None and local.field is not None:
        if local.field.error > FIELD_ERROR:
            doubtful.append(f"the local deformation is known to ± {local.field.error:.0f} Å only")
        disregarded = float(np.mean(local.field.weights < 0.5))
        if disregarded > MOST_DISREGARDED:
            doubtful.append(f"{100 * disregarded:.0f} % of the patches' places disagree")
    doubtful += unmeasured
    if hand is not None and hand[0] != hand[1]:
        doubtful.append(
            f"the defocus gradient shows hand {hand[1]:+d}, expected is {hand[0]:+d}: "
            "the tilt axis is wrong by 180°, or the expectation".replace("-", "−")
        )
    word: Literal["good", "doubtful", "failed"] = (
        "failed" if failed else "doubtful" if doubtful else "good"
    )
    return Verdict(word, (*failed, *doubtful))
