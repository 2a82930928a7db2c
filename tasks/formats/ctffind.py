"""CTFFIND's two text files: the table of results, and the profiles (``_avrot.txt``).

The table has 7 columns in CTFFIND 4, 10 in CTFFIND 5, and 8 where AreTomo writes it. Angles are
those of defocus 1, counter-clockwise from image +x with y upward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.formats.errors import FormatError, shown
from tasks.formats.files import StrPath, number, read_table, refuse_nan, whole, write_text

COLUMNS = (
    "# Columns: #1 - micrograph number; #2 - defocus 1 [Angstroms]; #3 - defocus 2; "
    "#4 - azimuth of astigmatism; #5 - additional phase shift [radians]; "
    "#6 - cross correlation; #7 - spacing (in Angstroms) up to which CTF rings were fit "
    "successfully"
)
CURVES = ("frequency", "average", "equiphase", "fit", "correlation", "noise")
CURVES_LINE = (
    "# 6 lines per micrograph: #1 - spatial frequency (1/Angstroms); #2 - rotational average of "
    "the spectrum; #3 - its average along equal phase; #4 - CTF fit; #5 - cross-correlation of "
    "#3 and #4; #6 - 2 sigma of the noise"
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
        Spacing up to which they agree [Å]; infinite where the fit failed, 0 where nobody looked.
    tilt_axis, tilt : float or None
        Of the specimen, as CTFFIND 5 estimates them [degrees]; 0 where it was not asked to.
    thickness : float or None
        Of the specimen [Å]; likewise.
    hand : int or None
        AreTomo's eighth column, 1 or −1.
    """

    view: int
    defocus_u: float
    defocus_v: float
    astigmatism_angle: float
    phase_shift: float
    score: float
    fit_resolution: float
    tilt_axis: float | None = None
    tilt: float | None = None
    thickness: float | None = None
    hand: int | None = None


def read_ctffind(path: StrPath) -> tuple[CtffindRow, ...]:
    """Read a CTFFIND table.

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
        fitted = math.inf if failed else number(path, words[6], "fit resolution", n)
        axis, tilt, thickness = (
            (number(path, word, "value", n) for word in words[7:])
            if len(words) == 10
            else (None, None, None)
        )
        rows.append(
            CtffindRow(
                whole(path, words[0], "micrograph number", n),
                u,
                v,
                angle,
                math.degrees(phase),
                score,
                fitted,
                axis,
                tilt,
                thickness,
                whole(path, words[7], "hand", n) if len(words) == 8 else None,
            )
        )
    if not rows:
        raise FormatError(path, "no rows", "give the text output of CTFFIND")
    return tuple(rows)


def write_ctffind(path: StrPath, rows: Sequence[CtffindRow], comments: Sequence[str] = ()) -> None:
    """Write the seven columns of CTFFIND 4, under `comments` of one line each.

    novaCTF refuses more columns: what rows have beyond the seventh is left out.
    """
    lines = [_comment(comment) for comment in comments] + [COLUMNS]
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


def read_avrot(path: StrPath) -> NDArray[np.float64]:
    """Read the profiles as (image, curve, k), curves in the order of `CURVES`.

    The last line of each six is halved: the file has 2σ.

    Raises
    ------
    FormatError
        If the lines are not sixes of the same length, or a value is no number.
    """
    table = read_table(path)
    if not table or len(table) % len(CURVES):
        raise FormatError(path, f"{len(table)} lines of numbers", "give 6 for each micrograph")
    bins = len(table[0][1])
    rows = []
    for n, words in table:
        if len(words) != bins:
            raise FormatError(path, f"{len(words)} numbers, not {bins}", "complete the line", n)
        rows.append([number(path, word, "value", n) for word in words])
    curves = np.array(rows, dtype=np.float64).reshape(-1, len(CURVES), bins)
    curves[:, CURVES.index("noise")] /= 2
    return curves


def write_avrot(path: StrPath, profiles: ArrayLike, comments: Sequence[str] = ()) -> None:
    """Write profiles (image, curve, k) as CTFFIND does, six lines for each image.

    Comments stand only at the head, where CTFFIND's plotting script expects them; the script finds
    "Pixel size: 1.35" and "Number of micrographs: 41" there.

    Raises
    ------
    FormatError
        If a value is not finite, or there are not six curves.
    """
    curves = np.array(profiles, dtype=np.float64)
    if curves.ndim != 3 or curves.shape[1] != len(CURVES) or not curves.size:
        raise FormatError(path, f"profiles of shape {curves.shape}", "give (images, 6, n)")
    refuse_nan(path, "profile", curves.ravel())
    curves[:, CURVES.index("noise")] *= 2
    lines = [_comment(comment) for comment in comments] + [CURVES_LINE]
    lines += [" ".join(f"{v:.6f}" for v in curve) for image in curves.tolist() for curve in image]
    write_text(path, "\n".join(lines) + "\n")


def _comment(text: str) -> str:
    return f"# {' '.join(text.split())}"
