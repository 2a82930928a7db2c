"""The text table of CTFFIND4 (7 columns), as CTFFIND5 (10) and AreTomo (8) extend it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.formats.errors import FormatError, shown
from tasks.formats.files import StrPath, number, read_table, refuse_nan, whole, write_text

COLUMNS = (
    "# Columns: #1 - micrograph number; #2 - defocus 1 [Angstroms]; #3 - defocus 2; "
    "#4 - azimuth of astigmatism; #5 - additional phase shift [radians]; "
    "#6 - cross correlation; #7 - spacing (in Angstroms) up to which CTF rings were fit "
    "successfully"
)


@dataclass(frozen=True)
class CtffindRow:
    """The CTF of one image.

    Attributes
    ----------
    view : int
        From 1.
    defocus_u, defocus_v : float
        Underfocus positive [Å].
    astigmatism_angle : float
        Of defocus_u, counter-clockwise from image +x [degrees].
    phase_shift : float
        [degrees]; the file has radians.
    score : float
        Normalised correlation of spectrum and fit.
    fit_resolution : float
        Spacing up to which they agree [Å]; infinite where the fit failed.
    """

    view: int
    defocus_u: float
    defocus_v: float
    astigmatism_angle: float
    phase_shift: float
    score: float
    fit_resolution: float


def read_ctffind(path: StrPath) -> tuple[CtffindRow, ...]:
    """Read a CTFFIND table; columns after the seventh are left out.

    Raises
    ------
    FormatError
        If a row has not 7, 8 or 10 columns, or a value is no number.
    """
    rows = []
    for n, words in read_table(path):
        if len(words) not in {7, 8, 10}:
            raise FormatError(
                path, f"{len(words)} columns in {shown(' '.join(words))}", "give 7, 8 or 10", n
            )
        failed = words[6].lower().lstrip("+") in {"inf", "infinity"}
        u, v, angle, phase, score = (number(path, word, "value", n) for word in words[1:6])
        rows.append(
            CtffindRow(
                whole(path, words[0], "micrograph number", n),
                u,
                v,
                angle,
                math.degrees(phase),
                score,
                math.inf if failed else number(path, words[6], "fit resolution", n),
            )
        )
    if not rows:
        raise FormatError(path, "no rows", "give the text output of CTFFIND")
    return tuple(rows)


def write_ctffind(path: StrPath, rows: Sequence[CtffindRow], comments: Sequence[str] = ()) -> None:
    """Write the seven columns of CTFFIND4, under `comments` of one line each."""
    lines = [f"# {' '.join(comment.split())}" for comment in comments] + [COLUMNS]
    for row in rows:
        values = (row.defocus_u, row.defocus_v, row.astigmatism_angle, row.phase_shift, row.score)
        refuse_nan(path, f"view {row.view}", values)
        if math.isnan(row.fit_resolution):
            raise FormatError(path, f"fit resolution nan of view {row.view}", "give inf if none")
        lines.append(
            f"{row.view:.6f} {row.defocus_u:.6f} {row.defocus_v:.6f} {row.astigmatism_angle:.6f} "
            f"{math.radians(row.phase_shift):.6f} {row.score:.6f} {row.fit_resolution:.6f}"
        )
    write_text(path, "\n".join(lines) + "\n")
