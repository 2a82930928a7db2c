from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tasks.errors import UnusableData
from tasks.parameters import (
    CtfParameters,
    ExcludeParameters,
    Execution,
    MotionParameters,
    Parameters,
    Pipeline,
    ReconstructParameters,
    TransformParameters,
)
from tasks.record import Acquisition, FileIdentity, Handedness, Pretilt, TiltSeries, View
from tasks.result_keys import result_key
from tasks.steps import STEPS, file_of, inputs_of, needed

GAIN = FileIdentity(path="/a/gain.mrc", name="gain.mrc", size=9, digest="99", mtime_ns=1)

# A changed value of every field of the record that a user or an mdoc can change.
CHANGED: dict[str, Any] = {
    "name": "TS_99",
    "shape": (81, 96),
    "hand": -1,
    "handedness": Handedness(hand=-1, measured=-1, confidence=0.9),
    "pretilt": Pretilt(about_axis=9, across_axis=0, about_error=1, across_error=1),
    "thickness": 2000.0,
    "acquisition.voltage": 200.0,
    "acquisition.cs": 1.4,
    "acquisition.amplitude_contrast": 0.1,
    "acquisition.pixel_size": 1.36,
    "acquisition.tilt_axis": 84.0,
    "acquisition.magnification": 53000.0,
    "acquisition.gain": GAIN,
    "acquisition.gain_rotation": 1,
    "acquisition.gain_flip": "up-down",
    "acquisition.gain_inverted": True,
    "acquisition.eer_sampling": 2,
    "acquisition.dose_weighted": True,
    "acquisition.ctf_corrected": True,
    "acquisition.dark": GAIN,
    "acquisition.defects": GAIN,
    "views.tilt_angle": -46.5,
    "views.order": 60,
    "views.prior_dose": 1.5,
    "views.dose": 2.5,
    "views.movie": GAIN,
    "views.first_frame": 2,
    "views.frames": 5,
    "views.grouping": 4,
    "views.excluded": "the user",
}
# Another value of every parameter of every step.
OTHER: dict[str, dict[str, Any]] = {
    "coarse": {"reference": "cumulative", "axis": "given", "alignment_from": __file__},
    "markerfree": {
        "axis": "varying",
        "tilt_offset": "apply",
        "patches": (5, 5),
        "regions": "1,1 9,1 1,9 9,9",
        "beads": "join",
        "use_ctf": "no",
    },
    "motion": {
        "binning": 2.0,
        "align": False,
        "first_frame": 2,
        "last_frame": 3,
        "crop": (64, 80),
        "find_bad_pixels": False,
        "local": False,
        "patches": (3, 4),
        "group": 2,
        "group_local": 3,
        "reference_frame": 2,
        "b_factor": 100.0,
        "b_factor_local": 200.0,
        "max_drift": 50.0,
        "dose_weighted": True,
    },
    "exclude": {"dark_threshold": 0.2, "views": {"TS_01": "1"}, "include": {"TS_01": "7"}}
    | {"list": __file__, "include_list": __file__, "subset_views": {"TS_01": "2"}},
    "ctf": {
        "method": "strips",
        "ctf_from": __file__,
        "hand": -1,
        "expected_defocus": 30000.0,
        "expected_defocus_list": __file__,
        "extra_zeros": 2,
    },
    "dose": {"moment": "middle"},
    "ctf2d": {"images": "erase", "correction": "wiener", "defocus_tolerance": 300.0, "hand": -1}
    | {"alignment": "nominal"},
    "fiducials": {"beads": 20, "surfaces": 1, "exclude_regions": ((0, 0, 50, 60),)},
    "align": {"beads_from": __file__, "local": "off"}
    | dict.fromkeys(("rotation", "magnification", "tilt", "x_tilt", "stretch", "skew"), "grouped"),
    "preprocess": {"filter": "box", "normalise": "mean", "crop": (64, 80), "excluded": "drop"},
    "thickness": {"method": "beads", "tiles": (4, 5), "inset": 30.0},
    "transform": {"xf": __file__, "images": "erase", "filter": "box", "binning": 2.0}
    | {"swap": "yes", "excluded": "keep"},
    "reconstruct": {
        "images": "ctf2d",
        "method": "sirt",
        "weighting": "exact",
        "halves": "views",
        "start": "wbp",
    },
    "ctf3d": {"correction": "wiener", "halves": "views", "hand": -1, "compat": "novactf"},
}


