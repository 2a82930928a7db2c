"""How each field of an imported record is found: the user beats the mdoc beats the header.

Every field becomes a line of the import report: value, source, and what another source says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isclose

from tasks.errors import UnusableData
from tasks.formats.mdoc import Mdoc, MdocSection
from tasks.parameters import ImportParameters
from tasks.record import ImportedField

# Defaults that users of cryo-EM expect; voltage, pixel and dose are never guessed.
CS_MM = 2.7
AMPLITUDE_CONTRAST = 0.07

# Share of the electrons that even a thick specimen leaves in the brightest view.
LEAST_TRANSMISSION = 0.2

Candidate = tuple[str, float | None]  # source, value


class Report:
    """Collects the lines of the import report."""

    def __init__(self) -> None:
        self.fields: list[ImportedField] = []

    def add(self, field: str, value: object, source: str, conflict: str | None = None) -> None:
        """Add a line."""
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        self.fields.append(ImportedField(field=field, value=text, source=source, conflict=conflict))

    def choose(
        self, field: str, candidates: Iterable[Candidate], unit: str = "", tolerance: float = 0.01
    ) -> float | None:
        """Take the first candidate that has a value, and note those that differ from it.

        Parameters
        ----------
        field : str
        candidates : iterable of (source, value or None)
            Best source first.
        unit : str
        tolerance : float
            Relative difference that is no conflict.
        """
        known = [(source, value) for source, value in candidates if value is not None]
        if not known:
            return None
        source, value = known[0]
        others = [
            f"{other} says {said:.6g}{unit}"
            for other, said in known[1:]
            if not isclose(said, value, rel_tol=tolerance, abs_tol=1e-9)
        ]
        self.add(field, f"{value:.6g}{unit}", source, "; ".join(others) or None)
        return value


def voltage(user: ImportParameters, mdoc: Mdoc, report: Report) -> float:
    """Return the voltage [kV]; it is never guessed."""
    value = report.choose("voltage", [("user", user.voltage), ("mdoc", mdoc.voltage)], " kV")
    if value is None:
        raise UnusableData(f"{mdoc.path}: has no Voltage: give --voltage, e.g. --voltage 300")
    return value


def pixel_size(
    user: ImportParameters,
    mdoc: Mdoc,
    shape: tuple[int, int],
    header: float | None,
    report: Report,
) -> float:
    """Return the pixel of the raw movies [Å].

    SerialEM's PixelSpacing is that of its own, binned stack: it is scaled by the ratio of the
    two images' widths where ImageSize is known, and taken as it is in frame-set mdocs.
    """
    spacing = mdoc.pixel_spacing or _first(view.pixel_spacing for view in mdoc.views)
    derived, source = spacing, "mdoc PixelSpacing"
    stack = mdoc.header.get("ImageSize", "").split()
    if spacing is not None and len(stack) == 2 and all(side.isdigit() for side in stack):
        ratios = (shape[1] / max(1, int(stack[0])), shape[0] / max(1, int(stack[1])))
        binning = round(2 * ratios[0]) / 2
        if binning and all(isclose(ratio, binning, rel_tol=0.05) for ratio in ratios):
            derived, source = spacing / binning, "mdoc PixelSpacing / binning"
    candidates: list[Candidate] = [("user", user.pixel_size), (source, derived)]
    if user.pixel_size is not None and spacing != derived:
        candidates.append(("mdoc PixelSpacing (binned stack)", spacing))
    candidates.append(("movie header", header if header and abs(header - 1) > 1e-3 else None))
    value = report.choose("pixel size", candidates, " Å")
    if value is None:
        raise UnusableData(f"{mdoc.path}: has no PixelSpacing: give --pixel-size in Å")
    return value


def tilt_axis(user: ImportParameters, mdoc: Mdoc, report: Report) -> float:
    """Return the tilt axis [°], counter-clockwise from image +y. 0.0 is a value."""
    rotation = _first(view.rotation_angle for view in mdoc.views)
    value = report.choose(
        "tilt axis",
        [
            ("user", user.tilt_axis),
            ("mdoc title", mdoc.tilt_axis),
            ("mdoc RotationAngle − 90°", None if rotation is None else rotation - 90),
        ],
        "°",
    )
    if value is None:
        raise UnusableData(f"{mdoc.path}: has no tilt axis: give --tilt-axis in degrees")
    return value


def dose_of_view(
    user: ImportParameters,
    mdoc: Mdoc,
    views: Sequence[MdocSection],
    pixel: float,
    report: Report,
) -> list[float]:
    """Return the dose of each of `views` [e/Å²], by the first route that gives all of them.

    The routes are those of algorithms.md A.1; a rate or count per pixel refers to the pixel of
    the movie.
    """
    area = pixel**2
    routes: list[tuple[str, list[float | None]]] = [
        ("user", [user.dose] * len(views)),
        ("mdoc ExposureDose", [view.exposure_dose or None for view in views]),
        (
            "mdoc FrameDosesAndNumber",
            [sum(dose * n for dose, n in view.frame_doses) or None for view in views],
        ),
        (
            "mdoc DoseRate × ExposureTime",
            [
                view.dose_rate * view.exposure_time / area
                if view.dose_rate and view.exposure_time
                else None
                for view in views
            ],
        ),
    ]
    counted = [_counted(view, area) for view in views]
    routes.append(("mdoc MinMaxMean / CountsPerElectron", counted))
    complete = [
        (source, [float(dose) for dose in doses if dose is not None])
        for source, doses in routes
        if all(dose is not None for dose in doses)
    ]
    if not complete:
        raise UnusableData(
            f"{mdoc.path}: says nothing of the dose: give --dose in e/Å² per view, e.g. --dose 3"
        )
    chosen = complete[0][1]
    if len(complete) > 1 and complete[-1][0] == routes[-1][0]:
        brightest = max(complete[-1][1])
        if LEAST_TRANSMISSION <= brightest / max(*chosen, 1e-9) <= 1.1:
            complete.pop()  # what the specimen lets through is no contradiction
    report.choose(
        "dose per view",
        [(source, sum(doses) / len(doses)) for source, doses in complete],
        " e/Å²",
        tolerance=0.1,
    )
    return chosen


def _counted(view: MdocSection, area: float) -> float | None:
    if not view.min_max_mean or not view.counts_per_electron:
        return None
    scale = 2 if view.divided_by_2 else 1
    return max(0.0, view.min_max_mean[2] * scale / view.counts_per_electron / area) or None


def _first(values: Iterable[float | None]) -> float | None:
    return next((value for value in values if value is not None), None)
