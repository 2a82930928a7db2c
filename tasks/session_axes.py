"""Series of a project whose tilt axis or hand contradicts that of the others.

Told from results when all are there, and no part of any: a result must not depend on which series
were done before it.
"""

from __future__ import annotations

import numpy as np

from kernels.session_axes import Witness, against_others
from tasks.store import Series, parse_project

# Standard error of an axis whose alignment tells none [degrees].
UNTOLD = 0.1


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
        if reason := against_others(witness, others):
            found[name] = reason
    return found


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
