"""Stacks for other programs and for looking: one preprocessed view, one aligned view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernels.arrays import Array, to_host
from kernels.fourier import Shape, taper, trim
from kernels.normalise import measure_levels, normalise, scale_to
from kernels.reduce import mean_of, reduce_image
from kernels.resample import Field, resample
from tasks.alignment import Gold
from tasks.chunks.device import on_device
from tasks.chunks.dose import Weighting
from tasks.parameters import PreprocessParameters, TransformParameters
from tasks.result import Result


def preprocess_view(
    source: Result,
    target: Result,
    index: int,
    section: int,
    parameters: PreprocessParameters,
    like: int | None = None,
) -> dict[str, Any]:
    """Crop, reduce, normalise and taper one view.

    Parameters
    ----------
    source : Result
        With images (view, y, x).
    target : Result
        With array ``images`` (section, y, x).
    index, section : int
        Of the view in `source` and in `target`.
    parameters : PreprocessParameters
    like : int, optional
        A view in good order: this one is dark or left out, and is scaled up no more than that one.

    Returns
    -------
    dict
        "mean" and "deviation" before normalisation, and "scale".
    """
    image = _reduced(source, index, parameters)
    levels, scale = measure_levels(image), 1.0
    if parameters.normalise == "mean-sd":
        good = None if like is None else measure_levels(_reduced(source, like, parameters))
        scale = scale_to(levels, parameters.target_sd, good)
    if parameters.normalise != "none":
        image = normalise(image, levels, parameters.target_mean, scale)
    if parameters.taper:
        image = taper(image, parameters.taper)
    target.array("images")[section] = to_host(image)
    return {"mean": levels.mean, "deviation": levels.deviation, "scale": scale}


def _reduced(source: Result, index: int, parameters: PreprocessParameters) -> Array:
    image = on_device(np.asarray(source.images()[index]))
    if parameters.crop is not None:
        image = trim(image, parameters.crop)
    return reduce_image(image, parameters.binning, parameters.filter)


def transform_view(
    source: Result,
    target: Result,
    index: int,
    section: int,
    matrix: Sequence[Sequence[float]],
    offset: Sequence[float],
    pixel_size: float,
    weighting: Weighting | None,
    parameters: TransformParameters,
    field: Field | None = None,
    gold: Gold | None = None,
) -> dict[str, Any]:
    """Bring one view into the aligned frame by one interpolation.

    Parameters
    ----------
    source, target, index, section
        As of `preprocess_view`.
    matrix, offset : (2, 2), (2,)
        Take indices (y, x) of the aligned view to those of the reduced raw view.
    pixel_size : float
        Of the reduced view [Å].
    weighting : Weighting or None
        By dose, unless the images have it or are to be without.
    parameters : TransformParameters
    field : Field, optional
        Deformation to undo.
    gold : Gold, optional
        Beads to be taken out.

    Returns
    -------
    dict
        "filled": share of the aligned view that the raw one does not reach.
    """
    raw = np.asarray(source.images()[index])
    image = on_device(raw if gold is None else gold.without(raw))
    image = reduce_image(image, parameters.binning, parameters.filter)
    if weighting is not None:
        image = weighting.weighted(image, index, pixel_size)
    mean, shape = mean_of(image), image.shape
    if parameters.taper:
        image = taper(image, parameters.taper)
    images = target.array("images")
    out_shape = (images.shape[1], images.shape[2])
    images[section] = to_host(resample(image, matrix, offset, out_shape, mean, field))
    return {"filled": share_outside((shape[0], shape[1]), matrix, offset, out_shape)}


def share_outside(
    shape: Shape, matrix: Sequence[Sequence[float]], offset: Sequence[float], out_shape: Shape
) -> float:
    """Return the share of an aligned view that lies outside of the raw one, on a coarse grid."""
    places = np.stack(
        np.meshgrid(*(np.linspace(0, n - 1, 65) for n in out_shape), indexing="ij"), axis=-1
    )
    seen = places @ np.asarray(matrix).T + np.asarray(offset)
    inside = ((seen >= 0) & (seen <= np.subtract(shape, 1))).all(axis=-1)
    return round(1 - float(inside.mean()), 4)


# Beside images: the interpreter, the libraries, blocks of transforms.
BASE_BYTES = 100_000_000


def memory_of_preprocessing(shape: Shape, reduced: Shape) -> int:
    """Return the most memory that `preprocess_view` takes [bytes].

    The image, what reducing its rows leaves and the spectra of that, and of the reduced image its
    differences, squares and masks.
    """
    ny, nx = shape
    return BASE_BYTES + round(
        4 * (1.25 * ny * nx + 2 * ny * reduced[1] + 4.5 * reduced[0] * reduced[1])
    )


def memory_of_transform(shape: Shape, reduced: Shape, out_shape: Shape) -> int:
    """Return the most memory that `transform_view` takes [bytes].

    The image, what reducing its rows leaves and the spectra of that, and of the reduced image its
    spectrum, coefficients and their continued copy.
    """
    ny, nx = shape
    small, out = reduced[0] * reduced[1], out_shape[0] * out_shape[1]
    return BASE_BYTES + round(4 * (1.25 * ny * nx + 2 * ny * reduced[1] + 2.5 * small + out))