@pytest.fixture
def record(fake_run: Callable[..., Any]) -> TiltSeries:
    return fake_run().series.imported()


def key_of(
    step: str, record: TiltSeries, parameters: Parameters | None = None, **inputs: str
) -> str:
    chosen = parameters or getattr(Pipeline(), step)
    read = dict.fromkeys(inputs_of(STEPS[step], chosen), "0" * 12) | inputs
    return result_key(STEPS[step], chosen, record, read)


def with_field(record: TiltSeries, field: str, value: Any) -> TiltSeries:
    part, _, name = field.partition(".")
    if part == "views":
        first = record.views[0].model_copy(update={name: value})
        return record.model_copy(update={"views": (first, *record.views[1:])})
    if part == "acquisition":
        changed = record.acquisition.model_copy(update={name: value})
        return record.model_copy(update={"acquisition": changed})
    return record.model_copy(update={part: value})


def other_value(step: str, name: str) -> Any:
    """Return another usable value of a parameter, made from its own default."""
    model: type[BaseModel] = type(getattr(Pipeline(), step))
    if name in OTHER.get(step, {}):
        return OTHER[step][name]
    default = model.model_fields[name].get_default(call_default_factory=True)
    if name == "alignment":
        return "coarse"
    if name == "interpolation" and default == "linear":
        return "spline"
    special = {"auto": 2, "float32": "float16", None: 128}
    if isinstance(default, bool):
        return not default
    if default in special:
        return special[default]
    return default + 1 if isinstance(default, int) else default * 0.5 + 0.01


def test_the_table_of_changes_names_every_field_of_the_record() -> None:
    decided_by_steps = {"motion", "ctf", "geometry"}
    fields = {f"acquisition.{name}" for name in Acquisition.model_fields}
    fields |= {f"views.{name}" for name in set(View.model_fields) - decided_by_steps}
    fields |= set(TiltSeries.model_fields) - {"acquisition", "views", "import_report"}
    assert set(CHANGED) == fields


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("field", CHANGED)
def test_the_key_changes_with_the_fields_that_a_step_reads_and_no_others(
    record: TiltSeries, step: str, field: str
) -> None:
    changed = key_of(step, with_field(record, field, CHANGED[field]))
    assert (changed != key_of(step, record)) == (field in STEPS[step].reads)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_dose_changes_the_sums_of_a_movie_only_where_they_are_weighted(
    record: TiltSeries, weighted: bool
) -> None:
    parameters = MotionParameters(dose_weighted=weighted)
    changed = with_field(record, "views.dose", 2.5)
    keys = {key_of("motion", one, parameters) for one in (record, changed)}
    assert len(keys) == (2 if weighted else 1)


@pytest.mark.parametrize(
    ("step", "name"),
    [(step, name) for step in STEPS for name in type(getattr(Pipeline(), step)).model_fields],
)
def test_the_key_changes_with_every_parameter(record: TiltSeries, step: str, name: str) -> None:
    default = getattr(Pipeline(), step)
    other = type(default).model_validate({**dict(default), name: other_value(step, name)})
    inputs = dict.fromkeys(inputs_of(STEPS[step], default), "0" * 12)
    keys = {result_key(STEPS[step], values, record, inputs) for values in (default, other)}
    assert len(keys) == 2


