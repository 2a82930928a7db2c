from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import yaml

from flows.options import as_yaml, pipeline_from, validated
from flows.presets import PRESETS
from tasks.errors import WrongParameter
from tasks.parameters import ExcludeParameters, ImportParameters, Pipeline


@pytest.mark.parametrize("preset", PRESETS)
def test_the_printed_yaml_loads_back_into_the_same_parameters(tmp_path: Path, preset: str) -> None:
    pipeline = pipeline_from(preset, None, ["exclude.views={TS_01: '1,3-5'}", "ctf.box=128"])
    (tmp_path / "p.yaml").write_text(as_yaml(pipeline), encoding="utf-8")
    assert pipeline_from(None, tmp_path / "p.yaml", None) == pipeline


def test_the_printed_yaml_explains_every_parameter() -> None:
    text = as_yaml(Pipeline())
    for step, field in Pipeline.model_fields.items():
        for name, inner in type(getattr(Pipeline(), step)).model_fields.items():
            assert inner.description, f"{step}.{name}"
            assert inner.description in text
        assert field.annotation is not None
    expected = Pipeline().model_dump(mode="json")
    expected["exclude"]["subset_views"] = {}  # shown here, left out of what names results
    assert yaml.safe_load(text) == expected


def test_later_layers_beat_earlier_ones(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("motion: {binning: 3}\nreconstruct: {thickness: 900}\nctf:\n")
    made = pipeline_from("tutorial-markerfree", tmp_path / "p.yaml", ["motion.binning=4"])
    assert made.motion.binning == 4
    assert made.reconstruct.thickness == 900
    assert made.reconstruct.subsets == 8


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("motion.bining=2", r"motion\.bining: no such parameter; there are: binning, first_frame,"),
        ("montion.binning=2", r"montion: no such parameter; there are: motion, exclude"),
        ("motion.binning=two", r"motion\.binning: .*number.*not 'two'"),
        ("motion.binning=0", r"motion\.binning: .*greater than or equal to 1, not 0"),
        ("motion.binning=.nan", r"motion\.binning: .*nan"),
        ("motion.binning=", r"motion\.binning: .*not None"),
        ("motion.binning", r"--set motion\.binning: write step\.parameter=value"),
        ("binning=2", r"--set binning=2: write step\.parameter=value"),
        ("motion.binning=[2", r"--set motion\.binning=\[2: .*YAML"),
        ("reconstruct.alignment=gold", r"reconstruct\.alignment: .*'coarse', not 'gold'"),
        ("reconstruct.binning=many", r"reconstruct\.binning: .*'many'"),
        ("exclude.views=[1]", r"exclude\.views: .*not"),
    ],
)
def test_a_wrong_assignment_is_one_line_with_the_value_and_what_is_possible(
    assignment: str, told: str
) -> None:
    with pytest.raises(WrongParameter, match=told) as caught:
        pipeline_from(None, None, [assignment])
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"motion: [", r"p\.yaml: cannot be read as YAML"),
        (b"\xff\xfe\x00", r"p\.yaml: cannot be read as YAML"),
        (b"- motion", r"p\.yaml: has no steps with parameters: see `tiltflow config`"),
        (b"motion: 2", r"p\.yaml: has no steps with parameters"),
        (b"motion: {bining: 2}", r"motion\.bining: no such parameter"),
        (b"2: {binning: 2}", r"2: no such parameter"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "p.yaml").write_bytes(content)
    with pytest.raises(WrongParameter, match=told):
        pipeline_from(None, tmp_path / "p.yaml", None)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WrongParameter, match=r"none\.yaml: cannot be read.*No such file"):
        pipeline_from(None, tmp_path / "none.yaml", None)


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(WrongParameter, match=r"preset 'quick': there are default, fast, tutorial"):
        pipeline_from("quick", None, None)


def test_lists_of_views_are_given_by_series() -> None:
    made = validated(ExcludeParameters, {"views": ["TS_01=1,3-5", "TS_02=7"]})
    assert made.views == {"TS_01": "1,3-5", "TS_02": "7"}
    with pytest.raises(WrongParameter, match=r"views: '1,3' is not NAME=LIST, e\.g\. TS_01=1,3-5"):
        validated(ExcludeParameters, {"views": ["1,3"]})


def test_every_choice_can_be_made_on_the_command_line() -> None:
    numbers = 0
    for name, field in ImportParameters.model_fields.items():
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        for choice in choices:
            made = validated(ImportParameters, {"mdoc": "x", "gain": "g", name: str(choice)})
            assert getattr(made, name) == choice
            numbers += isinstance(choice, int)
    assert numbers == 7  # gain_rotate and eer_sampling


def test_a_choice_that_does_not_exist_is_refused() -> None:
    with pytest.raises(WrongParameter, match="gain_rotate: input should be 0, 1, 2 or 3, not '5'"):
        validated(ImportParameters, {"mdoc": "x", "gain_rotate": "5"})
