"""The header of MRC files: 1024 bytes, read in either byte order and written.

Mode 0 (bytes) has two readings. MRC2014 says signed; SerialEM, RELION and old IMOD movies hold
0–255. As IMOD does, we trust the stamp that IMOD leaves in the header with a flag for the sign,
and without one the header's minimum and maximum; where these decide nothing, bytes are unsigned.
What we write in mode 0 carries IMOD's stamp, so both kinds read back. `signed` overrides.

Mode 101 packs two 4-bit values in a byte, the first in the low half, each row filling whole bytes.
SerialEM also writes them as mode 0 with half the columns, and says so by a flag or in a label.
Either way the header returned has mode 101 and the columns of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from tasks.formats.errors import FormatError
from tasks.formats.files import StrPath

HEADER_BYTES = 1024
IMOD_STAMP = 1146047817
SIGNED_BYTES, STANDARD_ORIGIN = 1, 4  # IMOD's flags; the second: origin has MRC2014's sign
HALF_BYTES = 16  # IMOD's flag of 4-bit data in mode 0
CTF_CORRECTED = 32  # IMOD's flag, which ctfphaseflip sets
PACKED = 101
STAMP_OFFSET = 40  # of IMOD's stamp and flags in `extra2`

DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
MODES = {"int8": 0, "uint8": 0, "int16": 1, "float32": 2, "float64": 2, "uint16": 6, "float16": 12}

ByteOrder = Literal["<", ">"]


@dataclass(frozen=True)
class MrcHeader:
    """What an MRC header says.

    Attributes
    ----------
    shape : (nz, ny, nx)
    mode : int
    dtype : str
        As stored, with byte order; of 4-bit values (mode 101), that of the bytes.
    pixel_size : float or None
        In x and y, Å; None where the header does not say.
    is_volume : bool
        Space group 1 or more: sections are z; else they are images.
    origin : (x, y, z)
        In Å.
    minimum, maximum, mean, rms : float
        As the header has them.
    labels : tuple of str
    data_offset : int
        Bytes before the first value.
    ctf_flag : bool
        IMOD's flag of images that are corrected for the CTF.
    """

    path: Path
    shape: tuple[int, int, int]
    mode: int
    dtype: str
    pixel_size: float | None
    is_volume: bool
    origin: tuple[float, float, float]
    minimum: float
    maximum: float
    mean: float
    rms: float
    labels: tuple[str, ...]
    data_offset: int
    ctf_flag: bool = False

    @property
    def section_bytes(self) -> int:
        """Bytes of one section."""
        return self.shape[1] * self.row_bytes

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        if self.mode == PACKED:
            return (self.shape[2] + 1) // 2
        return self.shape[2] * np.dtype(self.dtype).itemsize


def read_header(path: StrPath, signed: bool | None = None) -> MrcHeader:
    """Read the header of an MRC file of either byte order.

    Parameters
    ----------
    path
        The file.
    signed
        Whether bytes (mode 0) are signed; default: as the module says.

    Raises
    ------
    FormatError
        If it is no MRC file of real values, or is shorter than its header says.
    """
    path = Path(path)
    with path.open("rb") as file:
        raw = file.read(HEADER_BYTES)
    found_bytes = path.stat().st_size
    if len(raw) < HEADER_BYTES:
        raise FormatError(
            path, f"{len(raw)} bytes, fewer than a header's {HEADER_BYTES}", "copy it again"
        )
    fields, order = _fields(path, raw)
    mode = int(fields["mode"])
    shape = (int(fields["nz"]), int(fields["ny"]), int(fields["nx"]))
    labels = [bytes(text).split(b"\0")[0].decode("latin-1").rstrip() for text in fields["label"]]
    flags = _imod_flags(fields, order) or 0
    if mode == 0 and (flags & HALF_BYTES or "4 bits packed" in labels[0]):
        mode, shape = PACKED, (shape[0], shape[1], 2 * shape[2])
    dtype = np.dtype(DTYPES.get(mode, "u1")).newbyteorder(order)
    if mode == 0 and not (_is_signed(fields, order) if signed is None else signed):
        dtype = np.dtype("u1")
    cell, origin = fields["cella"], fields["origin"]
    pixel = float(cell["x"]) / int(fields["mx"]) if int(fields["mx"]) > 0 else 0.0
    header = MrcHeader(
        path=path,
        shape=shape,
        mode=mode,
        dtype=dtype.str,
        pixel_size=pixel if np.isfinite(pixel) and pixel > 0 else None,
        is_volume=int(fields["ispg"]) >= 1,
        origin=(float(origin["x"]), float(origin["y"]), float(origin["z"])),
        minimum=float(fields["dmin"]),
        maximum=float(fields["dmax"]),
        mean=float(fields["dmean"]),
        rms=float(fields["rms"]),
        labels=tuple(label for label in labels if label),
        data_offset=HEADER_BYTES + int(fields["nsymbt"]),
        ctf_flag=bool(flags & CTF_CORRECTED),
    )
    expected = header.data_offset + shape[0] * header.section_bytes
    if not expected <= found_bytes < expected + header.section_bytes:
        raise FormatError(
            path,
            f"{found_bytes} bytes found, {expected} expected of {shape[0]} sections of "
            f"{shape[1]} × {shape[2]} in mode {mode}",
            "copy it again, or leave it out if the recording was cut off",
        )
    return header


def header_bytes(
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    pixel_size: float,
    origin: tuple[float, float, float],
    labels: Sequence[str],
    space_group: int,
    statistics: tuple[float, float, float, float],
) -> bytes:
    """Return the header of a file of `shape` (nz, ny, nx); `statistics`: min, max, mean, rms."""
    fields = np.zeros((), dtype=HEADER_DTYPE.newbyteorder("<"))
    nz, ny, nx = shape
    for axis, n, position in zip("xyz", (nx, ny, nz), origin, strict=True):
        fields[f"n{axis}"] = fields[f"m{axis}"] = n
        fields["cella"][axis] = n * pixel_size
        fields["origin"][axis] = position
    for angle in ("alpha", "beta", "gamma"):
        fields["cellb"][angle] = 90
    fields["mode"] = MODES[dtype.name]
    fields["mapc"], fields["mapr"], fields["maps"] = 1, 2, 3
    fields["dmin"], fields["dmax"], fields["dmean"], fields["rms"] = statistics
    fields["ispg"], fields["nversion"] = space_group, 20141
    fields["map"], fields["machst"] = b"MAP ", (0x44, 0x44, 0, 0)
    flags = STANDARD_ORIGIN | (SIGNED_BYTES if dtype == np.int8 else 0)
    extra = bytearray(84)
    extra[STAMP_OFFSET : STAMP_OFFSET + 8] = np.array([IMOD_STAMP, flags], "<i4").tobytes()
    fields["extra2"] = np.void(bytes(extra))
    fields["nlabl"] = len(labels)
    fields["label"][: len(labels)] = [label.encode("ascii") for label in labels]
    return fields.tobytes()


def _fields(path: Path, raw: bytes) -> tuple[Any, ByteOrder]:
    """Return the header's fields and byte order: the one in which sizes and mode make sense."""
    modes = set()
    orders: tuple[ByteOrder, ByteOrder] = ("<", ">")
    for order in orders:
        fields = np.frombuffer(raw, dtype=HEADER_DTYPE.newbyteorder(order))[0]
        sizes = [int(fields[name]) for name in ("nx", "ny", "nz")]
        axes = {int(fields[name]) for name in ("mapc", "mapr", "maps")}
        if all(0 < n < 2**24 for n in sizes) and axes <= {0, 1, 2, 3} and fields["nsymbt"] >= 0:
            modes.add(int(fields["mode"]))
            if int(fields["mode"]) in {*DTYPES, PACKED}:
                return fields, order
    if modes & {3, 4, 16}:
        raise FormatError(path, f"mode {min(modes)} (complex or RGB)", "convert it to mode 1 or 2")
    raise FormatError(path, "not an MRC header: sizes or mode make no sense", "give an MRC file")


def _imod_flags(fields: Any, order: str) -> int | None:
    """Return IMOD's flags, or None where IMOD has left no stamp."""
    extra = fields["extra2"].tobytes()[STAMP_OFFSET : STAMP_OFFSET + 8]
    stamp, flags = (int(value) for value in np.frombuffer(extra, dtype=f"{order}i4"))
    return flags if stamp == IMOD_STAMP else None


def _is_signed(fields: Any, order: str) -> bool:
    flags = _imod_flags(fields, order)
    if flags is not None:
        return bool(flags & SIGNED_BYTES)
    low, high = float(fields["dmin"]), float(fields["dmax"])
    if not low < 0 or high < low:  # `high < low`: MRC2014's mark of statistics not known
        return False
    return high < 128 or -low > high - 128
