"""Where a tomogram's box is laid: as the user has it, around the specimen, or by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from typing import Any

import numpy as np

from kernels.geometry import View, reference_depth
from tasks.box import UNMEASURED, Box, box_of, turned_specimen
from tasks.parameters.tomogram import TomogramParameters
from tasks.position import Position, found
from tasks.work import Work

# Rows of a specimen that is turned about x are interpolated once more: a box that is a little
# higher is better than that.
LEAST_X_TILT = 0.5  # degrees


@dataclass(frozen=True)
class Placed:
    """How a box is laid, and the views turned.

    Attributes
    ----------
    parameters : TomogramParameters
        With numbers in place of every "auto" of the box's place.
    views : tuple of View
        Turned as they say.
    box : Box
    sources : mapping of str to str
        Parameter → given, measured or default.
    depths : tuple of float
        z′ to which the defocus of each view belongs: where the ray through the raw image's centre
        meets the specimen's middle [Å].
    middle : float
        Z of the specimen's middle in the frame of the box, at X = Y = 0 [Å].
    why : str
        Why what was measured is not used; empty where it is, or nobody asked.
    """

    parameters: TomogramParameters
    views: tuple[View, ...]
    box: Box
    sources: Mapping[str, str]
    depths: tuple[float, ...]
    middle: float
    why: str

    @property
    def about(self) -> dict[str, Any]:
        """What was used, as the result's attribute ``place`` has it."""
        place = {
            "height_A": self.box.shape[0] * self.box.voxel,
            "z_shift_A": self.box.centre[2],
            "angle_offset": self.parameters.angle_offset,
            "x_tilt": self.parameters.x_tilt,
            "middle_A": self.middle,
        }
        return {**place, "from": dict(self.sources), **({"why": self.why} if self.why else {})}

    @property
    def row(self) -> dict[str, Any]:
        """What was used, as columns of the step's table."""
        return {
            "height [Å]": self.about["height_A"],
            "z-shift [Å]": self.about["z_shift_A"],
            "angle offset [°]": self.about["angle_offset"],
            "x-tilt [°]": self.about["x_tilt"],
            "place": ", ".join(dict.fromkeys(self.sources.values())),
        }

    @property
    def said(self) -> str:
        """What was used, for the message."""
        about = self.about
        where = f"at {about['z_shift_A']:.0f} Å, turned by {about['angle_offset']:.1f}°"
        if about["x_tilt"]:
            where += f" and {about['x_tilt']:.1f}° about x"
        if "measured" in self.sources.values():
            return f", around the specimen ({where})".replace("-", "−")
        if "default" not in self.sources.values():
            return ""
        by_default = [name for name, source in self.sources.items() if source == "default"]
        return f"; {', '.join(by_default)} by default: {self.why}"


def placed(work: Work, parameters: TomogramParameters, images: tuple[int, int]) -> Placed:
    """Lay the box of a tomogram.

    What the user gives counts. The rest is as the step `thickness` has measured it, where that is
    sure of it: the box is level, and as high as the specimen and a margin; where the user has it
    turned otherwise, as high as holds the inclined specimen over all of the box.

    Parameters
    ----------
    work : Work
    parameters : TomogramParameters
    images : (ny, nx)
        Shape of the images.
    """
    record, pixel = work.record, work.image_pixel_size
    views = [record.geometry(i) for i in record.included]
    asked = {name: getattr(parameters, name) for name in UNMEASURED}
    given = {name: value for name, value in asked.items() if value != "auto"}
    position, why = _position(work, parameters)
    by_default = parameters.model_copy(update={**UNMEASURED, **given})
    draft = box_of(record.name, by_default, views, images, pixel)
    settled, middle = by_default, draft.centre[2]
    if position is not None:
        measured, middle = _around(position, views, draft, given, parameters.margin)
        settled = parameters.model_copy(update={**measured, **given})
    turned = tuple(turned_specimen(views, settled))
    if position is not None:
        level = [position.levelled(view) for view in views]
        depths = [reference_depth(view, position.height) for view in level]
    else:  # the box is taken to be laid around the specimen
        depths = [reference_depth(view, middle) for view in turned]
    other = "default" if position is None else "measured"
    return Placed(
        settled,
        turned,
        box_of(record.name, settled, turned, images, pixel),
        {name: "given" if name in given else other for name in UNMEASURED},
        tuple(depths),
        middle,
        why,
    )


def _position(work: Work, parameters: TomogramParameters) -> tuple[Position | None, str]:
    """Return where the specimen lies, None where that is not asked or not sure, and why."""
    if not parameters.by_position:
        return None, ""
    result, step = work.input("thickness"), parameters.alignment_step
    about, position = result.attributes(), found(result)
    if about["inputs"].get(step) != work.keys[step]:
        return None, "the specimen's position was measured in another alignment"
    if position.verdict != "good":
        reason = about["verdict"]["reasons"][0]
        return None, f"the specimen's measured position is {position.verdict} ({reason})"
    return position, ""


def _around(
    position: Position,
    views: Sequence[View],
    draft: Box,
    given: Mapping[str, Any],
    margin: float,
) -> tuple[dict[str, float], float]:
    """Return the place of a box around the specimen, and Z of the specimen's middle in its frame.

    `draft` has its width, its length and its place along them.
    """
    x_tilt = float(np.median([view.x_tilt for view in views]))
    turn, more = position.levelling(x_tilt)
    offset = float(given.get("angle_offset", turn))
    about_x = float(given.get("x_tilt", more if abs(more) >= LEAST_X_TILT else 0.0))
    middle, a, b = position.middle(x_tilt, offset, about_x)
    _, ny, nx = draft.shape
    reach = draft.voxel * (abs(a) * nx + abs(b) * ny)
    return {
        "thickness": position.thickness * hypot(1.0, a, b) + reach + 2 * margin,
        "z_shift": middle + a * draft.centre[0] + b * draft.centre[1],
        "angle_offset": offset,
        "x_tilt": about_x,
    }, middle
