"""The CTF of every view, as corrections need it: where none is known, from the neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kernels.ctf import Ctf
from tasks.errors import UnusableData
from tasks.record import TiltSeries


@dataclass(frozen=True)
class ViewCtf:
    """The CTF of one view.

    Attributes
    ----------
    ctf : Ctf
        At the centre of the raw image, in its frame.
    views : tuple of int
        From which it is: the view itself, or one or two neighbours in tilt.
    """

    ctf: Ctf
    views: tuple[int, ...]


def hand_in_geometry(record: TiltSeries) -> Literal[1, -1] | None:
    """Return the measured sign of the defocus gradient by the tilt axis of the record's geometry.

    The ctf step has it by the imported axis; one that an alignment has turned by half a turn
    reverses it.
    """
    told = record.handedness
    if told is None or told.hand is None or not record.included:
        return record.hand
    turns = [record.geometry(i).axis - record.acquisition.tilt_axis for i in record.included]
    if np.cos(np.radians(turns)).mean() >= 0:
        return told.hand
    return 1 if told.hand == -1 else -1


def ctf_of_views(record: TiltSeries) -> list[ViewCtf]:
    """Return the CTF of all views, those that are left out as well.

    A view without an estimate, or of which nothing is known but noise's best fit, takes defocus
    and astigmatism linearly between its neighbours in tilt, and the phase shift between its
    neighbours in order of acquisition, in which a phase plate charges. Beyond the last known view
    everything stays as there.

    Raises
    ------
    UnusableData
        If no view has an estimate.
    """
    estimates = {i: view.ctf for i, view in enumerate(record.views) if view.ctf is not None}
    known = {
        i: found.model(record.acquisition)
        for i, found in estimates.items()
        if found.reliable or found.uncertainty is not None
    } or {i: found.model(record.acquisition) for i, found in estimates.items()}
    if not known:
        raise UnusableData(
            f"{record.name}: no view has a CTF: `tiltflow ctf` estimates it, --ctf-from imports it"
        )
    places = sorted(known)
    tilts = np.array([record.views[i].tilt_angle for i in places])
    turns = [math.radians(2 * known[i].astigmatism_angle) for i in places]
    columns = {
        "defocus": [known[i].defocus for i in places],
        "p": [known[i].astigmatism * math.cos(t) for i, t in zip(places, turns, strict=True)],
        "q": [known[i].astigmatism * math.sin(t) for i, t in zip(places, turns, strict=True)],
    }
    in_order = sorted(places, key=lambda i: record.views[i].order)
    orders = [record.views[i].order for i in in_order]
    shifts = [known[i].phase_shift for i in in_order]
    found: list[ViewCtf] = []
    for i, view in enumerate(record.views):
        if i in known:
            found.append(ViewCtf(known[i], (i,)))
            continue
        at = {name: np.interp(view.tilt_angle, tilts, column) for name, column in columns.items()}
        half = 0.5 * math.hypot(at["p"], at["q"])
        ctf = Ctf(
            defocus_u=float(at["defocus"] + half),
            defocus_v=float(at["defocus"] - half),
            astigmatism_angle=math.degrees(0.5 * math.atan2(at["q"], at["p"])),
            voltage=record.acquisition.voltage,
            cs=record.acquisition.cs,
            amplitude_contrast=record.acquisition.amplitude_contrast,
            phase_shift=float(np.interp(view.order, orders, shifts)),
        )
        before, after = [j for j in places if j < i][-1:], [j for j in places if j > i][:1]
        found.append(ViewCtf(ctf, (*before, *after)))
    return found
