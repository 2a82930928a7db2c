"""The gain, dark reference and defects that the user gives, checked against the movies."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from tasks.acquisition import Report
from tasks.errors import UnusableData
from tasks.formats.defects import read_defect_mask
from tasks.formats.gain_files import FINEST, read_reference
from tasks.identity import identify
from tasks.parameters import ImportParameters
from tasks.record import FileIdentity

Shape = tuple[int, int]


def gain_file(user: ImportParameters, report: Report, shape: Shape) -> FileIdentity | None:
    """Return the gain that the user gives, after a look at its size and values.

    Raises
    ------
    UnusableData, FormatError
        If it is missing, no reference, of another size than the frames, or nowhere above 0.
    """
    identity = _reference("gain", user.gain, report, shape, _turn(user))
    if identity is not None and not _looked_at(Path(identity.path), identity.mtime_ns)[1]:
        raise UnusableData(f"{identity.path}: no pixel is above 0: give the gain of these movies")
    return identity


def dark_file(user: ImportParameters, report: Report, shape: Shape) -> FileIdentity | None:
    """Return the dark reference that the user gives; raises as `gain_file` does."""
    return _reference("dark reference", user.dark, report, shape, _turn(user))


def defects_file(user: ImportParameters, report: Report, shape: Shape) -> FileIdentity | None:
    """Return the defects that the user gives; what cannot be used is refused now, not in a run.

    Raises
    ------
    UnusableData, FormatError
        If they are missing, in none of the formats, or of another size than the frames.
    """
    identity = _reference("defects", user.defects, report)
    if identity is not None:
        read_defect_mask(identity.path, shape)
    return identity


def identity_of(path: Path) -> FileIdentity:
    """Return the identity of a raw file, taken once while it stays as it is."""
    status = path.stat()
    return _identified(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)  # all views of a stack, and the gain of all series, are one file each
def _identified(path: Path, _size: int, _mtime_ns: int) -> FileIdentity:
    return identify(path)


def _reference(
    what: str,
    path: str | None,
    report: Report,
    shape: Shape | None = None,
    rotation: int | None = 0,
) -> FileIdentity | None:
    if path is None:
        report.add(what, "none", "default")
        return None
    file = Path(path).expanduser()
    if not file.is_file():
        raise UnusableData(f"{file}: no such file: correct the path of the {what}")
    doubt = None
    if shape is not None:
        found, _ = _looked_at(file.absolute(), file.stat().st_mtime_ns)
        upright = rotation % 2 == 0 if rotation is not None else _fit(found, shape)
        turned = found if upright else found[::-1]
        if not _fit(turned, shape):
            raise UnusableData(
                f"{file}: {turned[0]}×{turned[1]} pixels as rotated, the movies have "
                f"{shape[0]}×{shape[1]}: give the {what} of these movies, or --gain-rotate"
            )
        if turned != shape:
            doubt = f"{turned[0]}×{turned[1]} pixels, the movies {shape[0]}×{shape[1]}: resampled"
    report.add(what, file, "user", doubt)
    return identity_of(file)


def _turn(user: ImportParameters) -> int | None:
    """Return the rotation of the references, None where the movies will tell it."""
    return None if user.gain_orientation == "auto" else user.gain_rotate


@lru_cache(maxsize=16)
def _looked_at(file: Path, _mtime_ns: int) -> tuple[Shape, bool]:
    """Return the shape of a reference, and whether any pixel of it is above 0."""
    values = read_reference(file)
    ny, nx = values.shape
    return (ny, nx), bool((values > 0).any())


def _fit(reference: Shape, frames: Shape) -> bool:
    """Tell whether a reference is that of the frames at the same or another sampling."""
    return any(
        (reference[0] * a, reference[1] * a) == (frames[0] * b, frames[1] * b)
        for a, b in ((1, 1), (2, 1), (FINEST, 1), (1, 2), (1, FINEST))
    )
