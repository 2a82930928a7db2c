from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from tasks.formats.errors import FormatError
from tasks.formats.imod_model import read_fiducials, write_fiducials

SIZE = (1024, 960, 41)


@pytest.fixture
def beads() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [
        np.column_stack([rng.uniform(0, 900, (n, 2)), np.sort(rng.permutation(41)[:n])])
        for n in (41, 3, 17)
    ]


def test_models_survive_a_round_trip(tmp_path: Path, beads: list[np.ndarray]) -> None:
    write_fiducials(tmp_path / "a.fid", beads, SIZE, 2.7)
    found = read_fiducials(tmp_path / "a.fid")
    assert len(found) == 3
    for ours, theirs in zip(beads, found, strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-4)


def test_the_bytes_are_those_of_imods_specification(tmp_path: Path) -> None:
    write_fiducials(tmp_path / "a.fid", [np.array([[10.0, 20.0, 3.0]])], SIZE, 5.0)
    data = (tmp_path / "a.fid").read_bytes()
    assert data[:8] == b"IMODV1.2"
    assert struct.unpack_from(">3i", data, 136) == SIZE
    assert struct.unpack_from(">f", data, 216)[0] == pytest.approx(0.5)  # nm
    assert data[240:244] == b"OBJT"
    assert struct.unpack_from(">i", data, 240 + 132)[0] == 1  # contours
    contour = 240 + 180
    assert data[contour : contour + 4] == b"CONT"
    assert struct.unpack_from(">i3i", data, contour + 4) == (1, 0, 0, 0)
    assert struct.unpack_from(">3f", data, contour + 20) == (10.5, 20.5, 3.0)
    assert data[-4:] == b"IEOF"


def test_unknown_chunks_and_meshes_are_passed_over(tmp_path: Path, beads: list[np.ndarray]) -> None:
    write_fiducials(tmp_path / "a.fid", beads, SIZE, 2.7)
    data = (tmp_path / "a.fid").read_bytes()
    mesh = struct.pack(">4siiIhh", b"MESH", 2, 3, 0, 0, 0) + bytes(4) + bytes(24 + 12)
    extra = b"MINX" + struct.pack(">I", 72) + bytes(72)
    (tmp_path / "b.fid").write_bytes(data[:-4] + mesh + extra + b"IEOF")
    assert len(read_fiducials(tmp_path / "b.fid")) == 3


@pytest.mark.parametrize("length", [0, 100, 300, 430, 600, 1000])
def test_a_cut_or_foreign_file_is_one_line(
    tmp_path: Path, beads: list[np.ndarray], length: int
) -> None:
    write_fiducials(tmp_path / "a.fid", beads, SIZE, 2.7)
    data = (tmp_path / "a.fid").read_bytes()
    (tmp_path / "cut.fid").write_bytes(data[:length])
    with pytest.raises(FormatError, match=r"cut\.fid: .*; (copy it again|give a \.fid)"):
        read_fiducials(tmp_path / "cut.fid")
