"""RELION's tables of CTFs: of the views of a tilt series (RELION 5), and of micrographs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.formats.errors import FormatError, shown
from tasks.formats.files import StrPath, number, whole
from tasks.formats.star import StarBlock, printed, read_star, write_star

NAMES = ("rlnMicrographMovieName", "rlnMicrographName")
SERIES_FILE = "rlnTomoTiltSeriesStarFile"


@dataclass(frozen=True)
class RelionCtf:
    """The CTF of one view or micrograph.

    Attributes
    ----------
    name : str or None
        Of the movie, else of the micrograph, as the file has it.
    defocus_u, defocus_v : float
        Underfocus positive [Å].
    defocus_angle : float
        Of defocus_u, counter-clockwise from image +x [degrees].
    phase_shift : float
        [degrees]
    figure_of_merit : float or None
        Normalised correlation of spectrum and fit.
    max_resolution : float or None
        Where they part [Å]; infinite where the fit failed.
    tilt_angle : float or None
        Nominal [degrees].
    movie_index : int or None
        Place in the acquisition, from 1.
    pre_exposure : float or None
        Dose before the view [e/Å²].
    frames : int or None
        Of the movie.
    """

    name: str | None
    defocus_u: float
    defocus_v: float
    defocus_angle: float
    phase_shift: float = 0.0
    figure_of_merit: float | None = None
    max_resolution: float | None = None
    tilt_angle: float | None = None
    movie_index: int | None = None
    pre_exposure: float | None = None
    frames: int | None = None


def read_relion_ctf(path: StrPath) -> tuple[RelionCtf, ...]:
    """Read the one block of a STAR file that has defoci.

    Raises
    ------
    FormatError
        If no block has them or several have, a value is no number, or there are no rows.
    """
    blocks = read_star(path)
    found = [block for block in blocks.values() if "rlnDefocusU" in block.columns]
    if not found:
        listed = [b.column(SERIES_FILE) for b in blocks.values() if SERIES_FILE in b.columns]
        others = [name for names in listed for name in names]
        raise FormatError(
            path,
            "no column _rlnDefocusU",
            f"give the file of one series, such as {shown(others[0])}"
            if others
            else "give RELION's table of a series' CTFs, or micrographs_ctf.star",
        )
    if len(found) > 1:
        names = ", ".join(f"data_{block.name}" for block in found)
        raise FormatError(path, f"{names} all have defoci", "give the file of one series")
    (table,) = found
    if not table.rows:
        raise FormatError(path, f"no rows in data_{table.name}", "give a table with rows")
    return tuple(_row(path, dict(zip(table.columns, row, strict=True))) for row in table.rows)


def write_relion_ctf(path: StrPath, series: str, rows: Sequence[RelionCtf]) -> None:
    """Write the CTFs of a tilt series as RELION 5 lays them out.

    Columns of which nothing is known in any row are left out. An unknown figure of merit or
    resolution beside known ones is written as 0, which RELION never finds; `read_relion_ctf`
    takes 0 for unknown.
    """
    columns: dict[str, list[float | int | str | None]] = {
        "rlnMicrographMovieName": [row.name for row in rows],
        "rlnTomoTiltMovieFrameCount": [row.frames for row in rows],
        "rlnTomoTiltMovieIndex": [row.movie_index for row in rows],
        "rlnTomoNominalStageTiltAngle": [row.tilt_angle for row in rows],
        "rlnMicrographPreExposure": [row.pre_exposure for row in rows],
        "rlnDefocusU": [row.defocus_u for row in rows],
        "rlnDefocusV": [row.defocus_v for row in rows],
        "rlnCtfAstigmatism": [abs(row.defocus_u - row.defocus_v) for row in rows],
        "rlnDefocusAngle": [row.defocus_angle for row in rows],
        "rlnPhaseShift": [row.phase_shift or None for row in rows],
        "rlnCtfFigureOfMerit": [row.figure_of_merit for row in rows],
        "rlnCtfMaxResolution": [row.max_resolution for row in rows],
    }
    known = {name: values for name, values in columns.items() if any(v is not None for v in values)}
    for name in set(known) & {"rlnMicrographMovieName", "rlnTomoNominalStageTiltAngle"}:
        if None in known[name]:
            raise FormatError(path, f"_{name} of some rows is unknown", "give it for all or none")
    table = zip(*known.values(), strict=True)
    values = [printed([0.0 if value is None else value for value in row]) for row in table]
    write_star(path, [StarBlock(series, columns=tuple(known), rows=tuple(values))])


def _row(path: StrPath, values: dict[str, str]) -> RelionCtf:
    def get(name: str) -> float | None:
        return number(path, values[name], f"_{name}") if name in values else None

    def must(name: str) -> float:
        if name not in values:
            raise FormatError(path, f"no column _{name}", "add the column")
        return number(path, values[name], f"_{name}")

    def count(name: str) -> int | None:
        return whole(path, values[name], f"_{name}") if name in values else None

    failed = values.get("rlnCtfMaxResolution", "").lower() in {"inf", "+inf"}
    return RelionCtf(
        next((values[name] for name in NAMES if name in values), None),
        must("rlnDefocusU"),
        must("rlnDefocusV"),
        get("rlnDefocusAngle") or 0.0,
        get("rlnPhaseShift") or 0.0,
        get("rlnCtfFigureOfMerit") or None,
        math.inf if failed else get("rlnCtfMaxResolution") or None,
        get("rlnTomoNominalStageTiltAngle"),
        count("rlnTomoTiltMovieIndex"),
        get("rlnMicrographPreExposure"),
        count("rlnTomoTiltMovieFrameCount"),
    )
