"""What the extended header of an MRC stack says of each section.

Layouts (the field ``exttyp`` names them in MRC2014; older files leave it empty):

- SERI: SerialEM's 2-byte integers. The header's nint is the number of bytes per section, nreal has
  a flag for each item that is there (IMOD, mrc_format.txt). Where ``exttyp`` is empty, the layout
  is SerialEM's if the items' bytes add up to nint, else Agard's.
- AGAR: nint 4-byte integers, then nreal floats per section, the tilt angle the first float. 32
  floats and no integer are FEI's: stage, pixel and magnification stand at fixed places.
- FEI1, FEI2: records of 768 and 888 bytes (mrcfile's dtypes), with a mask of the fields set.

CCP4's symmetry records, and types not named here, say nothing of sections.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE, get_ext_header_dtype
from numpy.typing import NDArray

from tasks.formats.errors import FormatError
from tasks.formats.files import StrPath
from tasks.formats.mrc_header import HEADER_BYTES, MrcHeader, read_header

STEEPEST = 90.0  # degrees

# Items of SerialEM, in order: (flag, number of 2-byte integers); those without a name are reserved.
TILT, PIECE, STAGE, MAGNIFICATION, INTENSITY, DOSE = 1, 2, 4, 8, 16, 32
SERIALEM = (
    (TILT, 1),
    (PIECE, 3),
    (STAGE, 2),
    (MAGNIFICATION, 1),
    (INTENSITY, 1),
    (DOSE, 2),
    (64, 1),
    (128, 2),
    (256, 1),
    (512, 2),
    (1024, 1),
)

_AXIS = re.compile(r"tilt\s+axis\s+angle\s*=\s*([+-]?\d+(?:\.\d*)?)", re.IGNORECASE | re.ASCII)
_BINNING = re.compile(r"\bbinning\s*=\s*(\d+(?:\.\d*)?)", re.IGNORECASE | re.ASCII)
_CTF_CORRECTED = re.compile(r"ctfphaseflip: ctf|ctf-corrected \(", re.IGNORECASE)


@dataclass(frozen=True)
class SectionHeader:
    """What the extended header says of one section; None where it does not.

    Attributes
    ----------
    tilt_angle : float, optional
        Degrees.
    stage_position : (x, y), optional
        µm.
    magnification : float, optional
    pixel_size : float, optional
        Å.
    exposure_dose : float, optional
        e/Å²; 0 where the microscope was not calibrated.
    piece : (x, y, section), optional
        Place in a montage [pixels]: the sections are not views of a tilt series.
    """

    tilt_angle: float | None = None
    stage_position: tuple[float, float] | None = None
    magnification: float | None = None
    pixel_size: float | None = None
    exposure_dose: float | None = None
    piece: tuple[int, int, int] | None = None


def read_sections(path: StrPath) -> tuple[SectionHeader, ...] | None:
    """Return what the extended header says of each section; None where it says nothing.

    Raises
    ------
    FormatError
        If the file is no MRC file, its extended header is shorter than it says, or has an angle
        beyond ±90° or a value that is no number.
    """
    path = Path(path)
    header = read_header(path)
    with path.open("rb") as file:
        fields, order = _main_fields(file.read(HEADER_BYTES), header.data_offset)
        extended = file.read(header.data_offset - HEADER_BYTES)
    n = header.shape[0]
    kind = fields["exttyp"].tobytes().rstrip(b"\0 ").decode("latin-1")
    per_section = fields["extra2"].tobytes()[16:20]
    n_int, n_real = (int(value) for value in np.frombuffer(per_section, f"{order}i2"))
    sections: Iterable[SectionHeader] | None = None
    if not extended or kind not in {"SERI", "AGAR", "FEI1", "FEI2", ""}:
        return None
    if kind in {"FEI1", "FEI2"}:
        sections = _of_fei(extended, n, kind, order)
    elif kind == "SERI" or (not kind and _adds_up(n_int, n_real, exactly=True)):
        if n_real and not _adds_up(n_int, n_real, exactly=False):
            problem = f"{n_int} bytes per section cannot hold the items of the flags {n_real}"
            raise FormatError(path, f"extended header: {problem}", "give the angles otherwise")
        if n_real and _is_complete(path, extended, n, n_int, kind):
            sections = _of_serialem(extended, n, n_int, n_real, order)
    elif n_int >= 0 < n_real and _is_complete(path, extended, n, 4 * (n_int + n_real), kind):
        sections = _of_agard(extended, n, n_int, n_real, order)
    if sections is None:
        return None
    found = tuple(sections)
    for number, section in enumerate(found):
        _check(path, number, section)
    return None if all(section == SectionHeader() for section in found) else found


def axis_in_labels(labels: Iterable[str]) -> tuple[float, float | None] | None:
    """Return the tilt-axis angle and binning of SerialEM's label; None where there is none.

    The axis in degrees, counter-clockwise from image +y; the binning, 0.5 for super-resolution,
    is None where the label lacks it.
    """
    for label in labels:
        if axis := _AXIS.search(label):
            binning = _BINNING.search(label)
            return float(axis[1]), None if binning is None else float(binning[1])
    return None


def ctf_correction_in(header: MrcHeader) -> str | None:
    """Return what says that images are corrected for the CTF; None where nothing does.

    A label as ctfphaseflip or `tiltflow export` writes it, which programs hand on, or IMOD's flag.
    """
    for label in header.labels:
        if _CTF_CORRECTED.search(label):
            return f"stack label {label!r}"
    return "IMOD's flag in the stack header" if header.ctf_flag else None


def _main_fields(raw: bytes, data_offset: int) -> tuple[Any, str]:
    """Return the main header's fields in the byte order in which `read_header` took them."""
    for order in "<>":
        fields = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0]
        if int(fields["nsymbt"]) == data_offset - HEADER_BYTES and 0 < int(fields["nz"]) < 2**24:
            break
    return fields, order