@pytest.mark.parametrize("step", STEPS)
def test_the_key_changes_with_the_version_and_with_every_input(
    record: TiltSeries, step: str
) -> None:
    parameters = getattr(Pipeline(), step)
    inputs = dict.fromkeys(inputs_of(STEPS[step], parameters), "0" * 12)
    newer = replace(STEPS[step], version=STEPS[step].version + 1)
    keys = {key_of(step, record), result_key(newer, parameters, record, inputs)}
    keys |= {key_of(step, record, **{name: "1" * 12}) for name in inputs}
    assert len(keys) == 2 + len(inputs)


@pytest.mark.parametrize("field", ["path", "mtime_ns"])
def test_a_moved_or_touched_movie_keeps_the_key(record: TiltSeries, field: str) -> None:
    old = record.views[0].movie
    moved = old.model_copy(update={field: "/elsewhere/x.mrc" if field == "path" else 77})
    assert key_of("motion", with_field(record, "views.movie", moved)) == key_of("motion", record)


@pytest.mark.parametrize("field", ["name", "size", "digest"])
def test_another_movie_changes_the_key(record: TiltSeries, field: str) -> None:
    other = record.views[0].movie.model_copy(update={field: 12345 if field == "size" else "other"})
    assert key_of("motion", with_field(record, "views.movie", other)) != key_of("motion", record)


@pytest.mark.parametrize("name", STEPS["ctf"].files)
def test_a_file_counts_by_its_content_wherever_it_lies(
    record: TiltSeries, tmp_path: Path, name: str
) -> None:
    def key(place: str, content: str) -> str:
        path = tmp_path / place.replace("{TS}", "TS_01")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return key_of("ctf", record, CtfParameters.model_validate({name: str(tmp_path / place)}))

    here = key("a/TS_01.defocus", "1 1 0 0 3000 2")
    assert here == key("b/other.txt", "1 1 0 0 3000 2") == key("c/{TS}.star", "1 1 0 0 3000 2")
    assert here != key("a/TS_01.defocus", "1 1 0 0 3001 2")
    assert here != key_of("ctf", record)


