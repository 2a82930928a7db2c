"""Where the specimen lies, as a result of the step `thickness` has it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import atan2, cos, degrees, isfinite, nan, radians, sin, tan

import numpy as np
from numpy.typing import NDArray

from kernels.geometry import View, tilt_rotation, turned_frame
from kernels.thickness import QUANTITIES
from tasks.result import Result


@dataclass(frozen=True)
class Position:
    """Where the specimen lies in the frame of the alignment it was measured with.

    Its middle is the plane ``Z = z_centre − X · tan(pitch) + Y · tan(x_tilt)``; NaN: not known.

    Attributes
    ----------
    thickness : float
        Along the normal [Å].
    z_centre : float
        Z of the middle at X = Y = 0 [Å].
    pitch : float
        What adds to the views' tilt angles [degrees].
    x_tilt : float
        Rise of the middle along the tilt axis [degrees].
    verdict : str
        good, doubtful or failed.
    """

    thickness: float
    z_centre: float
    pitch: float
    x_tilt: float
    verdict: str

    @property
    def known(self) -> Position:
        """The same, with nothing in place of slopes that are not known."""
        pitch, rise = (a if isfinite(a) else 0.0 for a in (self.pitch, self.x_tilt))
        return replace(self, pitch=pitch, x_tilt=rise)

    @property
    def normal(self) -> NDArray[np.float64]:
        """Of the middle (X, Y, Z), with Z = 1."""
        known = self.known
        return np.array([tan(radians(known.pitch)), -tan(radians(known.x_tilt)), 1.0])

    def levelling(self, x_tilt: float = 0.0) -> tuple[float, float]:
        """Return what adds to tilt and x-axis tilt of views so that the middle is level [degrees].

        Parameters
        ----------
        x_tilt : float
            That the views have already, all of them [degrees].
        """
        x, y, z = tilt_rotation(View(0.0, 0.0, x_tilt=x_tilt)) @ self.normal
        turn = atan2(x, z)
        return degrees(turn), degrees(atan2(-y, x * sin(turn) + z * cos(turn))) - x_tilt

    def levelled(self, view: View) -> View:
        """Return a view of the specimen turned level: its middle is a plane of equal Z."""
        turn, more = self.levelling(view.x_tilt)
        return replace(view, tilt=view.tilt + turn, x_tilt=view.x_tilt + more)

    @property
    def height(self) -> float:
        """Z of the middle in the frame of the `levelled` views [Å]."""
        return self.z_centre / float(np.linalg.norm(self.normal))

    def plane_in(
        self, x_tilt: float, more_tilt: float, x_tilt_there: float = 0.0
    ) -> tuple[float, float]:
        """Return the slopes of the middle in the frame of other views [degrees].

        Parameters
        ----------
        x_tilt : float
            Of the views that it was measured with [degrees].
        more_tilt : float
            By which their tilt angles are larger than those of the others [degrees].
        x_tilt_there : float
            X-axis tilt of the others [degrees].

        Returns
        -------
        pitch, rise : float
            As of `kernels.geometry.defocus_gradient`.
        """
        x, y, z = turned_frame(x_tilt, -more_tilt, x_tilt_there - x_tilt) @ self.normal
        return degrees(atan2(x, z)), degrees(atan2(-y, z))

    def middle(self, x_tilt: float, angle_offset: float, more: float) -> tuple[float, float, float]:
        """Return the middle in the frame of views turned further, as Z = h + a·X + b·Y.

        Parameters
        ----------
        x_tilt : float
            Of the views that it was measured with [degrees].
        angle_offset, more : float
            What is added to their tilt angles and to their x-axis tilt [degrees].

        Returns
        -------
        h, a, b : float
            [Å] and slopes.
        """
        x, y, z = turned_frame(x_tilt, angle_offset, more) @ self.normal
        return self.z_centre / z, -x / z, -y / z


def found(result: Result) -> Position:
    """Return the position that a complete result of the step `thickness` holds.

    It refers to the alignment of the result's attribute ``alignment``. Of a verdict "failed"
    nothing should be used; "doubtful" values are the best there are.
    """
    about = result.attributes()
    slab = about["slab"]
    known = {name: nan if slab[name] is None else float(slab[name]) for name in QUANTITIES}
    return Position(
        thickness=known["thickness"],
        z_centre=known["centre"],
        pitch=known["pitch"],
        x_tilt=known["rise"],
        verdict=about["verdict"]["word"],
    )
