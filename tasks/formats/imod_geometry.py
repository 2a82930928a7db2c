r"""Half-pixel and half-voxel terms between our geometry and IMOD's: here and nowhere else.

Ours: an axis of n pixels has its centre at index n // 2. IMOD's ``newstack`` and ``tilt``: at
n / 2 in a coordinate where pixel i covers [i, i + 1), so at index (n − 1) / 2. For n even the
two differ by half a pixel, h(n) = n // 2 − (n − 1) / 2 = ½; for n odd h = 0.

**newstack** (binned by b, output n_out pixels). With p the 0-based index in the raw image,

    b·(p′ − (n_out − 1) / 2) = A (p − (n − 1) / 2 − δ) + d

δ = −½ for plain binning of odd n by an even b (a pixel is left over at one side), else 0;
reduction with an antialias filter is always centred. Ours is p − n // 2 = M x′ + s, M = R(φ) m S,
so with A = M⁻¹ the aligned x′ (unbinned pixels) lies at b·(p′ − (n_out − 1)/2) = x′ + o when

    d = o − A (s + h − δ)

o, the place of x′ = y′ = 0 in the aligned image from IMOD's centre, is ours to choose.

**tilt** (thickness t, width w; lengths in binned pixels, X right, Z = −row of its slices) has the
axis at (n_out − 1) / 2 of the aligned image and, dividing integers, the axis at column
w // 2 − ½ + SHIFT_x and row t // 2 − ½ + SHIFT_z of the slice (0-based):

    p′_x − (n_out − 1)/2 = X cosθ + (Y sinα + Z cosα) sinθ,   p′_y likewise = Y cosα − Z sinα

``trimvol -rx`` turns row r into section t − 1 − r. Since the axis must be IMOD's centre, o_x = 0
without x-axis tilt, and the voxel (w // 2, t // 2), which is ours for the volume's centre
(X_c, Z_c), is put in place by tilt alone, whatever the parity of n_out:

    SHIFT_x = ½ − X_c,     SHIFT_z = Z_c − ½ (t even)  or  Z_c + ½ (t odd)

Along y ``tilt`` cannot move by fractions. So IMOD's Y is ours plus c_y, chosen so that rows are
voxels: c_y = h(n_out) for a volume centred like the images. It shows in each view as

    o = (c_y sinα sinθ, c_y cosα)

which is (0, c_y) without x-axis tilt. Facts of newstack.f90, getbinnedsize.f, tilt.f90 and
clip_proc.c (IMOD 4.7), the centres unchanged in later releases.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import atan2, cos, degrees, radians, sin

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TiltVolume:
    """Entries of tilt.com that make IMOD's tomogram ours; all in unbinned pixels.

    Attributes
    ----------
    width, thickness : int
        WIDTH and THICKNESS.
    slices : (first, last)
        SLICE, from 0.
    shift_x, shift_z : float
        SHIFT.
    full_image : (nx, ny)
        FULLIMAGE, that of the aligned stack.
    binning : int
        IMAGEBINNED.
    origin_y : float
        c_y of the module's text, for `aligned_origin`.
    """

    width: int
    thickness: int
    slices: tuple[int, int]
    shift_x: float
    shift_z: float
    full_image: tuple[int, int]
    binning: int
    origin_y: float


def centre_offset(n: int) -> float:
    """Return n // 2 − (n − 1) / 2: our centre's distance from IMOD's, ½ for even n, else 0."""
    return n // 2 - (n - 1) / 2


def binned_size(n: int, binning: int) -> int:
    """Return the size that newstack gives an axis of `n` pixels binned without antialiasing.

    It keeps the parity of `n`, so it may be one or two pixels more than n // binning.
    """
    size, left = divmod(n, binning)
    if size % 2 == n % 2:
        return size + 2 if left > 1 else size
    return size + 1


