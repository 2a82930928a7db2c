"""Where the specimen lies, as a result of the step `thickness` has it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import atan, cos, degrees, isfinite, nan, radians, tan

from kernels.geometry import View
from kernels.thickness import QUANTITIES
from tasks.store import Result


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

    def levelled(self, view: View) -> View:
        """Return a view of the specimen turned level: its middle is a plane of equal Z.

        Exact for views without x-axis tilt. What is not known turns nothing.
        """
        pitch, rise = (a if isfinite(a) else 0.0 for a in (self.pitch, self.x_tilt))
        turn = degrees(atan(tan(radians(rise)) * cos(radians(pitch))))
        return replace(view, tilt=view.tilt + pitch, x_tilt=view.x_tilt + turn)

    @property
    def height(self) -> float:
        """Z of the middle in the frame of the `levelled` views [Å]."""
        pitch, rise = (tan(radians(a)) if isfinite(a) else 0.0 for a in (self.pitch, self.x_tilt))
        return self.z_centre / (1 + pitch**2 + rise**2) ** 0.5


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
