"""SerialEM's .mdoc: how each view of a tilt series was taken."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tasks.formats.errors import FormatError, shown
from tasks.formats.files import StrPath, number, read_lines, whole, write_text
from tasks.formats.mdoc_section import KINDS, MONTHS, MdocSection

__all__ = ["Mdoc", "MdocSection", "MontageError", "read_mdoc", "section_from_values", "write_mdoc"]

_AXIS_SERIALEM = re.compile(r"tilt\s+axis\s+angle\s*=\s*([^\s,;\]]+)", re.IGNORECASE)
_AXIS_TOMOGRAPHY5 = re.compile(r"tiltaxisangle\s*=\s*([^\s,;\]]+)", re.IGNORECASE)
_BINNING = re.compile(r"\bbinning\s*=\s*([^\s,;\]]+)", re.IGNORECASE)


class MontageError(FormatError):
    """An mdoc is that of a montage."""


@dataclass(frozen=True)
class Mdoc:
    """An mdoc file; `ignored` holds the lines that fit nowhere, with their numbers."""

    path: Path
    header: Mapping[str, str]
    titles: tuple[str, ...]
    sections: tuple[MdocSection, ...]
    ignored: tuple[tuple[int, str], ...] = ()

    @property
    def views(self) -> tuple[MdocSection, ...]:
        """The sections that are views: ZValue, or FrameSet in the mdoc of one movie."""
        for kind in KINDS[:2]:
            if found := tuple(s for s in self.sections if s.kind == kind):
                return found
        return ()

    @property
    def views_by_time(self) -> tuple[MdocSection, ...]:
        """The views in the order they were taken: by DateTime, or by number where one is missing.

        SerialEM may have sorted the stack, and with it ZValue, by tilt angle.
        """
        views = tuple(sorted(self.views, key=lambda view: view.number))
        times = [view.date_time for view in views]
        if any(time is None for time in times):
            return views
        order = sorted(range(len(views)), key=lambda i: times[i] or datetime.min)
        return tuple(views[i] for i in order)

    @property
    def is_montage(self) -> bool:
        """Whether its sections are pieces of images; one piece for each angle makes no montage."""
        if any(section.kind == "MontSection" for section in self.sections):
            return True
        if self.header.get("Montage") != "1":
            return False
        places = {section.piece[:2] for section in self.sections}
        tilts = {round(section.tilt_angle or 0) for section in self.sections}
        return len(places) > 1 or places == {()} or len(tilts) < 2

    @property
    def is_tomography5(self) -> bool:
        """Whether Thermo Fisher's Tomography 5 wrote it: its RotationAngle is the axis itself."""
        return self._in_titles(_AXIS_TOMOGRAPHY5, "TiltAxisAngle") is not None

    @property
    def tilt_axis(self) -> float | None:
        """Tilt-axis angle in degrees, counter-clockwise from image +y; None where not stated.

        SerialEM's title gives it as it is; Tomography 5 gives ``TiltAxisAngle`` = −axis − 90.
        """
        if (value := self._in_titles(_AXIS_SERIALEM, "Tilt axis angle")) is not None:
            return value
        if (value := self._in_titles(_AXIS_TOMOGRAPHY5, "TiltAxisAngle")) is None:
            return None
        axis = -value - 90
        return axis if -180 < axis <= 180 else math.remainder(axis, 360)

    @property
    def binning(self) -> float | None:
        """Binning in the title, 0.5 for super-resolution."""
        return self._in_titles(_BINNING, "binning")

    @property
    def voltage(self) -> float | None:
        """Voltage in kV."""
        if (text := self.header.get("Voltage")) is not None:
            return number(self.path, text, "Voltage")
        return next((v for s in self.sections if (v := s.voltage) is not None), None)

    @property
    def pixel_spacing(self) -> float | None:
        """Pixel of SerialEM's stack in Å, from the header."""
        text = self.header.get("PixelSpacing")
        return None if text is None else number(self.path, text, "PixelSpacing")

    def _in_titles(self, pattern: re.Pattern[str], name: str) -> float | None:
        lines = (*self.titles, *(f"{key} = {value}" for key, value in self.header.items()))
        found = next((match for line in lines if (match := pattern.search(line))), None)
        return None if found is None else number(self.path, found[1], name)


