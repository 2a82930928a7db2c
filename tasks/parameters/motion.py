"""Parameters of what turns movies into images."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from tasks.parameters.base import Pair, Parameters

LEAST_PIXELS = 16  # along each side of an image


class SumParameters(Parameters):
    """Summing of the frames of the movies."""

    binning: float = Field(
        1.0,
        ge=1,
        le=16,
        description="Fourier-cropping of the corrected images; 2 for super-resolution movies",
    )
    first_frame: int = Field(1, ge=1, description="first frame used, from 1")
    last_frame: int | None = Field(None, ge=1, description="last frame used; empty: the last one")
    crop: Pair | None = Field(
        None, description="rows and columns kept around the centre of the frames [pixels]"
    )
    find_bad_pixels: bool = Field(
        True, description="find bad pixels in the sum of a movie, and replace them"
    )

    @model_validator(mode="after")
    def _frames_in_order(self) -> Self:
        if self.last_frame is not None and self.last_frame < self.first_frame:
            raise ValueError(f"last frame {self.last_frame} before first frame {self.first_frame}")
        if self.crop is not None and min(self.crop) < LEAST_PIXELS * self.binning:
            raise ValueError(
                f"crop {self.crop[0]}×{self.crop[1]} leaves less than {LEAST_PIXELS} pixels at "
                f"binning {self.binning:g}"
            )
        return self


class MotionParameters(SumParameters):
    """Motion correction of the movies."""

    align: bool = Field(True, description="align the frames; false sums them as they are")
    local: bool = Field(True, description="correct local motion where a movie supports it")
    patches: Pair | None = Field(
        None, description="patches along y and x for the local motion; empty: one every 230 Å"
    )
    group: int = Field(1, ge=1, description="frames summed before they are aligned as a whole")
    group_local: int = Field(1, ge=1, description="frames summed before patches are aligned")
    reference_frame: int = Field(
        1, ge=1, description="frame whose place the image has, counted from the first one used"
    )
    b_factor: float | None = Field(
        None, ge=0, description="further low-pass of whole frames [Å²]; empty: as the data have it"
    )
    b_factor_local: float | None = Field(None, ge=0, description="that of patches [Å²]")
    max_drift: float = Field(
        80.0, gt=0, description="largest steady drift during a movie, per axis [Å]"
    )
    dose_weighted: bool = Field(
        False, description="also write the sum of frames weighted by dose; no later step reads it"
    )
