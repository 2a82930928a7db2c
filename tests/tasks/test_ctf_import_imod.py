from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ctf_views import as_stack, at, defoci, without

from kernels.ctf import Ctf, ctf_2d
from tasks.ctf_import import imported_ctf
from tasks.errors import UnusableData
from tasks.formats.imod_defocus import DefocusRow, read_defocus, write_defocus
from tasks.record import TiltSeries

EXCLUDED = 6  # the last of seven
TILTS = (-47.0, -20.0, 0.0, 13.0, 30.0, 47.0, 50.0)


@pytest.fixture
def record(fake_run: Callable[..., Any]) -> TiltSeries:
    """Return a record of seven views, of which the last is excluded."""
    return without(fake_run().series.imported(), EXCLUDED)


@pytest.fixture
def defocus_file(tmp_path: Path) -> Callable[..., Path]:
    """Return the function that writes rows (first, last, low, high, defocus [Å], …)."""

    def write(rows: Sequence[tuple[Any, ...]], **settings: Any) -> Path:
        write_defocus(tmp_path / "a.defocus", [DefocusRow(*_both(row)) for row in rows], **settings)
        return tmp_path / "a.defocus"

    def _both(row: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*row, row[4]) if len(row) == 5 else row

    return write


def singly(tilts: Sequence[float], numbers: Sequence[int] | None = None) -> list[tuple[Any, ...]]:
    """Return rows of one view each; their defocus is 1e4 Å · place in `tilts`."""
    places = range(1, len(tilts) + 1)
    return [
        (n, n, tilt, tilt, 1e4 * place)
        for place, n, tilt in zip(places, numbers or places, tilts, strict=True)
    ]


def test_imods_real_file_gives_each_view_its_row(record: TiltSeries, shared_data: Path) -> None:
    path = shared_data / "pytom_test/test_imod.defocus"
    series = at(record, np.arange(-51.0, 52, 3).tolist())
    found = imported_ctf(path, series)
    assert defoci(found) == [round(row.defocus_u) for row in read_defocus(path).rows]
    assert (found.hand, found.doubts) == (None, ())
    first = found.estimates[0]
    assert first is not None
    assert (first.reliable, first.score, first.fit_resolution, first.uncertainty) == (
        True, None, None, None,
    )  # fmt: skip


def test_imods_real_file_goes_with_a_series_that_lacks_views_by_angle(
    record: TiltSeries, shared_data: Path
) -> None:
    # The file counts 35 views, of which this series has been given three more in between.
    path = shared_data / "pytom_test/test_imod.defocus"
    tilts = sorted([*np.arange(-51.0, 52, 3), -49.4, 1.5, 43.6])
    found = imported_ctf(path, at(record, tilts))
    kept = [e for e in found.estimates if e is not None and e.reliable]
    assert [round(e.defocus) for e in kept] == [round(r.defocus_u) for r in read_defocus(path).rows]
    assert found.doubts == (
        "test_imod.defocus: its view numbers do not fit: matched by tilt angle",
    )


def test_a_row_over_views_is_the_value_of_the_middle_one_and_others_are_between(
    record: TiltSeries, defocus_file: Callable[..., Path]
) -> None:
    rows = [(1, 3, -47, 0, 20000, 18000, 80), (5, 6, 30, 47, 26000, 21000, -80)]
    found = imported_ctf(defocus_file(rows), record)
    expected = [(20000, 18000, 80), (20000, 18000, 80), (22000, 19000, 86.667),
                (24000, 20000, -86.667), (26000, 21000, -80), (26000, 21000, -80)]  # fmt: skip
    for estimate, values in zip(found.estimates, expected, strict=False):
        assert estimate is not None
        assert (
            estimate.defocus_u, estimate.defocus_v, estimate.astigmatism_angle
        ) == pytest.approx(values, abs=0.01)  # fmt: skip
    assert [e.reliable for e in found.estimates if e] == [True, True, True, False, True, True]
    assert found.estimates[3].problem == "not in a.defocus: from the views beside it"  # type: ignore[union-attr]
    assert found.estimates[EXCLUDED] is None


def test_a_smaller_first_defocus_does_not_turn_the_views_between(
    record: TiltSeries, defocus_file: Callable[..., Path]
) -> None:
    # The same astigmatism, once told from its other axis.
    rows = [(1, 1, -47, -47, 20000, 18000, 30), (3, 3, 0, 0, 18000, 20000, 120)]
    middle = imported_ctf(defocus_file(rows), record).estimates[1]
    assert middle is not None
    assert (middle.defocus_u, middle.defocus_v) == (20000, 18000)
    assert middle.astigmatism_angle == pytest.approx(30)