def read_mdoc(path: StrPath, montage: bool = False) -> Mdoc:
    """Read an mdoc: keys in any order, any line ends, ``=`` in values, keys missing.

    Parameters
    ----------
    path
        The file.
    montage
        Whether to accept montages, whose sections are pieces of an image and not views.

    Raises
    ------
    FormatError
        If the file is no text or has no section.
    MontageError
        If it is a montage.
    """
    path = Path(path)
    header: dict[str, str] = {}
    titles: list[str] = []
    sections: list[MdocSection] = []
    ignored: list[tuple[int, str]] = []
    fields = header
    for n, raw in enumerate(read_lines(path), 1):
        line = raw.strip()
        bracketed = line.startswith("[") and line.endswith("]")
        key, equals, value = (line[1:-1] if bracketed else line).partition("=")
        key, value = key.strip(), value.strip()
        if not line:
            continue
        if not equals or not key:
            ignored.append((n, line))
        elif key == "T":
            titles.append(value)
        elif bracketed and key in KINDS:
            fields = {}
            section_number = whole(path, value, key, n)
            sections.append(MdocSection(key, section_number, fields, path, n))
        elif bracketed:
            fields = {}  # a kind of section that we do not know: leave it out
            ignored.append((n, line))
        else:
            fields[key] = value
    if not sections:
        raise FormatError(
            path, "no [ZValue = n] or [FrameSet = n] section", "give a SerialEM .mdoc file"
        )
    mdoc = Mdoc(path, header, tuple(titles), tuple(sections), tuple(ignored))
    if mdoc.is_montage and not montage:
        raise MontageError(
            path,
            "Montage = 1: its sections are pieces of one image, not views of a tilt series",
            "leave this file out",
        )
    return mdoc


def section_from_values(
    number: int, values: Mapping[str, object], kind: str = "ZValue"
) -> MdocSection:
    """Return a section with `values` as SerialEM prints them (sequences by spaces, %.6g)."""
    return MdocSection(kind, number, {key: _printed(value) for key, value in values.items()})


def write_mdoc(path: StrPath, mdoc: Mdoc) -> None:
    """Write `mdoc` in SerialEM's layout.

    Raises
    ------
    FormatError
        If a key, value or title would not read back, or a value is NaN.
    """
    blocks = [_printed_fields(path, mdoc.header)]
    blocks += [f"[T = {_checked(path, 'title', title)}]\n" for title in mdoc.titles]
    for section in mdoc.sections:
        if section.kind not in KINDS:
            raise FormatError(path, f"section {shown(section.kind)}", f"use one of {KINDS}")
        fields = _printed_fields(path, section.fields)
        blocks.append(f"[{section.kind} = {section.number}]\n{fields}")
    write_text(path, "\n".join(blocks) + "\n")


def _printed(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        month = MONTHS[value.month - 1].capitalize()
        return f"{value.day:02d}-{month}-{value.year % 100:02d}  {value:%H:%M:%S}"
    if isinstance(value, (tuple, list)):
        return " ".join(_printed(item) for item in value)
    return str(value)


def _printed_fields(path: StrPath, fields: Mapping[str, str]) -> str:
    for key in fields:
        if key == "T" or not key or "=" in key or key.startswith("["):
            raise FormatError(path, f"key {shown(key)} would not read back", "rename it")
    return "".join(
        f"{_checked(path, 'key', key)} = {_checked(path, key, value)}\n"
        for key, value in fields.items()
    )


def _checked(path: StrPath, name: str, text: str) -> str:
    if text != text.strip() or not text.isprintable():
        raise FormatError(path, f"{name} {shown(text)} would not read back", "keep to one line")
    if any(word.lower() in {"nan", "inf", "-nan", "-inf"} for word in text.split()):
        raise FormatError(path, f"{name} is {shown(text)}", "give a number")
    return text
