"""What the detector did to a frame: gain, dark current and defects."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Array, asarray_like, is_numpy, namespace

Flip = Literal["none", "up-down", "left-right"]


def correct_frame(raw: Array, gain: Array | None = None, dark: Array | None = None) -> Array:
    """Return (raw − dark) · gain as float32.

    Parameters
    ----------
    raw : (ny, nx)
        Counts of any real type.
    gain : (ny, nx), optional
        Multiplied; invert a reference that divides beforehand.
    dark : (ny, nx), optional
        Counts without beam.

    Raises
    ------
    ValueError
        If a reference has another shape.
    """
    xp = namespace(raw)
    for name, reference in (("gain", gain), ("dark", dark)):
        if reference is not None and tuple(reference.shape) != tuple(raw.shape):
            raise ValueError(
                f"the {name} reference is {tuple(reference.shape)}, the frame {tuple(raw.shape)} "
                "(y, x): is it turned, or of another binning?"
            )
    if gain is not None and dark is None and is_numpy(raw):  # a third of the passes over memory
        return np.multiply(raw, gain, dtype=np.float32, casting="unsafe")
    frame = xp.astype(raw, xp.float32)
    if dark is not None:
        frame = frame - xp.astype(dark, xp.float32)
    if gain is not None:
        frame = frame * xp.astype(gain, xp.float32)
    return frame


def orient_reference(reference: Array, rotation: int = 0, flip: Flip = "none") -> Array:
    """Turn a reference to the frames' orientation: rotation first, then the flip.

    Parameters
    ----------
    reference : (ny, nx)
    rotation : int
        Quarter turns, 0 to 3, counter-clockwise as seen with x to the right and y up, row 0 at
        the bottom.
    flip : {'none', 'up-down', 'left-right'}
        'up-down' reverses the rows, 'left-right' the columns.

    Returns
    -------
    (ny, nx) or, for odd rotations, (nx, ny)

    Raises
    ------
    ValueError
        For another rotation or flip.
    """
    xp = namespace(reference)
    if rotation not in (0, 1, 2, 3):
        raise ValueError(f"rotation is {rotation} quarter turns, it must be 0, 1, 2 or 3")
    if flip not in ("none", "up-down", "left-right"):
        raise ValueError(f"flip is {flip!r}, it must be 'none', 'up-down' or 'left-right'")
    if rotation == 2:
        reference = xp.flip(reference)
    elif rotation:  # what was to the right, +x, is then up, +y, or down
        reference = xp.flip(xp.permute_dims(reference, (1, 0)), axis=1 if rotation == 1 else 0)
    if flip != "none":
        reference = xp.flip(reference, axis=0 if flip == "up-down" else 1)
    return reference


def replace_pixels(image: Array, mask: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """Replace bad pixels by good ones nearby, picked at random.

    Copies, unlike means, have the noise and the statistics of counts. Another pick for every
    frame leaves no pattern that stays in place.

    Parameters
    ----------
    image : (ny, nx)
        Of any type and namespace.
    mask : (ny, nx) bool
        True at bad pixels; in host memory, where the picks are made.
    rng : numpy.random.Generator

    Returns
    -------
    (ny, nx)
        A new array.

    Raises
    ------
    ValueError
        If the shapes differ or no pixel is good.
    """
    xp = namespace(image)
    if tuple(image.shape) != mask.shape:
        raise ValueError(f"the mask is {mask.shape}, the image {tuple(image.shape)}")
    if mask.all():
        raise ValueError(f"all {mask.size} pixels are bad, at least one must be good")
    out = xp.asarray(image, copy=True)
    bad = true_pixels(mask)
    if not len(bad):
        return out
    picks = asarray_like(_good_neighbours(mask, bad, rng), image)
    values = xp.take(xp.reshape(image, (-1,)), picks)
    if is_numpy(out):
        np.put(out, bad, values)
    else:
        out[asarray_like(mask, image)] = values
    return out


def true_pixels(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the flat indices of a mask that is False nearly everywhere, in order."""
    flat = np.ascontiguousarray(mask).reshape(-1)
    whole = flat.size // 8 * 8
    eights = np.flatnonzero(flat[:whole].view(np.uint64))  # eight pixels at a glance
    near = (eights[:, None] * 8 + np.arange(8)).reshape(-1)
    near = np.concatenate([near, np.arange(whole, flat.size)])
    return near[flat[near]]


def _good_neighbours(
    mask: NDArray[np.bool_], indices: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[Any]:
    """Return for each bad pixel the flat index of a good one as near as luck has it."""
    bad = np.stack(np.divmod(indices, mask.shape[1]), axis=1)
    found = np.empty(len(bad), dtype=np.int64)
    pending = np.arange(len(bad))
    radius = 2.0
    while len(pending):
        tried = bad[pending] + rng.integers(-int(radius), int(radius) + 1, (len(pending), 2))
        tried = np.clip(tried, 0, np.asarray(mask.shape) - 1)
        good = ~mask[tried[:, 0], tried[:, 1]]
        found[pending[good]] = tried[good, 0] * mask.shape[1] + tried[good, 1]
        pending = pending[~good]
        radius *= 1.2
    return found