def test_numbers_count_all_views_or_those_that_are_included(
    record: TiltSeries, defocus_file: Callable[..., Path]
) -> None:
    series = without(record, 0, 3)
    left = [TILTS[i] for i in series.included]
    of_all = imported_ctf(defocus_file(singly(left, [2, 3, 5, 6, 7])), series)
    of_left = imported_ctf(defocus_file(singly(left)), series)
    assert defoci(of_all) == defoci(of_left) == [None, 1e4, 2e4, None, 3e4, 4e4, 5e4]
    assert of_left.doubts == ()


@pytest.mark.parametrize("pretilt", [-9.0, 0.4, 20.0])
def test_refined_angles_of_a_tilted_specimen_still_fit(
    record: TiltSeries, defocus_file: Callable[..., Path], pretilt: float
) -> None:
    wiggled = [t + pretilt + 0.4 * (-1) ** i for i, t in enumerate(TILTS)]
    found = imported_ctf(defocus_file(singly(wiggled)), record)
    assert defoci(found) == [1e4, 2e4, 3e4, 4e4, 5e4, 6e4, None]
    assert len(found.doubts) == (abs(pretilt) > 1)


@pytest.mark.parametrize(
    ("sign", "flag", "hand"), [(1, True, -1), (-1, False, -1), (1, False, None), (-1, True, None)]
)
def test_the_hand_is_what_the_flag_or_inverted_angles_tell(
    record: TiltSeries, defocus_file: Callable[..., Path], sign: int, flag: bool, hand: int | None
) -> None:
    rows = singly([sign * t for t in TILTS])
    found = imported_ctf(defocus_file(rows, inverted=flag), record)
    assert defoci(found)[:6] == [1e4, 2e4, 3e4, 4e4, 5e4, 6e4]
    assert found.hand == hand
    assert any("with -invert" in doubt for doubt in found.doubts) == (sign == -1)


def test_numbers_are_those_of_the_sections_of_an_imported_stack(
    record: TiltSeries, defocus_file: Callable[..., Path]
) -> None:
    # Recorded from +50° down: section 1 is the last view by tilt angle.
    stack = as_stack(without(record), range(7, 0, -1))
    found = imported_ctf(defocus_file(singly(TILTS[::-1])), stack)
    assert defoci(found) == [7e4, 6e4, 5e4, 4e4, 3e4, 2e4, 1e4]
    assert (found.hand, found.doubts) == (None, ())
    sorted_again = imported_ctf(defocus_file(singly(TILTS)), stack)
    assert defoci(sorted_again) == [1e4, 2e4, 3e4, 4e4, 5e4, 6e4, 7e4]


def test_rows_of_another_series_are_refused(
    record: TiltSeries, defocus_file: Callable[..., Path]
) -> None:
    for rows in (singly([-60, -50, 10, 20]), singly([0] * 7), [(1, 9, -47, 50, 3e4)]):
        with pytest.raises(
            UnusableData, match=r"a\.defocus: view \d at .* none of the views of TS"
        ):
            imported_ctf(defocus_file(rows), record)


def imods_defocus(kx: Any, ky: Any, row: DefocusRow) -> Any:
    """Return what ctfphaseflip takes as the defocus at a frequency, in the words of its source.

    It corrects a stack of row 0 at the bottom with ½(D1 + D2) + ½(D1 − D2)(2c² − 1), where c is
    the cosine between the frequency and the axis: (cos(angle)·kx + sin(angle)·ky) / k.
    """
    angle = np.radians(row.astigmatism_angle)
    c = (np.cos(angle) * kx + np.sin(angle) * ky) / np.hypot(kx, ky)
    half = (row.defocus_u + row.defocus_v) / 2, (row.defocus_u - row.defocus_v) / 2
    return half[0] + half[1] * (2 * c**2 - 1)


@pytest.mark.parametrize("angle", [-70.0, 20.0, 65.0])
def test_the_astigmatism_angle_of_imod_is_that_of_the_record(
    record: TiltSeries, defocus_file: Callable[..., Path], angle: float
) -> None:
    path = defocus_file([(n, n, t, t, 30000, 26000, angle) for n, t in enumerate(TILTS, 1)])
    estimate = imported_ctf(path, record).estimates[2]
    assert estimate is not None
    ky, kx = np.meshgrid(np.linspace(-0.1, 0.1, 20), np.linspace(0.01, 0.1, 10), indexing="ij")
    ours = ctf_2d(ky, kx, estimate.model(record.acquisition))
    defocus = imods_defocus(kx, ky, read_defocus(path).rows[2])
    for (y, x), value in np.ndenumerate(defocus):
        k = np.hypot(kx[y, x], ky[y, x])
        plain = Ctf(value, value, 0.0, 300.0, 2.7, 0.07)
        assert ctf_2d(np.zeros((1, 1)), np.full((1, 1), k), plain)[0, 0] == pytest.approx(
            ours[y, x], abs=1e-6
        )
