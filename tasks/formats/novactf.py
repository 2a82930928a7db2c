"""novaCTF's defocus files: one for each plane, as its ``-Algorithm defocus`` writes them.

NAME_0 … NAME_(N−1) in the layout of CTFFIND4 without its comments: one line for each view of the
aligned stack, in order, of seven columns: number from 1, the two defoci [Å], azimuth of the first
[degrees], phase shift [radians], score, resolution of the fit [Å]. Its `Defocus::writeDefocusFiles`
numbers planes against their defocus: NAME_0 has the largest, and belongs to the voxels that are
highest along the beam in its own frame, z up, before a tomogram is rotated about x.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import radians
from pathlib import Path

from tasks.formats.ctffind import CtffindRow
from tasks.formats.files import refuse_nan, write_text


def write_defocus_files(path: Path, rows: Sequence[CtffindRow], offsets: Sequence[float]) -> None:
    """Write ``path_k`` for every plane.

    Parameters
    ----------
    path : Path
        Without the number.
    rows : sequence of CtffindRow
        Of all views of the stack, in order.
    offsets : sequence of float
        What plane k adds to the defocus of a view [Å].
    """
    for k, offset in enumerate(offsets):
        lines = []
        for n, row in enumerate(rows, 1):
            defoci = (row.defocus_u + offset, row.defocus_v + offset)
            rest = (row.astigmatism_angle, radians(row.phase_shift), row.score, row.fit_resolution)
            refuse_nan(path, f"view {n}", (*defoci, *rest))
            words = [f"{n:.6f}", *(f"{v:.2f}" for v in defoci), *(f"{v:.6f}" for v in rest)]
            lines.append("\t".join(words))
        write_text(path.with_name(f"{path.name}_{k}"), "\n".join(lines) + "\n")
