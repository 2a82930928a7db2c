"""What the series of a session say of each other's tilt axis and hand.

Contradictions are told from results when all are there, and are no part of any. Where the user lets
the session say where the axis is looked for, its word becomes a number among the parameters: a
result must not depend on which series were done before it without saying so.
"""

from __future__ import annotations

import numpy as np

from kernels.session_axes import Witness, against_others, shared_axis
from tasks.parameters import CoarseParameters
from tasks.store import Series, parse_project

# Standard error of an axis whose alignment tells none [degrees].
UNTOLD = 0.1
# An axis taken from the session before stays while it differs by less [degrees].
KEPT = 0.5


def contradictions(project: str, branch: str = "main") -> dict[str, str]:
    """Return why series are doubtful, by name; those that agree are not in it.

    Parameters
    ----------
    project : str
        Folder or URL.
    branch : str
        Whose alignments by beads or by matching are compared.
    """
    of = parse_project(project)
    known = {name: _witness(of.series(name), branch) for name in of.series_names()}
    witnesses = {name: witness for name, witness in known.items() if witness is not None}
    found = {}
    for name, witness in witnesses.items():
        others = [other for key, other in witnesses.items() if key != name]
        if reason := against_others(witness, others) or _against_hand(of.series(name), branch):
            found[name] = reason
    return found


def _against_hand(series: Series, branch: str) -> str:
    """Return how the spectra contradict the hand that the user gave, nothing if they do not."""
    known = series.record(branch).handedness
    if known is None or not known.forced or known.measured in (None, known.hand):
        return ""
    return (
        f"the defocus gradient shows hand {known.measured:+d}, {known.hand:+d} was given: the tilt "
        "axis is wrong by 180°, or the hand"
    ).replace("-", "−")


def settled_axis(
    parameters: CoarseParameters, project: str, series: str, branch: str
) -> CoarseParameters:
    """Return the parameters with the axis that the session's other series have.

    Where none is aligned yet, the axis is searched. What was taken from the session before stays,
    unless it is contradicted by now, so that a run finds its results again.
    """
    if parameters.axis != "session":
        return parameters
    of = parse_project(project)
    others = [_witness(of.series(name), branch) for name in of.series_names() if name != series]
    axis = shared_axis([witness for witness in others if witness is not None])
    if axis is None:
        return parameters.model_copy(update={"axis": "search"})
    start = round(axis, 1)
    key = of.series(series).pointer(branch, "coarse")
    about = of.series(series).result("coarse", key).attributes() if key is not None else {}
    before = about.get("parameters", {}).get("axis_start")
    if before is not None and abs((before - axis + 180) % 360 - 180) < KEPT:
        start = before
    return parameters.model_copy(update={"axis": "refine", "axis_start": start})


def _witness(series: Series, branch: str) -> Witness | None:
    """Return what a series says, None where nothing has refined its axis."""
    for step in ("align", "markerfree"):
        key = series.pointer(branch, step)
        about = series.result(step, key).attributes() if key is not None else {}
        if not about.get("complete") or not series.same_movies(about):
            continue
        if about.get("verdict", {}).get("word") == "failed":
            continue
        rows = about.get("decides", {}).get("views", [])
        axes = [row["geometry"]["axis"] for row in rows if row.get("geometry")]
        if axes:
            near = axes[0] + (np.array(axes) - axes[0] + 180) % 360 - 180
            error = (about.get("axis") or {}).get("error") or UNTOLD
            hand = series.record(branch).handedness
            measured = hand.measured if hand is not None else None
            return Witness(float(np.median(near)), float(error), measured)
    return None
