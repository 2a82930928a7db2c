"""The steps of the pipeline, and what each one reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasks.parameters import Parameters, Pipeline


@dataclass(frozen=True)
class Step:
    """One step of the pipeline.

    Attributes
    ----------
    name : str
        Of its parameters, its command, its task and its flow.
    version : int
        Of its algorithm: raise it whenever its output on a fixed input changes.
    reads : tuple of str
        Fields of the imported record: ``acquisition.voltage``, ``views.dose``, ``shape``, …
    about : str
        One line for the command line and the report.
    inputs : tuple of str
        Steps whose results it reads; `inputs_of` resolves choices made by parameters.
    result : str
        Prefix of its results in the store.
    also : mapping of str to tuple of str
        Parameter → further fields of the imported record that it reads where that is true.
    asks : mapping of str to tuple of str
        Parameter → further steps whose results it reads where that is true.
    files : tuple of str
        Parameters that are paths of files, whose content counts and not where they lie; ``{TS}``
        in a path stands for the series.
    side : bool
        Whether nothing reads its result: a run takes it only where it is asked for.
    """

    name: str
    version: int
    reads: tuple[str, ...]
    about: str
    inputs: tuple[str, ...] = ()
    result: str = ""
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    asks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    side: bool = False

    @property
    def prefix(self) -> str:
        """Of the names of its results in the store."""
        return self.result or self.name


# In the order in which `tiltflow run` takes them.
STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step(
            "motion",
            version=2,
            reads=(
                "shape",
                "views.movie",
                "views.first_frame",
                "views.frames",
                "views.grouping",
                "views.tilt_angle",
                "acquisition.pixel_size",
                "acquisition.gain",
                "acquisition.gain_rotation",
                "acquisition.gain_flip",
                "acquisition.gain_inverted",
                "acquisition.dark",
                "acquisition.defects",
                "acquisition.eer_sampling",
            ),
            about="correct each movie for gain and beam-induced motion, and sum its frames",
            also={"dose_weighted": ("views.prior_dose", "views.dose", "acquisition.voltage")},
        ),
        Step(
            "exclude",
            version=2,
            reads=(
                "name",
                "views.tilt_angle",
                "views.excluded",
                "acquisition.tilt_axis",
                "acquisition.pixel_size",
            ),
            about="find dark, blocked, shifted and blurred views; leave out what the user names",
            inputs=("motion",),
            files=("list", "include_list"),
        ),
        Step(
            "ctf",
            version=2,
            reads=(
                "views.tilt_angle",
                "views.order",
                "acquisition.voltage",
                "acquisition.cs",
                "acquisition.amplitude_contrast",
                "acquisition.pixel_size",
                "acquisition.tilt_axis",
            ),
            about="estimate defocus and astigmatism of each view",
            inputs=("motion", "exclude"),
            files=("ctf_from", "expected_defocus_list"),
        ),
        Step(
            "erase",
            version=2,
            reads=(),
            about="erase X-ray hits and hot pixels",
            inputs=("motion", "exclude"),
        ),
        Step(
            "dose",
            version=3,
            reads=(
                "views.prior_dose",
                "views.dose",
                "acquisition.dose_weighted",
                "acquisition.voltage",
                "acquisition.pixel_size",
            ),
            about="weight each view by the dose that the specimen has seen",
            inputs=("erase",),
        ),
        Step(
            "preprocess",
            version=1,
            reads=("views.tilt_angle", "acquisition.pixel_size", "acquisition.dose_weighted"),
            about="write the views binned, normalised and cropped, for other programs",
            inputs=("motion", "exclude", "erase"),
            side=True,
        ),
        Step(
            "coarse",
            version=5,
            reads=("views.tilt_angle", "acquisition.tilt_axis", "acquisition.pixel_size"),
            about="align the views by cosine-stretched cross-correlation",
            inputs=("dose", "exclude"),
            asks={"turn_axis_on_hand": ("ctf",)},
            files=("alignment_from",),
        ),
        Step(
            "fiducials",
            version=1,
            reads=("views.tilt_angle", "acquisition.tilt_axis", "acquisition.pixel_size"),
            about="find gold beads and follow them through the views",
            inputs=("erase", "exclude", "coarse"),
        ),
        Step(
            "align",
            version=1,
            reads=(
                "views.tilt_angle",
                "views.prior_dose",
                "views.dose",
                "acquisition.tilt_axis",
                "acquisition.pixel_size",
            ),
            about="align the views by their beads: bundle adjustment",
            inputs=("exclude", "coarse", "fiducials"),
            files=("beads_from",),
        ),
        Step(
            "markerfree",
            version=7,
            reads=(
                "views.tilt_angle",
                "views.order",
                "views.prior_dose",
                "views.dose",
                "acquisition.tilt_axis",
                "acquisition.pixel_size",
            ),
            about="refine the alignment, global and local, by matching projections of the specimen",
            inputs=("dose", "exclude", "coarse"),
            asks={"reads_ctf": ("ctf",), "joins_beads": ("fiducials",)},
        ),
        Step(
            "thickness",
            version=3,
            reads=(
                "views.tilt_angle",
                "views.prior_dose",
                "views.dose",
                "acquisition.pixel_size",
            ),
            about="measure thickness, height, pitch and rise of the specimen",
            inputs=("dose", "exclude", "{alignment_step}"),
            asks={"reads_ctf": ("ctf",), "erase_gold": ("align",)},
        ),
        Step(
            "ctf2d",
            version=2,
            reads=(
                "views.tilt_angle",
                "views.order",
                "acquisition.voltage",
                "acquisition.cs",
                "acquisition.amplitude_contrast",
                "acquisition.pixel_size",
                "acquisition.tilt_axis",
                "acquisition.dose_weighted",
            ),
            about="correct each view for the CTF in strips along the tilt axis",
            inputs=("{images}", "ctf"),
            asks={"by_position": ("thickness",), "by_alignment": ("{alignment_step}",)},
            side=True,
        ),
        Step(
            "transform",
            version=1,
            reads=(
                "views.tilt_angle",
                "acquisition.tilt_axis",
                "acquisition.pixel_size",
                "acquisition.dose_weighted",
            ),
            about="write the views aligned by one interpolation, for other programs",
            inputs=("{images}", "exclude"),
            asks={"by_alignment": ("{alignment_step}",), "erase_gold": ("align",)},
            files=("xf",),
            side=True,
        ),
        Step(
            "reconstruct",
            version=5,
            reads=("views.tilt_angle", "acquisition.pixel_size"),
            also={
                "deconvolve": (
                    "views.order",
                    "acquisition.voltage",
                    "acquisition.cs",
                    "acquisition.amplitude_contrast",
                )
            },
            about="reconstruct the tomogram by weighted back-projection, SIRT or SART",
            inputs=("{images}", "exclude", "{alignment_step}"),
            asks={
                "by_position": ("thickness",),
                "erase_gold": ("align",),
                "by_frames": ("motion", "erase"),
                "deconvolve": ("ctf",),
            },
            result="tomogram",
        ),
        Step(
            "ctf3d",
            version=3,
            reads=(
                "views.tilt_angle",
                "views.order",
                "acquisition.pixel_size",
                "acquisition.voltage",
                "acquisition.cs",
                "acquisition.amplitude_contrast",
            ),
            about="reconstruct the tomogram from views corrected for the CTF at planes of defocus",
            inputs=("dose", "exclude", "{alignment_step}", "ctf"),
            asks={
                "by_position": ("thickness",),
                "erase_gold": ("align",),
                "by_frames": ("motion", "erase"),
            },
            side=True,
        ),
    )
}


# Steps that decide the geometry of the views, the one to be preferred first.
ALIGNMENTS = ("align", "markerfree", "coarse")


def inputs_of(step: Step, parameters: Parameters) -> tuple[str, ...]:
    """Return the steps whose results `step` reads, as its parameters choose them."""
    asked = (names for name, names in step.asks.items() if getattr(parameters, name))
    names = (*step.inputs, *(name for names in asked for name in names))
    return tuple(dict.fromkeys(_chosen(name, parameters) for name in names))


def _chosen(name: str, parameters: Parameters) -> str:
    """Return a step's name, as ``{parameter}`` chooses it."""
    return str(getattr(parameters, name[1:-1])) if name.startswith("{") else name


def reads_of(step: Step, parameters: Parameters) -> tuple[str, ...]:
    """Return the fields of the imported record that `step` reads, as its parameters choose them."""
    asked = (fields for name, fields in step.also.items() if getattr(parameters, name))
    return (*step.reads, *(field for fields in asked for field in fields))


def file_of(parameters: Parameters, name: str, series: str) -> Path | None:
    """Return the path that parameter `name` gives for a series, None where it gives none."""
    given = getattr(parameters, name)
    return Path(os.path.expanduser(given.replace("{TS}", series))) if given else None


def needed(
    pipeline: Pipeline, until: str | None = None, also: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the names of the steps that a run takes, in order.

    Parameters
    ----------
    pipeline : Pipeline
    until : str, optional
        The last step wanted; by default the tomogram.
    also : iterable of str, optional
        Further steps wanted.
    """
    wanted: set[str] = set()

    def add(name: str) -> None:
        wanted.add(name)
        for before in inputs_of(STEPS[name], getattr(pipeline, name)):
            add(before)

    add(until or "reconstruct")
    if until is None:
        add("ctf")  # nothing reads it yet, but every user wants it
    for name in also:
        add(name)
    return tuple(name for name in STEPS if name in wanted)