def tilt_volume(
    nx: int,
    ny: int,
    volume_shape: tuple[int, int, int],
    binning: int = 1,
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> TiltVolume:
    """Return what tilt.com must say for ``tilt`` and ``trimvol -rx`` to give our tomogram.

    Parameters
    ----------
    nx, ny
        Size of the aligned, binned stack.
    volume_shape
        (z, y, x) in binned voxels.
    binning
        Of the aligned stack.
    centre
        Specimen coordinates X, Y, Z of the volume's centre voxel [unbinned pixels].

    Raises
    ------
    ValueError
        If the volume reaches beyond the stack along y.
    """
    nz, rows, width = volume_shape
    x, y, z = (c / binning for c in centre)
    # Of the shifts of row against voxel, the one that leaves the smallest change of origin.
    first = round(ny // 2 + y) - rows // 2
    if first < 0 or first + rows > ny:
        raise ValueError(f"volume rows {first} to {first + rows - 1} of a stack of {ny} rows")
    return TiltVolume(
        width=width * binning,
        thickness=nz * binning,
        slices=(first * binning, (first + rows - 1) * binning),
        shift_x=(0.5 - x) * binning,
        shift_z=(z + (0.5 if nz % 2 else -0.5)) * binning,
        full_image=(nx * binning, ny * binning),
        binning=binning,
        origin_y=(first + rows // 2 - y - (ny - 1) / 2) * binning,
    )


def aligned_origin(tilt: float, x_tilt: float, origin_y: float) -> tuple[float, float]:
    """Return o, where x′ = y′ = 0 lies in the aligned image from IMOD's centre [pixels].

    Parameters
    ----------
    tilt, x_tilt
        θ and α in degrees.
    origin_y
        Of the `TiltVolume`, or 0 for IMOD's own frame.
    """
    t, a = radians(tilt), radians(x_tilt)
    return origin_y * sin(a) * sin(t), origin_y * cos(a)


def xf_from_view(
    image: ArrayLike,
    shift_x_px: float,
    shift_y_px: float,
    nx: int,
    ny: int,
    origin: tuple[float, float] = (0.0, 0.0),
    binning: int = 1,
    antialias: bool = True,
) -> tuple[Floats, Floats]:
    """Return one view's line of the .xf: matrix (2, 2) and shift (2,) in unbinned pixels.

    The size of the aligned image does not enter: IMOD maps centre to centre.

    Parameters
    ----------
    image
        Matrix (2, 2) from aligned to raw coordinates, x first: R(φ) · m · S
        (`kernels.geometry.image_matrix`).
    shift_x_px, shift_y_px
        Where the specimen's origin appears, from the raw image's pixel (ny // 2, nx // 2).
    nx, ny
        Size of the raw image.
    origin
        Of `aligned_origin`.
    binning, antialias
        How newstack will bin, as in newst.com.

    Raises
    ------
    ValueError
        If the matrix has no inverse or mirrors.
    """
    matrix = _inverse(image)
    raw = np.array([shift_x_px, shift_y_px]) + _raw_offset(nx, ny, binning, antialias)
    return matrix, np.asarray(origin, dtype=np.float64) - matrix @ raw


def view_from_xf(
    matrix: ArrayLike,
    shift: ArrayLike,
    nx: int,
    ny: int,
    origin: tuple[float, float] = (0.0, 0.0),
    binning: int = 1,
    antialias: bool = True,
) -> tuple[Floats, float, float]:
    """Return the matrix (2, 2) and shift x and y [pixels]: `xf_from_view` undone.

    With the default `origin` the specimen frame is the one of IMOD's own reconstruction.

    Raises
    ------
    ValueError
        If the matrix has no inverse or mirrors.
    """
    image = _inverse(matrix)
    raw = image @ (np.asarray(origin, dtype=np.float64) - np.asarray(shift))
    x, y = raw - _raw_offset(nx, ny, binning, antialias)
    return image, float(x), float(y)


def _inverse(matrix: ArrayLike) -> Floats:
    a = np.asarray(matrix, dtype=np.float64)
    if not np.linalg.det(a) > 0:
        raise ValueError(f"transform {a.tolist()} is singular or mirrors")
    return np.asarray(np.linalg.inv(a), dtype=np.float64)


def xf_rotation(matrix: ArrayLike) -> float:
    """Return the tilt-axis angle of a matrix (2, 2) of a .xf: of its nearest rotation [degrees]."""
    a = np.asarray(matrix, dtype=np.float64)
    return degrees(atan2(a[0, 1] - a[1, 0], a[0, 0] + a[1, 1]))


def sampling_from_xf(
    matrix: ArrayLike,
    shift: ArrayLike,
    shape: tuple[int, int],
    reduced: tuple[int, int],
    out_shape: tuple[int, int],
    binning: float = 1.0,
) -> tuple[Floats, Floats]:
    """Return where newstack's aligned pixels lie in an image that we have reduced.

    As newstack reduces with an antialias filter: centred, whatever the sizes.

    Parameters
    ----------
    matrix, shift
        One view's line of the .xf, (2, 2) and (2,) in unbinned pixels.
    shape, reduced
        (ny, nx) of the raw image, and of it reduced with index n // 2 kept at m // 2.
    out_shape
        (ny, nx) of the aligned, binned image.
    binning
        Raw pixels per aligned pixel.

    Returns
    -------
    matrix : (2, 2), offset : (2,)
        Index in the reduced image = matrix @ aligned index + offset, both (y, x).

    Raises
    ------
    ValueError
        If `matrix` has no inverse.
    """
    a = np.asarray(matrix, dtype=np.float64)
    if abs(np.linalg.det(a)) < 1e-6:
        raise ValueError(f"transform {a.tolist()} is singular")
    inverse = np.linalg.inv(a)
    n, m, out = (np.array(s[::-1], dtype=np.float64) for s in (shape, reduced, out_shape))
    # Where newstack's pixel (0, 0) lies in the raw image, from our centre.
    first = (n - 1) / 2 - n // 2 - inverse @ (binning * (out - 1) / 2 + np.asarray(shift))
    offset = first / binning + m // 2
    return inverse[::-1, ::-1].astype(np.float64), offset[::-1].astype(np.float64)


def _raw_offset(nx: int, ny: int, binning: int, antialias: bool) -> Floats:
    """Return h − δ of the module's text, for x and y."""
    lost = [-0.5 if not antialias and n % 2 and binning % 2 == 0 else 0.0 for n in (nx, ny)]
    return np.array([centre_offset(nx) - lost[0], centre_offset(ny) - lost[1]])
