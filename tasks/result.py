"""The result of a step: its arrays, its attributes, and what is done of it (design §2)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from tasks.steps import STEPS

if TYPE_CHECKING:
    from tasks.store import Series

# Images are never empty; to compare each chunk with zero takes a third of the time of writing it.
zarr.config.set({"array.write_empty_chunks": True})


@dataclass(frozen=True)
class Result:
    """The immutable output of one step, named by what made it."""

    series: Series
    step: str
    key: str

    @property
    def name(self) -> str:
        """Of its group under the series."""
        return f"{STEPS[self.step].prefix}-{self.key}"

    @property
    def path(self) -> str:
        """Of its group in the project."""
        return f"{self.series.name}/{self.name}"

    @property
    def url(self) -> str:
        """Where a person finds it."""
        return f"{self.series.project.url.rstrip('/')}/{self.path}"

    def attributes(self) -> dict[str, Any]:
        """Return its attributes; empty when it does not exist."""
        metadata = self.series.project.read_json(f"{self.path}/zarr.json")
        return {} if metadata is None else dict(metadata.get("attributes", {}))

    def complete(self) -> bool:
        """Tell whether every part of it is written."""
        return bool(self.attributes().get("complete"))

    def size(self) -> int:
        """Return its bytes."""
        return self.series.project.size(self.path)

    def group(self) -> zarr.Group:
        """Open its group, making it when it does not exist."""
        return zarr.open_group(self.series.project.store, path=self.path, mode="a", zarr_format=3)

    def array(self, name: str) -> zarr.Array[Any]:
        """Open its array `name` for reading and writing."""
        return self._open(f"{self.path}/{name}")

    def create_array(
        self,
        name: str,
        shape: tuple[int, ...],
        chunks: tuple[int, ...],
        dtype: str = "float32",
        shards: tuple[int, ...] | None = None,
        axes: tuple[str, ...] | None = None,
        *,
        by_units: bool = True,
    ) -> zarr.Array[Any]:
        """Make array `name`, or open it when an interrupted run has left it.

        An array that units of work write (`by_units`) and that must be made anew takes their marks
        with it: what they have written is gone. Make all of those before the first unit runs.
        Uncompressed: on float32 noise zstd gains 8 % at half the speed.
        """
        group = self.group()
        if name in group:
            found = self.array(name)
            if (found.shape, found.chunks, found.dtype) == (shape, chunks, np.dtype(dtype)):
                return found
        if by_units and self.units():
            self.series.project.delete(f"{self.path}/unit")
        return group.create_array(
            name,
            shape=shape,
            chunks=chunks,
            shards=shards,
            dtype=dtype,
            compressors=None,
            dimension_names=axes,
            overwrite=True,
        )

    def images(self) -> zarr.Array[Any]:
        """Open its images (view, y, x): its own, or those that it stands for."""
        path = self.attributes().get("images_in", self.path)
        return self._open(f"{path}/images")

    def _open(self, path: str) -> zarr.Array[Any]:
        # Only Zarr 3: an array of Zarr 2 may have objects in it, and whoever made it code run.
        return zarr.open_array(self.series.project.store, path=path, mode="r+", zarr_format=3)

    # -- what is done of it, while it is being made -------------------------------------

    def units(self) -> list[str]:
        """Return the names of the units that are done while the result is being made."""
        names = self.series.project.names(f"{self.path}/unit")
        return [n.removesuffix(".json") for n in names if n.endswith(".json") and n != "zarr.json"]

    def unit(self, name: str) -> Any | None:
        """Return what unit `name` of the work reported, or None when it is not done."""
        return self.series.project.read_json(f"{self.path}/unit/{name}.json")

    def mark_unit(self, name: str, report: Any) -> Any:
        """Note that unit `name` is written; return its small `report` as it will be read again."""
        self.series.project.write_json(f"{self.path}/unit/{name}.json", _plain(report))
        return _plain(report)

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Write the attributes, which makes the result complete, and clear the units."""
        self.group().update_attributes({**_plain(attributes), "complete": True})
        self.series.project.delete(f"{self.path}/unit")


def _plain(value: Any) -> Any:
    """Return `value` as JSON has it: NumPy's numbers as Python's own, tuples as lists."""
    return json.loads(json.dumps(value, default=lambda number: number.item()))
