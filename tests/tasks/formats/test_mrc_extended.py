from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.formats.errors import FormatError
from tasks.formats.mrc_extended import SectionHeader, axis_in_labels, read_sections

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

both_orders = pytest.mark.parametrize("order", ["<", ">"])


def stack(
    folder: Path,
    extended: bytes,
    n: int,
    kind: bytes = b"",
    per_section: tuple[int, int] = (0, 0),
    order: str = "<",
) -> Path:
    """Write `n` float images of 2 × 3 behind an extended header, as MRC2014 lays it out."""
    raw = bytearray(1024)
    struct.pack_into(f"{order}10i", raw, 0, 3, 2, n, 2, 0, 0, 0, 3, 2, n)  # nx … mz
    struct.pack_into(f"{order}3f", raw, 40, 3 * 5.4, 2 * 5.4, n * 5.4)  # cell
    struct.pack_into(f"{order}3i", raw, 64, 1, 2, 3)  # axes
    struct.pack_into(f"{order}i", raw, 92, len(extended))
    struct.pack_into("4s", raw, 104, kind)
    struct.pack_into(f"{order}2h", raw, 128, *per_section)
    struct.pack_into("4s", raw, 208, b"MAP ")
    raw[212:214] = b"\x44\x44" if order == "<" else b"\x11\x11"
    path = folder / "TS_01.mrc"
    path.write_bytes(bytes(raw) + extended + bytes(4 * 6 * n))
    return path


