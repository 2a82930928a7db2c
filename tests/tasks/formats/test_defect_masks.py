"""Defects in each of three formats mark the pixels they name, and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tasks.formats.defects import read_defect_mask
from tasks.formats.errors import FormatError
from tasks.formats.mrc import write_stack

NY, NX = 24, 40
CAMERA = f"CameraSizeX {NX}\nCameraSizeY {NY}\nRotationAndFlip 0\nK2Type 1\n"


def mask_of(tmp_path: Path, text: str, shape: tuple[int, int] = (NY, NX)) -> np.ndarray:
    path = tmp_path / "defects.txt"
    path.write_bytes(text.encode())
    return read_defect_mask(path, shape)


def from_top(*regions: tuple[slice | int, slice | int]) -> np.ndarray:
    """Return the mask of regions whose rows count from the top."""
    mask = np.zeros((NY, NX), bool)
    for region in regions:
        mask[region] = True
    return mask[::-1]


def test_rectangles_count_rows_from_the_bottom(tmp_path: Path) -> None:
    mask = mask_of(tmp_path, "3 0 2 5\n# a remark\n39 23 1 1\n")
    expected = np.zeros((NY, NX), bool)
    expected[0:5, 3:5] = expected[23, 39] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("entry", "region"),
    [
        ("BadPixels 5 7", (7, 5)),
        ("BadColumns 0 39", (slice(None), [0, 39])),
        ("BadRows 3 4 5", (slice(3, 6), slice(None))),
        ("PartialBadColumn 8 3 10 15", (slice(10, 16), slice(8, 11))),
        ("PartialBadRow 23 1 2 39", (23, slice(2, 40))),
        ("UsableArea 0 0 0 0", (slice(0), slice(0))),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_entries_of_serialem_count_rows_from_the_top(
    tmp_path: Path, entry: str, region: tuple[slice | int, slice | int], line_end: str
) -> None:
    text = (CAMERA + entry + "\n").replace("\n", line_end)
    np.testing.assert_array_equal(mask_of(tmp_path, text), from_top(region))


def test_what_is_outside_the_usable_area_is_bad(tmp_path: Path) -> None:
    mask = mask_of(tmp_path, CAMERA + "UsableArea 2 1 20 37\n")
    usable = np.zeros((NY, NX), bool)
    usable[2:21, 1:38] = True
    np.testing.assert_array_equal(mask, ~usable[::-1])


def test_several_entries_and_pairs_add_up(tmp_path: Path) -> None:
    mask = mask_of(tmp_path, CAMERA + "BadPixels 5 7 6 9\nBadRows 0\nBadPixels 1 1\n")
    expected = from_top((7, 5), (9, 6), (0, slice(None)), (1, 1))
    np.testing.assert_array_equal(mask, expected)


def test_a_list_scaled_to_super_resolution_marks_two_by_two_pixels(tmp_path: Path) -> None:
    mask = mask_of(tmp_path, CAMERA + "WasScaled 1\nBadPixels 6 10\n")
    np.testing.assert_array_equal(mask, from_top((slice(10, 12), slice(6, 8))))


@pytest.mark.parametrize("factor", [2, 4])
def test_defects_follow_the_sampling_of_the_frames(tmp_path: Path, factor: int) -> None:
    text = CAMERA + "BadPixels 5 7\n"
    fine = mask_of(tmp_path, text, (factor * NY, factor * NX))
    assert fine.sum() == factor**2
    top = factor * NY - 1 - 7 * factor  # row of the pixel's upper edge
    assert fine[top - factor + 1 : top + 1, 5 * factor : 6 * factor].all()
    coarse = mask_of(tmp_path, text, (NY // factor, NX // factor))
    assert np.argwhere(coarse).tolist() == [[(NY - 1 - 7) // factor, 5 // factor]]


def test_maps_mark_what_is_not_zero(tmp_path: Path) -> None:
    bad = np.random.default_rng(0).random((NY, NX)) < 0.02
    write_stack(tmp_path / "a.mrc", bad[None].astype(np.uint8), 1.0)
    tifffile.imwrite(tmp_path / "a.tif", 255 * bad[::-1].astype(np.uint8), compression="lzw")
    for name in ("a.mrc", "a.tif"):
        np.testing.assert_array_equal(read_defect_mask(tmp_path / name, (NY, NX)), bad)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1 2 3 4\n37 2 4 1\n", "the rectangle 37 2 4 1 is not within frames of 40×24 pixels"),
        ("BadPixels 5 7\n", "the camera has 0×0 pixels; add CameraSizeX and CameraSizeY"),
        (CAMERA + "BadPixels 5\n", "line 5: BadPixels has 1 values"),
        (CAMERA + "BadRows\n", "line 5: BadRows has 0 values"),
        (CAMERA + "PartialBadColumn 1 2 3\n", "line 5: PartialBadColumn has 3 values"),
        (CAMERA + "BadRows x\n", "line 5: BadRows is 'x', not a number"),
        (CAMERA + "BadPixels 40 3\n", "BadPixels marks x 40 to 40, .* has 40×24 pixels"),
        (CAMERA + "BadRows -1\n", "line 5: BadRows marks"),
        (CAMERA + "BadPixel 1 1\n", "line 5: 'BadPixel' is no entry of a defect list"),
        (CAMERA.replace("40", "41"), "defects of 24×41 pixels, the movies have 24×40"),
    ],
)
def test_what_is_wrong_with_a_list_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(FormatError, match=told):
        mask_of(tmp_path, text)


def test_a_map_of_another_size_is_refused(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.mrc", np.zeros((1, 9, 9), np.uint8), 1.0)
    with pytest.raises(FormatError, match=f"defects of 9×9 pixels, the movies have {NY}×{NX}"):
        read_defect_mask(tmp_path / "a.mrc", (NY, NX))
