"""How each field of an imported record is found: the user beats the mdoc beats the header.

Every field becomes a line of the import report: value, source, and what another source says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isclose, isfinite, remainder

from tasks.description import Description
from tasks.errors import UnusableData
from tasks.formats.mdoc import MdocSection
from tasks.parameters import ImportParameters
from tasks.record import ImportedField

# Defaults that users of cryo-EM expect; voltage, pixel and dose are never guessed.
CS_MM = 2.7
AMPLITUDE_CONTRAST = 0.07

# Share of the electrons that even a thick specimen leaves in the brightest view.
LEAST_TRANSMISSION = 0.2
LARGEST_PIXEL = 1e4  # Å
HIGHEST_VOLTAGE = 3000.0  # kV; what is above stands in volts
MOST_DOSE = 400.0  # e/Å² in a series, beyond which somebody has taken one dose for another

DOSE_TOLERANCE = 0.1  # by which two routes to a dose may differ

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


def voltage(user: ImportParameters, told: Description, report: Report) -> float:
    """Return the voltage [kV]; it is never guessed."""
    value = report.choose("voltage", [("user", user.voltage), ("mdoc", told.mdoc.voltage)], " kV")
    if value is None:
        raise UnusableData(f"{told.path}: has no Voltage: give --voltage, e.g. --voltage 300")
    if not 0 < value <= HIGHEST_VOLTAGE:
        raise UnusableData(f"{told.path}: Voltage is {value:g} kV: give --voltage in kV, e.g. 300")
    return value


def ctf_corrected(user: ImportParameters, told: Description, report: Report) -> bool:
    """Return whether the images are CTF-corrected already: the user's word, or a stack's."""
    said = told.ctf_corrected
    if user.ctf_corrected is None:
        if said is not None:
            report.add("CTF", "corrected before the import", said)
        return said is not None
    if user.ctf_corrected:
        report.add("CTF", "corrected before the import", "user")
    elif said is not None:
        report.add("CTF", "not corrected", "user", f"{said} says it is")
    return user.ctf_corrected


def pixel_size(
    user: ImportParameters,
    told: Description,
    shape: tuple[int, int],
    header: float | None,
    sampling: int,
    report: Report,
) -> float:
    """Return the pixel of the frames [Å].

    SerialEM's PixelSpacing is that of its own, binned stack: it is scaled by the ratio of the
    two images' sizes where ImageSize is known, and taken as it is in frame-set mdocs; elsewhere
    a binning that the mdoc states casts doubt on it. What the user says of EER is the detector's
    pixel.
    """
    mdoc = told.mdoc
    spacing = mdoc.pixel_spacing or _first(view.pixel_spacing for view in told.views)
    derived, source, unbinned = spacing, "mdoc PixelSpacing", None
    stack = mdoc.header.get("ImageSize", "").split()
    if spacing is not None and len(stack) == 2 and all(side.isdigit() for side in stack):
        ratios = (shape[1] / max(1, int(stack[0])), shape[0] / max(1, int(stack[1])))
        binning = _binning(ratios[0])
        if all(isclose(ratio, binning, rel_tol=0.05) for ratio in ratios):
            derived, source = spacing / binning, "mdoc PixelSpacing / binning"
    elif spacing is not None:
        derived = spacing / sampling
    if spacing is not None and source == "mdoc PixelSpacing" and not told.is_stack:
        unbinned = spacing / sampling / _stated_binning(told)
    given = None if user.pixel_size is None else user.pixel_size / sampling
    candidates: list[Candidate] = [("user", given), (source, derived)]
    candidates.append(("mdoc PixelSpacing / Binning", unbinned))
    if given is not None and spacing and derived and not isclose(spacing, derived * sampling):
        candidates.append(("mdoc PixelSpacing (binned stack)", spacing))
    candidates.append(("movie header", header if header and abs(header - 1) > 1e-3 else None))
    value = report.choose("pixel size", candidates, " Å")
    if value is None:
        raise UnusableData(f"{told.path}: has no PixelSpacing: give --pixel-size in Å")
    if not 0 < value < LARGEST_PIXEL:
        raise UnusableData(f"{told.path}: the pixel size is {value:g} Å: give --pixel-size in Å")
    return value


def _stated_binning(told: Description) -> float:
    """Return the binning of SerialEM's stack, 1 where its images are the movies' own."""
    if any(view.kind == "FrameSet" or view.frame_range is not None for view in told.views):
        return 1.0
    return max(1.0, _first(view.binning for view in told.views) or told.mdoc.binning or 1.0)


def _binning(ratio: float) -> float:
    """Return the binning nearest to a ratio of sizes: halves upward from 1, else 1/2 to 1/8."""
    return round(2 * ratio) / 2 if ratio >= 1 else 1 / min(8, round(1 / max(ratio, 0.01)))


def tilt_axis(user: ImportParameters, told: Description, report: Report) -> float:
    """Return the tilt axis [°], counter-clockwise from image +y. 0.0 is a value."""
    rotation = _first(view.rotation_angle for view in told.views)
    tomography5 = told.mdoc.is_tomography5
    candidates: list[Candidate] = [("user", user.tilt_axis)]
    if told.axis is not None and told.axis[1] == "aligned stack":
        candidates.append((told.axis[1], told.axis[0]))  # whatever it was before
    else:
        candidates.append(("mdoc title", told.mdoc.tilt_axis))
        if rotation is not None and not tomography5:
            candidates.append(("mdoc RotationAngle − 90°", rotation - 90))
        if told.axis is not None:
            candidates.append((told.axis[1], told.axis[0]))
    known = [(source, axis) for source, axis in candidates if axis is not None]
    if not known:
        raise UnusableData(f"{told.path}: has no tilt axis: give --tilt-axis in degrees")
    source, value = known[0]
    others = [f"{other} says {axis:.6g}°" for other, axis in known[1:] if _apart(axis, value) > 1]
    # Tomography 5 has the axis itself there, either way round.
    if tomography5 and rotation is not None and _apart(2 * rotation, 2 * value) > 2:
        others.append(f"mdoc RotationAngle says {rotation:.6g}° (or the same turned by 180°)")
    report.add("tilt axis", f"{value:.6g}°", source, "; ".join(others) or None)
    return value


def _apart(one: float, other: float) -> float:
    """Return how far two directions are apart [°]."""
    return abs(remainder(one - other, 360))


def dose_of_view(
    user: ImportParameters, told: Description, pixel: float, report: Report
) -> list[float]:
    """Return the dose of each view [e/Å²], by the first route that gives all of them.

    The routes are those of algorithms.md A.1; a rate refers to the camera's pixel, which is not
    that of super-resolution movies, a count to that of SerialEM's stack.
    """
    views = told.views
    spacing = told.mdoc.pixel_spacing
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
                view.dose_rate * view.exposure_time / (view.camera_pixel or pixel) ** 2
                if view.dose_rate and view.exposure_time
                else None
                for view in views
            ],
        ),
    ]
    counted = [_counted(view, (view.pixel_spacing or spacing or pixel) ** 2) for view in views]
    routes.append(("mdoc MinMaxMean / CountsPerElectron", counted))
    complete = [
        (source, [float(dose) for dose in doses if dose is not None])
        for source, doses in routes
        if all(dose is not None for dose in doses)
    ]
    if not complete:
        raise UnusableData(
            f"{told.path}: {_what_is_lacking(told, routes)}: give --dose in e/Å² per view, e.g. "
            "--dose 3"
        )
    taken, chosen = complete[0]
    wrong = [dose for dose in chosen if not (dose >= 0 and isfinite(dose))]
    if wrong:
        raise UnusableData(f"{told.path}: the dose by {taken} is {wrong[0]:g} e/Å²: give --dose")
    if len(complete) > 1 and complete[-1][0] == routes[-1][0]:
        brightest = max(complete[-1][1])
        if LEAST_TRANSMISSION <= brightest / max(*chosen, 1e-9) <= 1.1:
            complete.pop()  # what the specimen lets through is no contradiction
    others = [_difference(source, doses, chosen) for source, doses in complete[1:]]
    report.add(
        "dose per view",
        f"{sum(chosen) / len(chosen):.6g} e/Å²",
        taken,
        "; ".join(text for text in others if text) or None,
    )
    return chosen


def _what_is_lacking(
    told: Description, routes: Sequence[tuple[str, Sequence[float | None]]]
) -> str:
    for source, doses in routes:
        lacking = [view for view, dose in zip(told.views, doses, strict=True) if dose is None]
        if len(lacking) < len(doses):
            first = lacking[0]
            return (
                f"no dose by {source} in {len(lacking)} of {len(doses)} views, the first is "
                f"[{first.kind} = {first.number}]"
            )
    return "says nothing of the dose"


def _difference(source: str, said: Sequence[float], chosen: Sequence[float]) -> str | None:
    """Return how another route contradicts the chosen one: in the mean, or in a view at least."""
    means = sum(said) / len(said), sum(chosen) / len(chosen)
    if not isclose(*means, rel_tol=DOSE_TOLERANCE):
        return f"{source} says {means[0]:.6g} e/Å²"
    pairs = list(zip(said, chosen, strict=True))
    other, own = max(pairs, key=lambda pair: abs(pair[0] - pair[1]))
    if isclose(other, own, rel_tol=DOSE_TOLERANCE):
        return None
    return f"{source} says {other:.6g} e/Å² of a view of {own:.6g}"


def prior_doses(
    user: ImportParameters, told: Description, doses: Sequence[float], report: Report
) -> list[float]:
    """Return the dose before each view [e/Å²]: that of all views taken before it.

    Views of which nothing is left but a gap in the numbers count with the mean dose.
    """
    mean = sum(doses) / len(doses)
    gone = [order - 1 - i for i, order in enumerate(told.orders)]
    prior = [user.initial_dose + sum(doses[:i]) + mean * gone[i] for i in range(len(doses))]
    counted = [view.prior_dose for view in told.views]
    worst = None
    if all(dose is not None for dose in counted):
        pairs = zip(prior, counted, strict=True)
        worst = max(pairs, key=lambda pair: abs(pair[0] - (pair[1] or 0.0)))
    total = prior[-1] + doses[-1]
    report.add(
        "prior dose",
        f"{prior[0]:.6g} … {prior[-1]:.6g} e/Å²",
        f"doses in the order of {told.order_by}",
        _doubt_of_prior_dose(worst, max(0.1 * mean, 0.02 * total), total),
    )
    return prior


def _doubt_of_prior_dose(
    worst: tuple[float, float | None] | None, tolerance: float, total: float
) -> str | None:
    if worst is not None and abs(worst[0] - (worst[1] or 0.0)) > tolerance:
        return f"mdoc PriorRecordDose says {worst[1]:.6g} where {worst[0]:.6g} is counted"
    if total > MOST_DOSE:
        return f"{total:.0f} e/Å² in all is more than cryo specimens stand: is it that of one view?"
    return None


def _counted(view: MdocSection, area: float) -> float | None:
    """Return the dose by the counts of an image whose pixels have that area [Å²].

    Binning adds counts up, and where they were divided by 2, so is CountsPerElectron: with both,
    the counts of SerialEM's files agree with their DoseRate.
    """
    if not view.min_max_mean or not view.counts_per_electron:
        return None
    return max(0.0, view.min_max_mean[2] / view.counts_per_electron / area) or None


def _first(values: Iterable[float | None]) -> float | None:
    return next((value for value in values if value is not None), None)