def two_integers(value: float) -> tuple[int, int]:
    """Return a float as SerialEM stores it: 23 bits, and the exponent in the second's high byte."""
    fraction, exponent = math.frexp(abs(value))
    bits, exponent = int(fraction * 2**23), exponent - 23
    second = abs(exponent) * 256 + bits % 256
    return int(math.copysign(bits // 256, value)), second if exponent >= 0 else -second


# -- SerialEM -----------------------------------------------------------------------------------


@both_orders
@pytest.mark.parametrize("kind", [b"SERI", b"", b"    "])
def test_tilt_angles_of_serialem_are_hundredths(tmp_path: Path, order: str, kind: bytes) -> None:
    angles = [-60, -0.02, 0, 3.01, 60]
    extended = struct.pack(f"{order}5h", *(round(100 * angle) for angle in angles))
    sections = read_sections(stack(tmp_path, extended, 5, kind, (2, 1), order))
    assert sections == tuple(SectionHeader(tilt_angle=angle) for angle in angles)


@both_orders
def test_all_items_of_serialem_are_read_in_their_order(tmp_path: Path, order: str) -> None:
    extended = b""
    for i in range(2):
        extended += struct.pack(f"{order}h", 300 * i - 300)  # 1: tilt angle × 100
        extended += struct.pack(f"{order}3h", 10 * i, 20, 1)  # 2: piece
        extended += struct.pack(f"{order}2h", 250, -1025)  # 4: stage × 25
        extended += struct.pack(f"{order}h", 530)  # 8: magnification / 100
        extended += struct.pack(f"{order}h", 2500)  # 16: intensity × 25000
        extended += struct.pack(f"{order}2h", *two_integers(3.02))  # 32: dose
        extended += struct.pack(f"{order}h", 7)  # 64: reserved
    sections = read_sections(stack(tmp_path, extended, 2, b"SERI", (24 - 2, 127), order))
    assert sections is not None
    for i, section in enumerate(sections):
        assert section.tilt_angle == 3 * i - 3
        assert section.piece == (10 * i, 20, 1)
        assert section.stage_position == (10, -41)
        assert section.magnification == 53000
        assert section.exposure_dose == pytest.approx(3.02, rel=1e-6)
        assert section.pixel_size is None


@SAME_FOLDER
@given(st.floats(1e-20, 1e20) | st.floats(-1e20, -1e-20))
def test_floats_of_serialem_come_back_to_22_bits(tmp_path: Path, value: float) -> None:
    path = stack(tmp_path, struct.pack("<2h", *two_integers(value)), 1, b"SERI", (4, 32))
    (section,) = read_sections(path) or ()
    assert section.exposure_dose == pytest.approx(value, rel=2**-22)


def test_the_documented_formula_of_serialems_floats(tmp_path: Path) -> None:
    # value = (sign of s1)·(|s1|·256 + |s2| mod 256) · 2^((sign of s2)·(|s2|/256))
    pairs = {(3, 4): 772.0, (-3, 4): -772.0, (1, 256 * 2 + 1): 1028.0, (1, -256 * 2 - 1): 64.25}
    extended = struct.pack("<8h", *(number for pair in pairs for number in pair))
    sections = read_sections(stack(tmp_path, extended, 4, b"SERI", (4, 32)))
    assert sections is not None
    assert [section.exposure_dose for section in sections] == list(pairs.values())


def test_items_of_flags_that_came_later_are_passed_over(tmp_path: Path) -> None:
    extended = struct.pack("<hhh", 300, 9, 9) + struct.pack("<hhh", -300, 9, 9)
    sections = read_sections(stack(tmp_path, extended, 2, b"SERI", (6, 1 | 4096)))
    assert sections is not None
    assert [section.tilt_angle for section in sections] == [3, -3]


def test_unfilled_space_behind_the_sections_does_no_harm(tmp_path: Path) -> None:
    extended = struct.pack("<2h", 300, -300) + b"\xff" * 1020
    sections = read_sections(stack(tmp_path, extended, 2, b"SERI", (2, 1)))
    assert sections is not None
    assert [section.tilt_angle for section in sections] == [3, -3]


# -- Agard and FEI ------------------------------------------------------------------------------


def fei_reals(tilt: float, x: float, y: float, pixel: float, magnification: float) -> list[float]:
    """Return FEI's 32: α, β, stage x y z, shift x y, defocus, time, mean, axis, pixel, mag."""
    return [tilt, 0, x, y, 1e-4, 0, 0, -5e-6, 1.2, 300, 84.5, pixel, magnification, *[0.0] * 19]


@both_orders
@pytest.mark.parametrize("kind", [b"AGAR", b""])
def test_the_32_floats_of_fei_are_read(tmp_path: Path, order: str, kind: bytes) -> None:
    views = [fei_reals(-3, 1e-5, -2e-5, 2.2e-10, 53000), fei_reals(0, 12, -20, 2.2e-10, 53000)]
    extended = b"".join(struct.pack(f"{order}32f", *view) for view in views) + bytes(128 * 1022)
    sections = read_sections(stack(tmp_path, extended, 2, kind, (0, 32), order))
    assert sections is not None
    assert [section.tilt_angle for section in sections] == [-3, 0]
    assert sections[0].stage_position == pytest.approx((10, -20), rel=1e-6)
    assert sections[1].stage_position == (12, -20)  # above 1: µm already
    assert [section.magnification for section in sections] == [53000, 53000]
    assert [section.pixel_size for section in sections] == pytest.approx([2.2, 2.2], rel=1e-6)
    assert sections[0].exposure_dose is None


@both_orders
def test_the_first_float_behind_agards_integers_is_the_tilt_angle(
    tmp_path: Path, order: str
) -> None:
    extended = b"".join(struct.pack(f"{order}2i3f", 7, 8, tilt, 1, 2) for tilt in (-1.5, 0, 1.5))
    sections = read_sections(stack(tmp_path, extended, 3, b"AGAR", (2, 3), order))
    assert sections == tuple(SectionHeader(tilt_angle=tilt) for tilt in (-1.5, 0, 1.5))


def test_space_that_nobody_filled_says_nothing(tmp_path: Path) -> None:
    assert read_sections(stack(tmp_path, bytes(131072), 3, b"", (0, 32))) is None


def fei_record(order: str, size: int, mask: int, fields: dict[int, float]) -> bytes:
    """Return a record of FEI1 (768 bytes) or FEI2 (888): doubles at byte offsets."""
    raw = bytearray(size)
    struct.pack_into(f"{order}2i", raw, 0, size, 0 if size == 768 else 2)
    struct.pack_into("<I", raw, 8, mask)
    for offset, value in fields.items():
        struct.pack_into(f"{order}d", raw, offset, value)
    return bytes(raw)


FEI_FIELDS = {92: 3e20, 100: -12.5, 116: 1e-5, 124: -3e-5, 156: 1.35e-10, 289: 64000.0}


@both_orders
@pytest.mark.parametrize(("kind", "size"), [(b"FEI1", 768), (b"FEI2", 888)])
def test_records_of_epu_and_tomography_are_read(
    tmp_path: Path, order: str, kind: bytes, size: int
) -> None:
    mask = 1 << 6 | 1 << 7 | 1 << 9 | 1 << 10 | 1 << 14 | 1 << 31
    extended = fei_record(order, size, mask, FEI_FIELDS) * 2
    sections = read_sections(stack(tmp_path, extended, 2, kind, order=order))
    assert sections is not None
    assert len(sections) == 2
    section = sections[1]
    assert section.tilt_angle == -12.5
    assert section.stage_position == pytest.approx((10, -30))
    assert section.magnification == 64000
    assert section.pixel_size == pytest.approx(1.35)
    assert section.exposure_dose == pytest.approx(3)


def test_fields_that_the_mask_leaves_out_are_none(tmp_path: Path) -> None:
    extended = fei_record("<", 768, 1 << 7, FEI_FIELDS)
    assert read_sections(stack(tmp_path, extended, 1, b"FEI1")) == (
        SectionHeader(tilt_angle=-12.5),
    )
    nothing = fei_record("<", 768, 0, FEI_FIELDS)
    assert read_sections(stack(tmp_path, nothing, 1, b"FEI1")) is None


def test_records_of_another_size_or_too_few_say_nothing(tmp_path: Path) -> None:
    record = bytearray(fei_record("<", 768, 1 << 7, FEI_FIELDS))
    assert read_sections(stack(tmp_path, bytes(record), 2, b"FEI1")) is None
    struct.pack_into("<i", record, 0, 900)
    assert read_sections(stack(tmp_path, bytes(record), 1, b"FEI1")) is None


# -- nothing, and nonsense ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "extended", "per_section"),
    [
        (b"", b"", (2, 1)),  # no extended header at all
        (b"CCP4", b"X,  Y,  Z".ljust(80), (0, 0)),
        (b"CCP4", b"X,  Y,  Z".ljust(80), (2, 1)),
        (b"MRCO", bytes(range(80)), (2, 1)),
        (b"HDF5", bytes(range(80)), (2, 1)),
        (b"", b"X,  Y,  Z".ljust(80), (0, 0)),
        (b"", bytes(range(80)), (0, 32)),  # too short for three sections: not what it seems
        (b"SERI", bytes(range(80)), (0, 0)),
    ],
)
def test_what_says_nothing_of_sections_is_none(
    tmp_path: Path, kind: bytes, extended: bytes, per_section: tuple[int, int]
) -> None:
    assert read_sections(stack(tmp_path, extended, 3, kind, per_section)) is None


@pytest.mark.parametrize(
    ("kind", "extended", "per_section", "problem"),
    [
        (b"SERI", struct.pack("<2h", 0, 300), (2, 1), "4 bytes, 3 sections of 2 expected"),
        (b"SERI", bytes(30), (2, 5), "2 bytes per section cannot hold the items of the flags 5"),
        (b"SERI", struct.pack("<3h", 0, 300, 9001), (2, 1), "section 2 has tilt angle 90.01°"),
        (b"AGAR", bytes(100), (0, 32), "100 bytes, 3 sections of 128 expected"),
        (b"AGAR", struct.pack("<3f", 0, math.nan, 3), (0, 1), "section 1 has tilt angle nan°"),
        (
            b"AGAR",
            struct.pack("<32f", *fei_reals(0, math.inf, 0, 2e-10, 1)) * 3,
            (0, 32),
            "section 0 has a value that is no number",
        ),
    ],
)
def test_nonsense_is_refused(
    tmp_path: Path, kind: bytes, extended: bytes, per_section: tuple[int, int], problem: str
) -> None:
    with pytest.raises(FormatError, match=problem):
        read_sections(stack(tmp_path, extended, 3, kind, per_section))


@SAME_FOLDER
@given(
    st.binary(max_size=2000),
    st.integers(1, 4),
    st.sampled_from([b"", b"SERI", b"AGAR", b"FEI1", b"FEI2", b"CCP4", b"\xff\x00ab"]),
    st.tuples(st.integers(-(2**15), 2**15 - 1), st.integers(-(2**15), 2**15 - 1))
    | st.tuples(st.integers(0, 40), st.integers(0, 70)),
    st.sampled_from("<>"),
)
def test_any_bytes_are_read_or_refused(
    tmp_path: Path,
    extended: bytes,
    n: int,
    kind: bytes,
    per_section: tuple[int, int],
    order: str,
) -> None:
    with suppress(FormatError):
        sections = read_sections(stack(tmp_path, extended, n, kind, per_section, order))
        assert sections is None or len(sections) == n
        for section in sections or ():
            assert section.tilt_angle is None or abs(section.tilt_angle) <= 90


# -- labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["SerialEM: x", "Tilt axis angle = 85.3, binning = 4  spot = 8  camera = 0"], (85.3, 4)),
        (["    Tilt axis angle = -176.3, binning = 0.5  spot = 3  camera = 1"], (-176.3, 0.5)),
        (["Tilt axis angle = 0.0, binning = 1  spot = 9"], (0, 1)),
        (["Tilt axis angle = 12"], (12, None)),
        (["binning = 4"], None),
        (["Tilt axis angle = unknown, binning = 4"], None),
        ([], None),
    ],
)
def test_the_axis_stands_in_serialems_label(
    labels: Sequence[str], expected: tuple[float, float | None] | None
) -> None:
    assert axis_in_labels(labels) == expected
