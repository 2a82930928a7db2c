"""Parameters of the choice of views, and of what prepares their images."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from tasks.parameters.base import Pair, Parameters

ReductionFilter = Literal[
    "fourier", "box", "blackman", "triangle", "mitchell", "lanczos2", "lanczos3"
]


class ExcludeParameters(Parameters):
    """Choice of the views that later steps use.

    Views that are half as bad as those left out are kept, and named as doubtful.
    """

    dark_threshold: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="a view is dark below this fraction of the expected mean; 0 detects none",
    )
    blocked_threshold: float = Field(
        0.3,
        ge=0,
        le=1,
        description="a view is blocked where more than this share of its field is; 0 detects none",
    )
    shift_threshold: float = Field(
        0.5,
        ge=0,
        description="a view is shifted by more than this share of the field; 0 detects none",
    )
    blur_threshold: float = Field(
        0.7,
        ge=0,
        le=1,
        description="a view is blurred where more than this share of its detail is missing; 0 "
        "detects none",
    )
    motion_threshold: float = Field(
        10.0,
        ge=0,
        description="a view is doubtful that moves so many times as much as others; 0: none is",
    )
    views: dict[str, str] = Field(
        default_factory=dict,
        description="views to leave out by series, from 1, sorted by tilt: {'TS_01': '1,3-5'}",
    )
    list: str | None = Field(
        None, description="file of such views, of lines 'TS_01 1' or 'TS_03 1-3,40'"
    )
    include: dict[str, str] = Field(
        default_factory=dict,
        description="views to keep whatever the detection says, written likewise",
    )
    include_list: str | None = Field(None, description="file of views to keep, written likewise")
    # Left out of the results' names where there are none, as in results of before it was there.
    subset_views: dict[str, str] = Field(
        default_factory=dict,
        exclude_if=lambda views: not views,
        description="views that a subset leaves out, as --subset writes them; {} forgets it",
    )

    def for_series(self, name: str) -> Self:
        """Return the lists of this series only: those of others must not change its results."""
        own = {
            field: {key: text for key, text in getattr(self, field).items() if key == name}
            for field in ("views", "include", "subset_views")
        }
        return self.model_copy(update=own)


class EraseParameters(Parameters):
    """Erasing of X-ray hits and hot pixels."""

    peak: float = Field(
        8.0, gt=0, description="hits that rise so many local standard deviations are found"
    )
    difference: float = Field(
        5.0, gt=0, description="over the brighter half of their surroundings at least so many"
    )
    max_radius: float = Field(4.2, gt=0, description="largest radius of a hit [pixels]")
    big_difference: float = Field(
        19.0, gt=0, description="twice as wide where they rise so many standard deviations"
    )
    compare_views: bool = Field(
        True, description="the views tell of each other: defects of the detector, the specimen"
    )


class DoseParameters(Parameters):
    """Weighting of the views by the dose that they have seen."""

    apply: bool = Field(
        True, description="damp what the beam has destroyed (Grant & Grigorieff 2015)"
    )
    critical_dose_ratio: float | None = Field(
        None, gt=0, description="critical dose relative to 300 kV; needed but for 300 and 200 kV"
    )
    moment: Literal["end", "middle"] = Field(
        "end", description="dose seen at the end of a view, or in its middle"
    )
    keep_noise: bool = Field(
        False, description="divide by what the weights of all views leave of white noise"
    )
    write: bool = Field(
        False, description="write the weighted images; else whatever reads them weights them"
    )


class PreprocessParameters(Parameters):
    """Stacks of the erased views, for other programs and for looking; no later step reads them."""

    binning: float = Field(
        4.0, ge=1, le=64, description="pixels of the images per pixel of the stack, any factor"
    )
    filter: ReductionFilter = Field(
        "fourier", description="against aliasing: Fourier cropping, or one of IMOD's kernels"
    )
    normalise: Literal["none", "mean", "mean-sd"] = Field(
        "none", description="bring the views to a common mean, or mean and standard deviation"
    )
    target_mean: float = Field(0.0, description="that mean")
    target_sd: float = Field(1.0, gt=0, description="that standard deviation")
    crop: Pair | None = Field(
        None, description="rows and columns kept around the centre [pixels of the images]"
    )
    taper: int = Field(
        0, ge=0, description="width over which the edges fade to the mean [pixels of the stack]"
    )
    excluded: Literal["keep", "drop"] = Field(
        "keep", description="views left out: keep them, flagged in the table, or drop them"
    )
