"""The STAR file that RELION's motion correction leaves beside each micrograph.

RELION stores the shift that undoes the motion: minus the object's displacement, in pixels of
the raw movie, 0 in the first frame used and −9999 in those left out. Its local model, on top of
that, is with z the frame from 0 at the first one used, x and y the position over the image's size
minus ½,

    Σ over (1, x, x², y, y², xy) of (c₀ z + c₁ z² + c₂ z³)

18 coefficients for x, then 18 for y. They too are read as pixels of the raw movie; when RELION
3.1 bins the frames first (``--bin_factor``, its default way), it writes them in binned pixels.
RELION reads TIFF movies with y flipped against MRC.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.formats.errors import FormatError
from tasks.formats.files import StrPath, number, refuse_nan, whole
from tasks.formats.star import StarBlock, printed, read_star, write_star

COEFFICIENTS = 36
NOT_OBSERVED = -9999.0


@dataclass(frozen=True)
class Motion:
    """Motion of one movie.

    Attributes
    ----------
    movie_name : str
    size : (n_frames, ny, nx)
        Of the raw movie.
    pixel_size : float
        Of the raw movie [Å].
    binning : float
        Raw pixels per pixel of the sum.
    displacement : (n_frames, 2)
        x, y of the object relative to the first frame used [raw pixels]; NaN where left out.
    local : (36,) or None
        Coefficients of the object's local displacement [raw pixels].
    first_frame : int
        The first frame used, from 1.
    """

    movie_name: str
    size: tuple[int, int, int]
    pixel_size: float
    binning: float
    displacement: NDArray[np.float64]
    local: NDArray[np.float64] | None = None
    first_frame: int = 1


def write_motion_star(
    path: StrPath,
    movie_name: str,
    size: tuple[int, int, int],
    pixel_size: float,
    binning: float,
    displacement: ArrayLike,
    local: ArrayLike | None = None,
    dose_per_frame: float = 0.0,
    prior_dose: float = 0.0,
    voltage: float = 300.0,
    gain_name: str | None = None,
    eer: tuple[int, int] | None = None,
) -> None:
    """Write the motion of one movie as relion_run_motioncorr lays it out.

    Parameters
    ----------
    path, movie_name
        The file, and the movie's name in it.
    size
        (n_frames, ny, nx) of the raw movie.
    pixel_size
        Of the raw movie [Å].
    binning
        Raw pixels per pixel of the sum.
    displacement
        (n_frames, 2), x and y of the object in each frame [raw pixels], NaN in frames left out;
        RELION's sign and zero are made here.
    local
        36 coefficients of the object's displacement [raw pixels], None without local motion.
    dose_per_frame, prior_dose
        [e/Å²]
    voltage
        [kV]
    gain_name
        Name of the gain reference.
    eer
        Of EER movies: sampling per detector pixel along each side, raw frames in each frame.

    Raises
    ------
    FormatError
        If a value is NaN, all frames are left out, or a shape is wrong.
    """
    moved = np.asarray(displacement, dtype=np.float64)
    if moved.shape != (size[0], 2):
        raise FormatError(path, f"displacement of shape {moved.shape}", f"give ({size[0]}, 2)")
    used = np.asarray(~np.isnan(moved).all(axis=1))
    refuse_nan(path, "displacement", (moved[used] if used.any() else moved).ravel())
    first = int(used.argmax())
    refuse_nan(path, "value", (pixel_size, binning, dose_per_frame, prior_dose, voltage))
    general = {
        "rlnImageSizeX": f"{size[2]}",
        "rlnImageSizeY": f"{size[1]}",
        "rlnImageSizeZ": f"{size[0]}",
        "rlnMicrographMovieName": movie_name,
        **({"rlnMicrographGainName": gain_name} if gain_name else {}),
        "rlnMicrographBinning": f"{binning:.6f}",
        "rlnMicrographOriginalPixelSize": f"{pixel_size:.6f}",
        "rlnMicrographDoseRate": f"{dose_per_frame:.6f}",
        "rlnMicrographPreExposure": f"{prior_dose:.6f}",
        "rlnVoltage": f"{voltage:.6f}",
        "rlnMicrographStartFrame": f"{first + 1}",
        **({"rlnEERUpsampling": f"{eer[0]}", "rlnEERGrouping": f"{eer[1]}"} if eer else {}),
        "rlnMotionModelVersion": "0" if local is None else "1",
    }
    shifts = np.where(used[:, None], moved[first] - moved, NOT_OBSERVED)
    blocks = [
        StarBlock("general", general),
        StarBlock(
            "global_shift",
            columns=("rlnMicrographFrameNumber", "rlnMicrographShiftX", "rlnMicrographShiftY"),
            rows=tuple(printed((i, *xy)) for i, xy in enumerate((shifts + 0.0).tolist(), 1)),
        ),
    ]
    if local is not None:
        coefficients = -np.asarray(local, dtype=np.float64).ravel()
        if coefficients.shape != (COEFFICIENTS,):
            raise FormatError(path, f"{coefficients.size} local coefficients", "give 36")
        refuse_nan(path, "local coefficient", coefficients)
        blocks.append(
            StarBlock(
                "local_motion_model",
                columns=("rlnMotionModelCoeffsIdx", "rlnMotionModelCoeff"),
                rows=tuple((f"{i}", f"{c + 0.0:.9g}") for i, c in enumerate(coefficients.tolist())),
            )
        )
    write_star(path, blocks)


def read_motion_star(path: StrPath) -> Motion:
    """Read RELION's motion of one movie, as the object's displacement."""
    blocks = read_star(path)
    for name in ("general", "global_shift"):
        if name not in blocks:
            raise FormatError(path, f"no data_{name}", "give RELION's STAR file of one movie")
    general, shift = blocks["general"], blocks["global_shift"]

    def value(name: str) -> float:
        return number(path, general.value(name), f"_{name}")

    local = None
    if (model := blocks.get("local_motion_model")) is not None:
        local = -model.floats("rlnMotionModelCoeff")
        if local.shape != (COEFFICIENTS,):
            raise FormatError(path, f"{local.size} local coefficients", "give 36")
    xy = np.stack([shift.floats(f"rlnMicrographShift{axis}") for axis in "XY"], axis=1)
    xy[(xy == NOT_OBSERVED).any(axis=1)] = np.nan
    start = general.pairs.get("rlnMicrographStartFrame", "1")
    return Motion(
        general.value("rlnMicrographMovieName"),
        (int(value("rlnImageSizeZ")), int(value("rlnImageSizeY")), int(value("rlnImageSizeX"))),
        value("rlnMicrographOriginalPixelSize"),
        value("rlnMicrographBinning"),
        -xy + 0.0,
        local,
        whole(path, start, "_rlnMicrographStartFrame"),
    )
