"""Where tilt series are, and what the user says of them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.parameters.base import Parameters

GainRotation = Literal[0, 1, 2, 3]
GainFlip = Literal["none", "up-down", "left-right"]


class ImportParameters(Parameters):
    """Where the tilt series are, and what the user says of them.

    One of `mdoc`, `pattern` and `stack` tells where; what the user says beats the mdoc, which
    beats the files' headers.
    """

    mdoc: str | None = Field(
        None, description="mdoc files, of series or of single movies, with wildcards: 'DIR/*.mdoc'"
    )
    pattern: str | None = Field(
        None, description="movies by name, {TO} being the order: 'DIR/{TS}_{TO}_{TA}_*.mrc'"
    )
    stack: str | None = Field(
        None, description="tilt series without movies, with wildcards: 'DIR/*.st'"
    )
    movies: str | None = Field(
        None, description="folder of the movies; empty: beside the mdoc, or in its folder 'frames'"
    )
    angles: str | None = Field(
        None,
        description="tilt angles of stacks: 'mdoc', 'header', a file ('DIR/{TS}.rawtlt') or "
        "first,last,step; empty: what is beside the stack, else its header",
    )
    order: Literal["listed", "dose-symmetric", "bidirectional"] = Field(
        "listed", description="acquisition of views for which nothing else tells the order"
    )
    aligned: bool | None = Field(
        None, description="the images of a stack are aligned, the tilt axis is y; empty: if .ali"
    )
    pixel_size: float | None = Field(
        None, gt=0, description="pixel of the raw movies, of EER that of the detector [Å]"
    )
    voltage: float | None = Field(None, gt=0, description="acceleration voltage [kV]")
    cs: float | None = Field(None, ge=0, description="spherical aberration [mm]; 2.7 unless given")
    amplitude_contrast: float | None = Field(
        None, ge=0, lt=1, description="amplitude contrast; 0.07 unless given"
    )
    dose: float | None = Field(None, ge=0, description="dose of one view [e/Å²]")
    dose_weighted: bool = Field(
        False, description="the images are dose-weighted already: nothing weights them again"
    )
    ctf_corrected: bool | None = Field(
        None,
        description="the images are CTF-corrected already: nothing corrects them again; empty: as "
        "the header of a stack says",
    )
    initial_dose: float = Field(0.0, ge=0, description="dose before the first view [e/Å²]")
    tilt_axis: float | None = Field(
        None, ge=-360, le=360, description="tilt axis, counter-clockwise from image +y [°]"
    )
    magnification: float | None = Field(None, gt=0, description="nominal magnification")
    gain: str | None = Field(
        None, description="gain reference (MRC, .dm4, .gain): image = (raw − dark) · gain"
    )
    gain_rotate: GainRotation = Field(
        0, description="rotation of the gain, × 90° counter-clockwise, before the flip"
    )
    gain_flip: GainFlip = Field("none", description="flip of the gain")
    gain_inverted: bool = Field(False, description="the gain divides: image = (raw − dark) / gain")
    gain_orientation: Literal["given", "auto"] = Field(
        "given", description="auto: as the movies show it, if they do so clearly"
    )
    gain_check: bool = Field(True, description="warn when the movies show another orientation")
    dark: str | None = Field(None, description="dark reference, oriented as the gain")
    defects: str | None = Field(
        None, description="defects: lines of x y width height, SerialEM's list, or a map"
    )
    eer_dose: float = Field(
        0.5, gt=0, description="dose of a frame into which raw frames of EER are summed [e/Å²]"
    )
    eer_grouping: int | None = Field(
        None, ge=1, description="raw frames of EER in a frame; empty: as the dose of a frame asks"
    )
    eer_sampling: Literal[1, 2, 4] = Field(
        1, description="frame pixels along each side of a detector pixel, of EER"
    )
    dark_threshold: float = Field(
        0.1, ge=0, lt=1, description="a view is dark below this fraction of the expected mean"
    )
    allow_missing: bool = Field(
        False, description="import a series whose mdoc lists movies that are missing, without them"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("mdoc", "pattern", "stack") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{' and '.join(given) or 'nothing'} given: name the tilt series by one of mdoc, "
                "pattern and stack"
            )
        if self.gain_orientation == "auto" and self.gain is None:
            raise ValueError("gain_orientation auto without a gain: give --gain")
        return self
