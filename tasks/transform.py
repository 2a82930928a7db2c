"""Aligned stacks for other programs: every view interpolated once into the aligned frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.align_coarse import aligned_shape
from kernels.fourier import Shape
from kernels.resample import Field, sampling
from tasks.alignment import deformation_of, field_for
from tasks.bead_store import gold_in_view
from tasks.choice import settled_step
from tasks.chunks.dose import Weighting
from tasks.chunks.stacks import memory_of_transform, transform_view
from tasks.ctf_provenance import CTF_CORRECTED, already_corrected
from tasks.formats.imod import read_xf
from tasks.formats.imod_geometry import centre_offset, sampling_from_xf, xf_rotation
from tasks.import_alignment import lines_of_views
from tasks.parameters import Execution, TransformParameters
from tasks.preprocess import checked_size, is_weighted, kept_views
from tasks.scatter import Unit
from tasks.steps import file_of
from tasks.work import Outcome, Work, begin, step_task

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Mapping:
    """Where the aligned views take their pixels from.

    Attributes
    ----------
    shape : (ny, nx)
        Of the aligned views.
    centre : (float, float)
        Index (y, x) at which the origin of the alignment lies in them.
    samplings : list of (matrix, offset)
        Of each view: aligned indices (y, x) to those of the reduced raw view.
    axes : list of float
        Tilt axis in the raw view, counter-clockwise from image +y [degrees].
    fields : list of Field or None
        Deformation of each view to undo.
    """

    shape: Shape
    centre: tuple[float, float]
    samplings: list[tuple[Matrix, Matrix]]
    axes: list[float]
    fields: list[Field | None]


@step_task("transform")
def transform(
    project: str,
    series: str,
    parameters: TransformParameters = TransformParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Reduce the views and turn them into the aligned frame, one worker per view.

    Writes ``images`` (section, y, x) with the tilt axis along y. No step of the pipeline reads
    them: those interpolate the raw views for themselves, and once.
    """
    parameters = settled_step(parameters, project, series, branch)
    work = begin("transform", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    source, views = work.input(parameters.images), work.record.views
    shape = (source.images().shape[1], source.images().shape[2])
    reduced = checked_size(series, "transform", shape, parameters.binning)
    xf = file_of(parameters, "xf", series)
    mapping = (
        _from_alignment(work, shape, reduced, parameters)
        if xf is None
        else _from_xf(work, xf, shape, reduced, parameters)
    )
    sections, weighting = kept_views(work, parameters.excluded), Weighting.of(source)
    pixel_size = work.image_pixel_size * parameters.binning
    work.result.create_array(
        "images", (len(sections), *mapping.shape), (1, *mapping.shape), axes=("view", "y", "x")
    )
    reports = work.scatter(
        transform_view,
        [
            Unit(
                f"view-{i:03d}",
                (
                    source,
                    work.result,
                    i,
                    section,
                    mapping.samplings[i][0].tolist(),
                    mapping.samplings[i][1].tolist(),
                    pixel_size,
                    weighting,
                    parameters,
                    mapping.fields[i],
                    gold_in_view(work, parameters, i),
                ),
            )
            for section, i in enumerate(sections)
        ],
        memory=memory_of_transform(shape, reduced, mapping.shape),
    )
    tilts = [work.record.geometry(i).tilt for i in sections]
    weighted = weighting is not None or is_weighted(work, source)
    ny, nx = mapping.shape
    return work.finish(
        f"{len(sections)} views of {nx}×{ny} pixels of {pixel_size:.4g} Å, aligned by "
        f"{'the .xf file' if xf else parameters.alignment}, "
        f"{'dose-weighted' if weighted else 'not weighted by dose'}",
        table=[
            {
                "view": i + 1,
                "section": section,
                "tilt angle [°]": tilt,
                "excluded": views[i].excluded or "",
                "axis [°]": mapping.axes[i],
                **reports[f"view-{i:03d}"],
            }
            for (section, i), tilt in zip(enumerate(sections, 1), tilts, strict=True)
        ],
        extra={
            "pixel_size": pixel_size,
            "binning": parameters.binning,
            "dose_weighted": weighted,
            **({CTF_CORRECTED: corrected} if (corrected := already_corrected(source)) else {}),
            "aligned": True,
            "alignment": "xf" if xf else parameters.alignment,
            "centre": list(mapping.centre),
            "tilt_angles": tilts,
        },
    )


def _from_alignment(
    work: Work, shape: Shape, reduced: Shape, parameters: TransformParameters
) -> Mapping:
    """Return the mapping of the pipeline's own alignment, its origin at index n // 2."""
    record = work.record
    views = [record.geometry(i) for i in range(len(record.views))]
    axis = views[record.included[0]].axis
    ny, nx = _turned(reduced, axis, parameters)
    samplings = [
        sampling(view, work.image_pixel_size, shape, (ny, nx), parameters.binning, reduced)
        for view in views
    ]
    held = deformation_of(work.input(parameters.alignment_step))
    voxel = work.image_pixel_size * parameters.binning
    fields = [field_for(held, view, i, (ny, nx), voxel) for i, view in enumerate(views)]
    return Mapping((ny, nx), (ny // 2, nx // 2), samplings, [v.axis for v in views], fields)


def _from_xf(
    work: Work, path: Path, shape: Shape, reduced: Shape, parameters: TransformParameters
) -> Mapping:
    """Return the mapping of a .xf file, as IMOD's newstack has it: its origin at (n − 1) / 2.

    Raises
    ------
    UnusableData
        If the file has lines neither for all views nor for those that are not left out.
    """
    matrices, shifts = read_xf(path)
    views = len(work.record.views)
    place = lines_of_views(range(len(matrices)), work.record, path)
    # A view that the file leaves out is turned like the first one that it has.
    lines = [
        (matrices[place[i]], shifts[place[i]]) if i in place else (matrices[0], np.zeros(2))
        for i in range(views)
    ]
    axes = [xf_rotation(matrix) for matrix, _ in lines]
    ny, nx = _turned(reduced, axes[0], parameters)
    samplings = [
        sampling_from_xf(matrix, shift, shape, reduced, (ny, nx), parameters.binning)
        for matrix, shift in lines
    ]
    centre = (ny // 2 - centre_offset(ny), nx // 2 - centre_offset(nx))
    return Mapping((ny, nx), centre, samplings, axes, [None] * views)


def _turned(reduced: Shape, axis: float, parameters: TransformParameters) -> Shape:
    """Return the size of the aligned views: sides swapped where the tilt axis is horizontal."""
    if parameters.swap == "auto":
        return aligned_shape(reduced, axis)
    return reduced[::-1] if parameters.swap == "yes" else reduced