def _is_complete(path: Path, extended: bytes, n: int, section_bytes: int, kind: str) -> bool:
    """Return whether all sections are there; where no type is stated, that may be by chance."""
    complete = len(extended) >= n * section_bytes
    if kind and not complete:
        raise FormatError(
            path,
            f"extended header of {len(extended)} bytes, {n} sections of {section_bytes} expected",
            "give the angles otherwise",
        )
    return complete


def _check(path: Path, number: int, section: SectionHeader) -> None:
    angle = section.tilt_angle
    others = (section.magnification, section.exposure_dose, *(section.stage_position or ()))
    if angle is not None and not abs(angle) <= STEEPEST:
        problem = f"tilt angle {angle:g}°, beyond ±90°"
    elif any(value is not None and not math.isfinite(value) for value in others):
        problem = "a value that is no number"
    else:
        return
    raise FormatError(
        path, f"extended header: section {number} has {problem}", "give the angles otherwise"
    )


# -- SerialEM -----------------------------------------------------------------------------------


def _adds_up(section_bytes: int, flags: int, exactly: bool) -> bool:
    """Return whether the items of `flags` fill the bytes of a section; else, whether they fit."""
    known = sum(2 * size for flag, size in SERIALEM if flags & flag)
    if flags < 2048:
        return 0 < known == section_bytes
    return not exactly and 0 < known <= section_bytes  # flags that came later: behind the known


def _of_serialem(
    extended: bytes, n: int, section_bytes: int, flags: int, order: str
) -> Iterable[SectionHeader]:
    for i in range(n):
        values = np.frombuffer(extended, f"{order}i2", section_bytes // 2, i * section_bytes)
        stored = iter(values.tolist())
        items = {flag: tuple(islice(stored, size)) for flag, size in SERIALEM if flags & flag}
        yield SectionHeader(
            tilt_angle=items[TILT][0] / 100 if TILT in items else None,
            stage_position=(items[STAGE][0] / 25, items[STAGE][1] / 25) if STAGE in items else None,
            magnification=items[MAGNIFICATION][0] * 100.0 if MAGNIFICATION in items else None,
            exposure_dose=_from_two(*items[DOSE]) if DOSE in items else None,
            piece=items.get(PIECE),
        )


def _from_two(first: int, second: int) -> float:
    """Return the float that SerialEM stores as two 2-byte integers (IMOD, mrc_format.txt)."""
    size = abs(first) * 256 + abs(second) % 256
    return math.copysign(math.ldexp(size, (abs(second) // 256) * (-1 if second < 0 else 1)), first)


# -- Agard, FEI ---------------------------------------------------------------------------------


def _of_agard(
    extended: bytes, n: int, n_int: int, n_real: int, order: str
) -> list[SectionHeader] | None:
    words = np.frombuffer(extended, f"{order}f4", n * (n_int + n_real)).reshape(n, -1)
    reals = words[:, n_int:].astype(np.float64)
    if not reals.any():
        return None  # space that nobody has filled
    if (n_int, n_real) != (0, 32):
        return [SectionHeader(tilt_angle=float(values[0])) for values in reals]
    return [
        SectionHeader(
            tilt_angle=float(values[0]),
            stage_position=(_micrometres(values[2]), _micrometres(values[3])),
            magnification=float(values[12]) or None,
            pixel_size=_pixel(values[11]),
        )
        for values in reals
    ]


def _of_fei(extended: bytes, n: int, kind: str, order: str) -> list[SectionHeader] | None:
    """Return what FEI's records say; None where they are of another size or too few."""
    dtype = get_ext_header_dtype(kind.encode(), order)
    if len(extended) < n * dtype.itemsize:
        return None
    records: NDArray[Any] = np.frombuffer(extended, dtype, n)
    if (records["Metadata size"] != dtype.itemsize).any():
        return None
    sections = []
    for record in records:
        is_set = int(record["Bitmask 1"])
        value = {
            name: float(record[name]) if is_set >> bit & 1 else None for name, bit in _BITS.items()
        }
        x, y, pixel, dose = (value[k] for k in ("X-Stage", "Y-Stage", "Pixel size X", "Dose"))
        sections.append(
            SectionHeader(
                tilt_angle=value["Alpha tilt"],
                stage_position=None if x is None or y is None else (x * 1e6, y * 1e6),
                magnification=value["Magnification"] or None,
                pixel_size=None if pixel is None else _pixel(pixel),
                exposure_dose=None if dose is None else dose * 1e-20,
            )
        )
    return sections


_BITS = {  # of Bitmask 1, one for each field behind it
    "Dose": 6,  # e/m²
    "Alpha tilt": 7,
    "X-Stage": 9,  # m
    "Y-Stage": 10,
    "Pixel size X": 14,  # m
    "Magnification": 31,
}


def _micrometres(value: float) -> float:
    return float(value if abs(value) > 1 else value * 1e6)  # FEI: metres, or micrometres above 1


def _pixel(metres: float) -> float | None:
    """Return a pixel in Å; None where it is none that a microscope can have."""
    return float(metres * 1e10) if 0.01 < metres * 1e10 < 1e5 else None
