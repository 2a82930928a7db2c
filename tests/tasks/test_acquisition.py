"""What the mdoc says of pixel, voltage and dose, and what of it is doubted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.discover import find_sources
from tasks.errors import UnusableData
from tasks.formats.mdoc import read_mdoc
from tasks.formats.mrc import write_stack
from tasks.ingest import read_series
from tasks.parameters import ImportParameters
from tasks.record import ImportedField, TiltSeries

HEADER = "PixelSpacing = {pixel}\nVoltage = {voltage}\n{more}\n[T = Tilt axis angle = 5]\n\n"


def write_series(
    folder: Path,
    *fields: str,
    tilts: tuple[float, ...] = (0, 3, -3),
    size: int = 16,
    stack: int | None = 16,
    pixel: float = 2.0,
    voltage: float = 300,
) -> Path:
    """Write an mdoc and its movies; each view has its own text of `fields`, or the only one."""
    more = "" if stack is None else f"ImageSize = {stack} {stack}\n"
    text = HEADER.format(pixel=pixel, voltage=voltage, more=more)
    for i, tilt in enumerate(tilts):
        own = fields[i] if len(fields) > 1 else "".join(fields)
        text += f"[ZValue = {i}]\nTiltAngle = {tilt}\nPixelSpacing = {pixel}\n"
        text += f"SubFramePath = D:\\m{i}.mrc\nDateTime = 30-Nov-15  15:2{i}:38\n{own}\n\n"
        write_stack(folder / f"m{i}.mrc", np.full((2, size, size), i, np.int16), 1.0)
    path = folder / "TS_07.mdoc"
    path.write_text(text)
    return path


def imported(path: Path, **given: Any) -> TiltSeries:
    user = ImportParameters(mdoc=str(path), **given)
    (source,) = find_sources(user).sources
    return read_series.fn(source, user)


def line(record: TiltSeries, field: str) -> ImportedField:
    (found,) = [line for line in record.import_report if line.field == field]
    return found


def test_a_binning_that_nothing_else_explains_casts_doubt_on_the_pixel(tmp_path: Path) -> None:
    path = write_series(tmp_path, "Binning = 4", stack=None, pixel=6)
    record = imported(path, dose=3)
    assert record.acquisition.pixel_size == 6
    assert line(record, "pixel size").conflict == "mdoc PixelSpacing / Binning says 1.5 Å"
    given = line(imported(path, dose=3, pixel_size=1.5), "pixel size")
    assert given.conflict == "mdoc PixelSpacing says 6 Å"


def test_a_binning_that_the_sizes_explain_is_no_doubt(tmp_path: Path) -> None:
    record = imported(write_series(tmp_path, "Binning = 4", stack=4, pixel=6), dose=3)
    assert record.acquisition.pixel_size == 1.5
    assert line(record, "pixel size").conflict is None


@pytest.mark.parametrize("stack", [4, 16])
def test_counts_are_those_of_serialems_stack_whose_binning_adds_them_up(
    tmp_path: Path, stack: int
) -> None:
    pixel = 1.5 * 16 / stack
    counts = 3 * pixel**2 * 20  # of 3 e/Å² at 20 counts an electron
    fields = f"CountsPerElectron = 20\nMinMaxMean = 0 9999 {counts}"
    record = imported(write_series(tmp_path, fields, stack=stack, pixel=pixel))
    assert record.acquisition.pixel_size == 1.5
    assert [view.dose for view in record.views] == pytest.approx([3] * 3)


def test_the_counts_of_serialems_files_agree_with_their_dose_rate(shared_data: Path) -> None:
    # One file's counts were divided by 2, and so its CountsPerElectron: 16, in the other 32.
    for name, divided in (("montage_section", True), ("montage_section_multiple", False)):
        views = read_mdoc(shared_data / "mdoc_variants" / f"{name}.mdoc", montage=True).sections
        ratios = [
            view.min_max_mean[2]
            / (view.counts_per_electron * view.exposure_time * view.binning**2)
            / view.dose_rate
            for view in views
            if view.min_max_mean and view.counts_per_electron and view.exposure_time
            if view.binning and view.dose_rate and view.divided_by_2 == divided
        ]
        assert len(ratios) > 50
        assert 0.75 < np.median(ratios) < 1.2


def test_routes_that_agree_in_the_mean_only_are_a_conflict(tmp_path: Path) -> None:
    path = write_series(
        tmp_path,
        "ExposureDose = 3\nFrameDosesAndNumber = 1.5 2",
        "ExposureDose = 2\nFrameDosesAndNumber = 2 2",
        "ExposureDose = 4\nFrameDosesAndNumber = 1 2",
    )
    dose = line(imported(path), "dose per view")
    assert dose.source == "mdoc ExposureDose"
    assert dose.conflict == "mdoc FrameDosesAndNumber says 4 e/Å² of a view of 2"


@pytest.mark.parametrize("lacking", ["", "ExposureDose = 0"])
def test_a_view_without_a_dose_is_named(tmp_path: Path, lacking: str) -> None:
    path = write_series(tmp_path, "ExposureDose = 3", lacking, "ExposureDose = 3")
    with pytest.raises(UnusableData, match=r"ExposureDose in 1 of 3 views.*\[ZValue = 1\].*--dose"):
        imported(path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"voltage": 300000}, r"Voltage is 300000 kV: give --voltage in kV"),
        ({"pixel_size": float("inf")}, r"pixel_size\n.*finite number"),
        ({"cs": float("inf")}, r"cs\n.*finite number"),
        ({"gain_orientation": "auto"}, r"gain_orientation auto without a gain: give --gain"),
    ],
)
def test_values_that_make_no_sense_are_refused(
    tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        imported(write_series(tmp_path), **{"dose": 3, **given})


def test_an_angle_beyond_upright_is_refused(tmp_path: Path) -> None:
    path = write_series(tmp_path, tilts=(0, 120, -3))
    with pytest.raises(UnusableData, match=r"\[ZValue = 1\] has TiltAngle = 120"):
        imported(path, dose=3)


def test_a_dark_view_is_seen_though_another_view_has_no_mean(tmp_path: Path) -> None:
    means = [f"MinMaxMean = 0 9 {mean}" for mean in (100, 1, 100, 100)]
    path = write_series(tmp_path, "", *means, tilts=(0, 3, -3, 6, -6))
    excluded = {view.tilt_angle: view.excluded for view in imported(path, dose=3).views}
    assert str(excluded.pop(-3)).startswith("dark: mean 1 where about")
    assert set(excluded.values()) == {None}


def test_a_gain_without_signal_is_refused(tmp_path: Path) -> None:
    path = write_series(tmp_path)
    write_stack(tmp_path / "gain.mrc", np.zeros((1, 16, 16), np.float32), 1.0)
    with pytest.raises(UnusableData, match=r"gain\.mrc: no pixel is above 0"):
        imported(path, dose=3, gain=str(tmp_path / "gain.mrc"))
