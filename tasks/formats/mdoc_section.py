"""One section of an mdoc: the fields of a view or a movie, as numbers, names and times."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tasks.formats.errors import FormatError, shown
from tasks.formats.files import file_name, number, whole

KINDS = ("ZValue", "FrameSet", "MontSection")

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAY_FIRST = re.compile(r"(\d{1,2})-(\w+)-(\d{4}|\d{2})[\sT]+(\d{1,2}):(\d{2}):(\d{2})", re.ASCII)
_YEAR_FIRST = re.compile(r"(\d{4})-(\w+)-(\d{1,2})[\sT]+(\d{1,2}):(\d{2}):(\d{2})", re.ASCII)


@dataclass(frozen=True)
class MdocSection:
    """One ``[ZValue = n]`` (a view), ``[FrameSet = n]`` (a movie) or ``[MontSection = n]``.

    A property is None, or empty, where its field is missing; it raises FormatError where the
    field holds something else than its kind of value.
    """

    kind: str
    number: int
    fields: Mapping[str, str]
    path: Path = Path("mdoc")
    line: int | None = None

    @property
    def tilt_angle(self) -> float | None:
        """Stage tilt in degrees."""
        return self._float("TiltAngle")

    @property
    def rotation_angle(self) -> float | None:
        """Tilt-axis angle + 90, in degrees."""
        return self._float("RotationAngle")

    @property
    def pixel_spacing(self) -> float | None:
        """Pixel of the image in SerialEM's stack, in Å: binned more than the movie, often."""
        return self._float("PixelSpacing")

    @property
    def camera_pixel(self) -> float | None:
        """Pixel of the camera in Å: PixelSpacing without Binning, which is 0.5 where it is finer.

        SerialEM's DoseRate refers to it.
        """
        spacing, binning = self.pixel_spacing, self.binning
        return spacing / binning if spacing and binning else None

    @property
    def binning(self) -> float | None:
        """Binning of the image in SerialEM's stack; 0.5 for super-resolution."""
        return self._float("Binning")

    @property
    def stage_position(self) -> tuple[float, float] | None:
        """Stage x and y in µm."""
        values = self._floats("StagePosition")
        return None if len(values) < 2 else (values[0], values[1])

    @property
    def piece(self) -> tuple[float, ...]:
        """Place (x, y, section) of a piece in its montage [pixels]."""
        return self._floats("PieceCoordinates")

    @property
    def frame_range(self) -> tuple[int, int] | None:
        """First and one past the last frame of the view, from 0, in a movie of several views."""
        values = self._floats("FrameTSStartEndFrames")
        if not values:
            return None
        first, end = (int(values[0]), int(values[1])) if len(values) == 2 else (0, 0)
        if not 0 <= first < end:
            text = self.fields["FrameTSStartEndFrames"]
            raise self._error(f"FrameTSStartEndFrames = {shown(text)} is no range of frames")
        return first, end

    @property
    def prior_dose(self) -> float | None:
        """Dose before the view in e/Å², as SerialEM counts it."""
        return self._float("PriorRecordDose")

    @property
    def exposure_dose(self) -> float | None:
        """Dose of the view in e/Å²; 0 where SerialEM was not calibrated."""
        return self._float("ExposureDose")

    @property
    def exposure_time(self) -> float | None:
        """Exposure in s."""
        return self._float("ExposureTime")

    @property
    def dose_rate(self) -> float | None:
        """Dose rate at the camera in e/(unbinned pixel · s)."""
        return self._float("DoseRate")

    @property
    def counts_per_electron(self) -> float | None:
        """Camera gain."""
        return self._float("CountsPerElectron")

    @property
    def voltage(self) -> float | None:
        """Voltage in kV, where it stands in the section."""
        return self._float("Voltage")

    @property
    def divided_by_2(self) -> bool:
        """Whether SerialEM halved the counts to fit 16 bits."""
        return bool(self._float("DividedBy2"))

    @property
    def num_sub_frames(self) -> int | None:
        """Frames in the movie."""
        text = self.fields.get("NumSubFrames")
        return None if text is None else whole(self.path, text, "NumSubFrames", self.line)

    @property
    def frame_doses(self) -> tuple[tuple[float, int], ...]:
        """Pairs of dose per frame in e/Å² and number of such frames, in order."""
        name = "FrameDosesAndNumber"
        words = self.fields.get(name, "").split()
        if len(words) % 2:
            raise self._error(f"{name} = {shown(self.fields[name])} is not made of pairs")
        return tuple(
            (
                number(self.path, dose, name, self.line),
                whole(self.path, frames, name, self.line),
            )
            for dose, frames in zip(words[::2], words[1::2], strict=True)
        )

    @property
    def min_max_mean(self) -> tuple[float, float, float] | None:
        """Least, greatest and mean count of the view."""
        text = self.fields.get("MinMaxMean")
        if text is None:
            return None
        values = [number(self.path, word, "MinMaxMean", self.line) for word in text.split()]
        if len(values) != 3:
            raise self._error(f"MinMaxMean = {shown(text)} is not three numbers")
        return values[0], values[1], values[2]

    @property
    def movie_name(self) -> str | None:
        r"""File name in SubFramePath, of ``D:\…`` and ``/…`` paths alike; never a folder's."""
        return file_name(self.fields.get("SubFramePath", ""))

    @property
    def date_time(self) -> datetime | None:
        """When the view was taken."""
        text = self.fields.get("DateTime", "").strip()
        if not text:
            return None
        if match := _DAY_FIRST.match(text):
            day, month, year = match[1], match[2], match[3]
        elif match := _YEAR_FIRST.match(text):
            year, month, day = match[1], match[2], match[3]
        else:
            raise self._error(f"DateTime = {shown(text)} is not like 30-Nov-15  15:21:38")
        name = month[:3].lower()
        try:
            return datetime(
                int(year) + (2000 if len(year) == 2 else 0),
                MONTHS.index(name) + 1 if name in MONTHS else int(month),
                int(day),
                int(match[4]),
                int(match[5]),
                int(match[6]),
            )
        except ValueError:
            raise self._error(f"DateTime = {shown(text)} is no date") from None

    def _float(self, name: str) -> float | None:
        text = self.fields.get(name)
        return None if text is None else number(self.path, text, name, self.line)

    def _floats(self, name: str) -> tuple[float, ...]:
        words = self.fields.get(name, "").split()
        return tuple(number(self.path, word, name, self.line) for word in words)

    def _error(self, problem: str) -> FormatError:
        return FormatError(
            self.path, f"{problem} ([{self.kind} = {self.number}])", "correct or delete the line",
            self.line,
        )  # fmt: skip
