"""IMOD's binary models, as of fiducials: one object, a contour for each bead, a point a view.

The format is that of IMOD's published specification of model files (version 1.2): big-endian,
a header of 240 bytes, then chunks OBJT, CONT and others, ended by IEOF. Coordinates count pixels
from the corner of the first one, z from 0 is the view.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.formats.errors import FormatError
from tasks.formats.files import StrPath, write_bytes

Floats = NDArray[np.float64]

HEADER = struct.Struct(">8s128s4iI4i6f5ifii3f")
OBJECT = struct.Struct(">4s64s16IiIii3fi8Bii")
CONTOUR = struct.Struct(">4siIii")
POINT_BYTES = 12
CORNER = np.array([0.5, 0.5, 0.0])
NANOMETRES = -9  # exponent of the unit of the pixel size
OPEN = 1 << 3  # contours are open: points of one bead
MODEL_FLAGS = (1 << 12) | (1 << 13) | (1 << 16)  # what 3dmod sets for files of today


def write_fiducials(
    path: StrPath,
    beads: Sequence[Floats],
    size: tuple[int, int, int],
    pixel_size: float,
    diameter: float = 100.0,
) -> None:
    """Write a model that 3dmod shows over the raw stack.

    Parameters
    ----------
    path
    beads : sequence of (n, 3)
        x, y as 0-based pixel indices and the 0-based view of each bead's places, by view.
    size : (nx, ny, views)
    pixel_size, diameter : float
        Of the stack, and of the beads, as circles of which they are shown [Å].
    """
    head = HEADER.pack(
        b"IMODV1.2", b"fiducials", *size, 1, MODEL_FLAGS, 1, 2, 0, 255, 0, 0, 0, 1, 1, 1,
        0, -1, -1, 3, 128, pixel_size / 10, NANOMETRES, 0, 0, 0, 0,
    )  # fmt: skip
    radius = max(1, round(diameter / pixel_size / 2))
    data = [
        head,
        OBJECT.pack(
            b"OBJT", b"beads", *[0] * 16, len(beads), OPEN, 0, 1, 0.0, 1.0, 0.0, radius,
            1, 3, 1, 1, 0, 0, 0, 0, 0, 0,
        ),
    ]  # fmt: skip
    for places in beads:
        points = np.asarray(places, dtype=np.float64).reshape(-1, 3) + CORNER
        data += [
            CONTOUR.pack(b"CONT", len(points), 0, 0, 0),
            np.ascontiguousarray(points, dtype=">f4").tobytes(),
        ]
    write_bytes(path, b"".join([*data, b"IEOF"]))


def read_fiducials(path: StrPath) -> list[Floats]:
    """Read the contours of all objects: x, y as 0-based pixel indices, z the 0-based view.

    Raises
    ------
    FormatError
        If the file is no model, or ends too early.
    """
    data = Path(path).read_bytes()
    if data[:4] != b"IMOD":
        raise FormatError(path, "is no IMOD model", "give a .fid or .mod file")
    beads: list[Floats] = []
    at = HEADER.size
    while data[at : at + 4] != b"IEOF":
        name = data[at : at + 4]
        if len(data) < at + 8:
            raise FormatError(path, f"ends at byte {len(data)} within the model", "copy it again")
        if name == b"OBJT":
            at += OBJECT.size
        elif name == b"CONT":
            count = struct.unpack_from(">i", data, at + 4)[0]
            start = at + CONTOUR.size
            at = start + POINT_BYTES * count
            if count < 0 or at > len(data):
                raise FormatError(
                    path, f"ends within contour {len(beads) + 1} of {count} points", "copy it again"
                )
            points = np.frombuffer(data[start:at], dtype=">f4").reshape(-1, 3)
            beads.append(points.astype(np.float64) - CORNER)
        elif name == b"MESH":
            vertices, indices = struct.unpack_from(">ii", data, at + 4)
            at += 24 + POINT_BYTES * vertices + 4 * indices
        else:  # every other chunk tells its length
            at += 8 + struct.unpack_from(">I", data, at + 4)[0]
    return beads
