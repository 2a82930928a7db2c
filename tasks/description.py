"""A tilt series as its files describe it, in the form of an mdoc whatever they are."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from tasks.errors import UnusableData
from tasks.formats.mdoc import Mdoc, MdocSection
from tasks.formats.movie_names import split_name
from tasks.parameters import ImportParameters


@dataclass(frozen=True)
class Description:
    """A tilt series as described.

    Attributes
    ----------
    mdoc : Mdoc
        As read, or made of what else there is.
    views : tuple of MdocSection
        In order of acquisition.
    files : dict of int to Path
        Movie of each view that has one.
    missing : tuple of str
        Names of the movies that are not there.
    orders : tuple of int
        Place of each view in the acquisition, from 1.
    said_by : str
        Who tells the angles.
    order_by : str
        Who tells the order.
    doubts : tuple of (field, value, source, doubt)
        For the import report.
    axis : (float, source) or None
        Tilt axis [°] that the stack itself tells.
    ctf_corrected : str or None
        What in the stack says that its images are corrected for the CTF.
    """

    mdoc: Mdoc
    views: tuple[MdocSection, ...]
    files: dict[int, Path]
    orders: tuple[int, ...]
    said_by: str = "mdoc"
    order_by: str = "mdoc"
    missing: tuple[str, ...] = ()
    doubts: tuple[tuple[str, str, str, str | None], ...] = field(default=())
    axis: tuple[float, str] | None = None
    is_stack: bool = False
    ctf_corrected: str | None = None

    @property
    def path(self) -> Path:
        """What messages name."""
        return self.mdoc.path


def with_angle(view: MdocSection) -> MdocSection:
    """Return a section with a tilt angle, if need be that in its movie's name."""
    if view.tilt_angle is not None:
        return view
    named = split_name(view.movie_name or "")
    if named is None or named.angle is None:
        raise UnusableData(
            f"{view.path}: [{view.kind} = {view.number}] has no TiltAngle: add it to the mdoc"
        )
    return replace(view, fields={**view.fields, "TiltAngle": str(named.angle)})


def order_is_default(user: ImportParameters) -> bool:
    """Tell whether the user has left the order of acquisition open."""
    return "order" not in user.model_fields_set
