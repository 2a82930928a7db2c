"""Files of others are data: nothing in them is executed, or leads out of the folders named."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from flows.options import assigned, pipeline_from
from tasks.describe import describe
from tasks.discover import mdoc_source
from tasks.errors import UnusableData, UserError, WrongParameter
from tasks.formats.mrc import write_stack
from tasks.parameters import ImportParameters


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


V2 = {
    "zarr_format": 2,
    "shape": [1],
    "chunks": [1],
    "dtype": "<f4",
    "fill_value": 0,
    "order": "C",
    "compressor": None,
    "filters": None,
}
V3 = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [1],
    "data_type": "float32",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1]}},
    "chunk_key_encoding": {"name": "v2"},
    "fill_value": 0,
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
    "attributes": {},
}
PICKLE = {"id": "pickle", "name": "numcodecs.pickle", "configuration": {"protocol": 5}}


@pytest.mark.parametrize(
    ("file", "described"),
    [
        (".zarray", V2),  # whatever is in it
        (".zarray", V2 | {"filters": [PICKLE]}),
        (".zarray", V2 | {"compressor": PICKLE, "dtype": "|O"}),
        ("zarr.json", V3 | {"codecs": [PICKLE]}),
        ("zarr.json", V3 | {"codecs": [*V3["codecs"], PICKLE]}),
    ],
)
def test_no_pickles_in_a_project_are_executed(
    fake_run: Callable[..., Any], tmp_path: Path, file: str, described: dict[str, Any]
) -> None:
    result = fake_run().motion()
    folder = Path(result.url) / "images"
    (folder / "zarr.json").unlink()
    (folder / file).write_text(json.dumps(described))
    (folder / "0").write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    for opened in (result.images, lambda: result.array("images")):
        with pytest.raises((OSError, ValueError, KeyError, TypeError)):
            opened()[:]
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("key", ["../../outside", "x/../../y", "", ".hidden", "/etc"])
def test_a_result_lies_in_its_project(fake_run: Callable[..., Any], key: str) -> None:
    series = fake_run().series
    series.project.write_json(f"{series.name}/branches/main/motion.json", {"key": key})
    with pytest.raises(WrongParameter, match="result name"):
        series.current("main", "motion")


def test_images_that_stand_for_others_lie_in_the_project(
    fake_run: Callable[..., Any], tmp_path: Path
) -> None:
    run = fake_run()
    other = zarr.open_group(tmp_path / "outside", mode="w")
    other.create_array("images", shape=(1, 2, 2), dtype="float32")
    for path in ("../outside", "TS_01/../../outside", str(tmp_path / "outside")):
        result = run.finish("motion", images_in=path)
        with pytest.raises((OSError, ValueError)):
            result.images()


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/name:os.system"])
def test_a_parameter_file_holds_values_alone(tmp_path: Path, tag: str) -> None:
    text = f"{tag} ['touch {tmp_path}/executed']"
    path = tmp_path / "my.yaml"
    path.write_text(f"motion:\n  binning: {text}\n")
    with pytest.raises(UserError):
        pipeline_from(None, path, None)
    with pytest.raises(UserError):
        assigned([f"motion.binning={text}"])
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "named",
    [
        r"..\..\secret.mrc",
        "../secret.mrc",
        "../../secret",
        "{outside}/secret.mrc",
        r"..\secret.tif",
        "movies/..",
        ".",
        r"D:\frames\.",
    ],
)
def test_an_mdoc_names_only_movies_in_the_folders_that_the_user_gives(
    tmp_path: Path, named: str
) -> None:
    inside = tmp_path / "movies"
    inside.mkdir()
    for outside in (tmp_path / "secret.mrc", tmp_path / "movies.mrc", tmp_path / "frames.mrc"):
        write_stack(outside, np.ones((1, 8, 8), np.int16), 1.0)
    (inside / "TS_1.mdoc").write_text(
        f"[ZValue = 0]\nTiltAngle = 0\nSubFramePath = {named.format(outside=tmp_path)}\n"
    )
    source = mdoc_source(inside / "TS_1.mdoc")
    for parameters in (
        ImportParameters(mdoc="x"),
        ImportParameters(mdoc="x", allow_missing=True),
        ImportParameters(mdoc="x", movies=str(inside)),
    ):
        with pytest.raises(UnusableData, match=r"movies are missing|has no SubFramePath"):
            describe(source, parameters)


def test_the_stack_that_an_mdoc_names_is_looked_for_beside_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("x")
    path = tmp_path / "in" / "TS_1.mdoc"
    path.write_text("ImageFile = ../secret\n\n[ZValue = 0]\nTiltAngle = 0\n")
    with pytest.raises(UnusableData) as told:
        describe(mdoc_source(path), ImportParameters(mdoc="x"))
    assert "secret" not in str(told.value)


def test_a_movie_may_be_a_link_which_the_user_has_made(tmp_path: Path) -> None:
    write_stack(tmp_path / "real.mrc", np.ones((1, 8, 8), np.int16), 1.0)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mrc").symlink_to(tmp_path / "real.mrc")
    path = tmp_path / "in" / "TS_1.mdoc"
    path.write_text("[ZValue = 0]\nTiltAngle = 0\nSubFramePath = ..\\real\\a.mrc\n")
    told = describe(mdoc_source(path), ImportParameters(mdoc="x"))
    assert told.files == {0: tmp_path / "in" / "a.mrc"}