def test_the_content_of_a_long_file_counts_to_the_last_digit(
    record: TiltSeries, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(bytes(3_000_000))
    parameters = CtfParameters(ctf_from=str(tmp_path / "x"))
    before = key_of("ctf", record, parameters)
    changed = bytearray(3_000_000)
    changed[1_234_567] = 1
    (tmp_path / "x").write_bytes(changed)
    assert key_of("ctf", record, parameters) != before


def test_a_missing_file_is_named_with_the_parameter(record: TiltSeries, tmp_path: Path) -> None:
    parameters = CtfParameters(ctf_from=str(tmp_path / "{TS}.defocus"))
    with pytest.raises(UnusableData, match=r"TS_01\.defocus: no such file.*correct ctf\.ctf_from"):
        key_of("ctf", record, parameters)
    assert file_of(parameters, "ctf_from", "TS_02") == tmp_path / "TS_02.defocus"
    assert file_of(CtfParameters(), "ctf_from", "TS_02") is None


@pytest.mark.parametrize("path", ["\0", "/", "~nobody-of-that-name/x"])
def test_a_path_of_no_file_is_unusable(record: TiltSeries, path: str) -> None:
    with pytest.raises(UnusableData, match=r"correct ctf\.ctf_from"):
        key_of("ctf", record, CtfParameters(ctf_from=path))


def test_no_setting_of_the_execution_is_a_parameter_of_a_step() -> None:
    for step in STEPS:
        assert not set(Execution.model_fields) & set(type(getattr(Pipeline(), step)).model_fields)


def test_lists_of_views_of_other_series_do_not_change_the_key(record: TiltSeries) -> None:
    own = ExcludeParameters(views={"TS_01": "2"}, include={"TS_01": "7"})
    more = ExcludeParameters(
        views={"TS_01": "2", "TS_02": "1,3-5"}, include={"TS_01": "7", "TS_03": "1"}
    )
    assert key_of("exclude", record, own) == key_of("exclude", record, more)
    assert key_of("exclude", record, own) != key_of("exclude", record, ExcludeParameters())
    assert more.for_series("TS_02").model_dump()["views"] == {"TS_02": "1,3-5"}


def test_parameters_choose_the_alignment_that_is_read() -> None:
    step = STEPS["reconstruct"]
    steps = {"coarse": "coarse", "markerfree": "markerfree", "fiducial": "align"}
    for alignment, chosen in steps.items():
        parameters = ReconstructParameters(alignment=alignment)
        assert inputs_of(step, parameters) == ("dose", "exclude", chosen, "thickness")


@pytest.mark.parametrize("step", ["reconstruct", "ctf3d"])
def test_a_box_that_the_user_lays_does_not_rest_on_what_was_measured(
    record: TiltSeries, step: str
) -> None:
    place = {"thickness": "350px", "z_shift": "75px", "angle_offset": 0.0, "x_tilt": 0.0}
    model = type(getattr(Pipeline(), step))
    assert "thickness" not in inputs_of(STEPS[step], model.model_validate(place))
    for name in place:
        rest = {other: value for other, value in place.items() if other != name}
        assert "thickness" in inputs_of(STEPS[step], model.model_validate(rest))


def test_an_aligned_stack_rests_on_the_images_and_the_alignment_that_are_chosen() -> None:
    step = STEPS["transform"]
    chosen = TransformParameters(images="erase", alignment="coarse")
    assert inputs_of(step, chosen) == ("erase", "exclude", "coarse")
    assert inputs_of(step, TransformParameters(xf="a.xf")) == ("dose", "exclude")


@pytest.mark.parametrize(
    ("alignment", "until", "expected"),
    [
        (
            "markerfree",
            None,
            [
                "motion",
                "exclude",
                "ctf",
                "erase",
                "dose",
                "coarse",
                "markerfree",
                "thickness",
                "reconstruct",
            ],
        ),
        (
            "coarse",
            None,
            ["motion", "exclude", "ctf", "erase", "dose", "coarse", "thickness", "reconstruct"],
        ),
        (
            "fiducial",
            None,
            [
                step
                for step in STEPS
                if step not in {"ctf2d", "ctf3d", "preprocess", "markerfree", "transform"}
            ],
        ),
        (
            "auto",
            None,
            [
                "motion",
                "exclude",
                "ctf",
                "erase",
                "dose",
                "coarse",
                "fiducials",
                "thickness",
                "reconstruct",
            ],
        ),
        ("markerfree", "motion", ["motion"]),
        ("markerfree", "ctf", ["motion", "exclude", "ctf"]),
        ("markerfree", "dose", ["motion", "exclude", "erase", "dose"]),
        ("markerfree", "coarse", ["motion", "exclude", "erase", "dose", "coarse"]),
        ("coarse", "preprocess", ["motion", "exclude", "erase", "preprocess"]),
        (
            "coarse",
            "transform",
            ["motion", "exclude", "erase", "dose", "coarse", "fiducials", "transform"],
        ),
    ],
)
def test_a_run_takes_what_the_last_step_rests_on_in_order(
    alignment: str, until: str | None, expected: list[str]
) -> None:
    pipeline = Pipeline(reconstruct=ReconstructParameters(alignment=alignment))
    assert list(needed(pipeline, until)) == expected


def test_every_step_has_parameters_a_task_and_a_flow() -> None:
    from flows import steps as step_flows
    from flows.tomogram import STEP_TASKS

    assert list(STEPS) == list(Pipeline.model_fields) == list(STEP_TASKS)
    for name in STEPS:
        assert STEP_TASKS[name].name == name
        assert getattr(step_flows, name).name == name
    prefixes = [step.prefix for step in STEPS.values()]
    assert len(set(prefixes)) == len(prefixes)
