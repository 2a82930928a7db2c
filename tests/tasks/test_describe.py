"""What is doubted of a tilt series before its movies are opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.acquisition import Report, ctf_corrected
from tasks.describe import describe
from tasks.description import Description
from tasks.discover import Source, mdoc_source
from tasks.errors import UnusableData
from tasks.formats.mrc import read_header, write_stack
from tasks.formats.mrc_extended import ctf_correction_in
from tasks.parameters import ImportParameters


def test_an_mdoc_that_ends_within_a_section_is_doubted(tmp_path: Path) -> None:
    text = "Voltage = 300\n"
    for i in range(4):
        write_stack(tmp_path / f"m{i}.mrc", np.ones((1, 8, 8), np.int16), 1.35)
        text += f"\n[ZValue = {i}]\nTiltAngle = {i}\nSubFramePath = m{i}.mrc\nBinning = 1\n"
    path = tmp_path / "TS_1.mdoc"
    for content, doubted in ((text, False), (text.removesuffix("Binning = 1\n"), True)):
        path.write_text(content)
        doubts = describe(mdoc_source(path), ImportParameters(mdoc="x")).doubts
        assert (("mdoc", "may be cut off") in [doubt[:2] for doubt in doubts]) == doubted


def described(folder: Path, old: str = "", new: str = "") -> Description:
    text = ""
    for i, tilt in enumerate((0.0, 3.0, -3.0)):
        name = f"TS_01_{i:03d}_{tilt}.mrc"
        (folder / name).write_bytes(b"movie")
        text += f"[ZValue = {i}]\nTiltAngle = {tilt}\nSubFramePath = D:\\{name}\n\n"
    path = folder / "TS_01.mdoc"
    path.write_text(text.replace(old, new) if old else text)
    return describe(mdoc_source(path), ImportParameters(mdoc="x"))


def test_an_mdoc_that_says_all_is_not_doubted(tmp_path: Path) -> None:
    told = described(tmp_path)
    assert (told.doubts, told.said_by) == ((), "mdoc")


@pytest.mark.parametrize("new", ["Angle = 3.0", "Tilt{Angle = 3.0"])
def test_an_angle_that_only_the_movies_name_tells_is_noted(tmp_path: Path, new: str) -> None:
    told = described(tmp_path, "TiltAngle = 3.0", new)
    assert [view.tilt_angle for view in told.views] == [0, 3, -3]
    assert told.said_by == "mdoc, else the movies' names"
    ((field, value, _, doubt),) = told.doubts
    assert (field, value) == ("angles by name", "1 of 3")
    assert doubt == "no TiltAngle in the mdoc, first in section 1"


def test_lines_that_mean_nothing_are_noted(tmp_path: Path) -> None:
    told = described(tmp_path, "[ZValue = 2]", "[ZValue = 2]\nVoltage 300")
    ((field, value, _, doubt),) = told.doubts
    assert (field, value) == ("mdoc lines", "1 left out")
    assert doubt == "line 10 means nothing: 'Voltage 300'"


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("ctfPhaseFlip: CTF correction with phase flipping only", True),
        ("tiltflow ctf2d: binning 1, weighted by dose, CTF-corrected (flip)", True),
        ("tiltflow preprocess: binning 4, not weighted by dose", False),
        ("ctfplotter was used", False),
    ],
)
def test_a_stack_that_says_it_is_ctf_corrected_is_believed(
    tmp_path: Path, label: str, found: bool
) -> None:
    path = tmp_path / "TS_01.st"
    write_stack(path, [[[1.0, 2.0]]] * 2, 1.0, labels=["NEWSTACK: images copied", label])
    for beside in ("", "[ZValue = 0]\nTiltAngle = 0\n\n[ZValue = 1]\nTiltAngle = 3\n"):
        if beside:
            path.with_name("TS_01.st.mdoc").write_text(beside)
        user = ImportParameters(stack="x", angles=None if beside else "0,3,3")
        told = describe(Source("TS_01", path, is_stack=True), user)
        assert (told.ctf_corrected is not None) == found
        for said in (None, True, False):
            report = Report()
            given = user.model_copy(update={"ctf_corrected": said})
            assert ctf_corrected(given, told, report) == (found if said is None else said)
            assert bool(report.fields) == (found or bool(said))
            if found and said is False:
                assert label in (report.fields[0].conflict or "")


def test_imods_flag_says_that_a_stack_is_ctf_corrected(tmp_path: Path) -> None:
    path = tmp_path / "TS_01.st"
    write_stack(path, [[[1.0, 2.0]]], 1.0)
    assert ctf_correction_in(read_header(path)) is None
    raw = bytearray(path.read_bytes())
    at = raw.index((1146047817).to_bytes(4, "little")) + 4
    raw[at] |= 32
    path.write_bytes(raw)
    assert ctf_correction_in(read_header(path)) == "IMOD's flag in the stack header"


def test_a_file_of_angles_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_stack(tmp_path / "TS_01.st", [[[1.0, 2.0]]], 1.0)
    source = Source("TS_01", tmp_path / "TS_01.st", is_stack=True)
    with pytest.raises(UnusableData, match=r"angles\.tlt: no such file: correct --angles"):
        describe(source, ImportParameters(stack="x", angles="angles.tlt"))
