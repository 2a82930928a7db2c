from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from ome_zarr_models.v05.image import Image

from tasks.formats.ome_zarr import multiscale, pyramid


def test_the_metadata_is_valid_ome_zarr_0_5() -> None:
    group = zarr.open_group(zarr.storage.MemoryStore(), mode="w", zarr_format=3)
    levels = pyramid((200, 300, 260))
    for level, shape in enumerate(levels):
        group.create_array(
            str(level), shape=shape, dtype="float32", dimension_names=("z", "y", "x")
        )
    group.update_attributes({"ome": multiscale("TS_01", 5.4, len(levels), {"views": 41})})
    (scale,) = Image.from_zarr(group).ome_attributes.multiscales
    assert [axis.name for axis in scale.axes] == ["z", "y", "x"]
    assert [axis.unit for axis in scale.axes] == ["angstrom"] * 3
    assert [dataset.path for dataset in scale.datasets] == [str(i) for i in range(len(levels))]


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_a_coarse_voxel_lies_at_the_middle_of_those_that_it_averages(level: int) -> None:
    (scale,) = multiscale("x", 2.0, 4, {})["multiscales"]
    size, start = (
        next(iter(set(step[kind])))
        for step, kind in zip(
            scale["datasets"][level]["coordinateTransformations"],
            ("scale", "translation"),
            strict=True,
        )
    )
    fine = 2.0 * np.arange(64)
    coarse = fine.reshape(-1, 2**level).mean(axis=1)
    np.testing.assert_allclose(start + size * np.arange(len(coarse)), coarse)


@given(st.tuples(*[st.integers(1, 5000)] * 3))
def test_levels_halve_until_the_longest_side_is_small(shape: tuple[int, int, int]) -> None:
    levels = pyramid(shape)
    assert levels[0] == shape
    for above, below in pairwise(levels):
        assert below == tuple(n // 2 for n in above)
        assert min(below) >= 1
    assert max(levels[-1]) <= 128 or min(levels[-1]) < 2
