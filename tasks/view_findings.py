"""What the figures of all views say about each: left out, doubtful, or in good order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels import view_cues
from kernels.align_coarse import PairShift
from kernels.views import dark_views
from tasks.parameters import ExcludeParameters

Floats = NDArray[np.float64]

DOUBT = 0.5  # of a threshold: from there on a view is doubtful
WHOLE = 0.95  # of the field: a view that is as dim everywhere is not blocked
DIM = 0.5  # of the brightness of other tilts: a view below is doubtful
SIGNIFICANT = 6.0  # σ by which detail must be missing
# A view that shows something else: its correlation peaks, over those of its neighbours with each
# other, and how high these are [σ]; without doubt, and with some. Good views have 0.53 or more.
LOST = (0.4, 12.0)
LIKELY_LOST = (0.47, 9.0)
LEAST_MOTION = 30.0  # Å: less is never unusual
MOST = 1 / 3  # of the views that may be called shifted or blurred: beyond, the rule is in doubt


@dataclass(frozen=True)
class Measured:
    """What the workers have measured of all views; empty `blocks`: nothing.

    Attributes
    ----------
    blocks : (n, rows, columns)
        Means in parts of each image.
    ratios, errors : (n, sectors)
        Of `kernels.view_quality.Detail`, and its `noise` (n,).
    pairs, shifts
        Neighbours, and how the reduced images are displaced.
    axis : float
        Tilt axis [°].
    shape : (ny, nx)
        Of the reduced images.
    """

    blocks: Floats
    ratios: Floats
    errors: Floats
    noise: Floats
    pairs: Sequence[tuple[int, int]]
    shifts: Sequence[PairShift]
    axis: float
    shape: tuple[int, int]


@dataclass(frozen=True)
class Finding:
    """What is wrong with a view: left out where that is `certain`, else doubtful."""

    index: int
    reason: str
    certain: bool


class Judge:
    """Judges the views of a series; `findings` and the `columns` of figures tell the outcome.

    A view that is left out has no say about the others.

    Parameters
    ----------
    tilts : (n,)
        Degrees.
    means : (n,)
        Of the images.
    used : (n,)
        False for views left out already.
    motions : (n,)
        Total motion during each movie [Å], None where it is not known.
    measured : Measured or None
        None: brightness and motion alone are judged.
    parameters : ExcludeParameters
    """

    def __init__(
        self,
        tilts: Sequence[float],
        means: Sequence[float],
        used: Sequence[bool],
        motions: Sequence[float | None],
        measured: Measured | None,
        parameters: ExcludeParameters,
    ) -> None:
        self.tilts, self.means, self.used = tilts, means, list(used)
        self.parameters = parameters
        self.findings: list[Finding] = []
        self.columns: dict[str, list[float | None]] = {}
        self._dark()
        if measured is not None:
            self._blocked(measured)
            self._shifted_or_blurred(measured)
        self._moved(motions)

    def _dark(self) -> None:
        threshold = self.parameters.dark_threshold
        if threshold == 0:
            return
        judged = self._candidates()
        means, tilts = ([values[i] for i in judged] for values in (self.means, self.tilts))
        for dark in dark_views(means, tilts, threshold):
            mean = means[dark.index]
            reason = f"dark: mean {mean:.3g} where about {dark.expected:.3g} is expected"
            self._find(judged[dark.index], reason, certain=True)

    def _blocked(self, measured: Measured) -> None:
        bright = view_cues.brightness(measured.blocks, self.tilts, self.used)
        self.bright = bright
        shares = view_cues.blocked_shares(measured.blocks, self.tilts, self.used)
        self.columns |= {"brightness": _listed(bright), "blocked": _listed(shares)}
        limit = self.parameters.blocked_threshold
        for i in self._candidates():
            if limit > 0 and DOUBT * limit < shares[i] < WHOLE:
                reason = f"blocked: {shares[i]:.0%} of the field, up to {limit:.0%} is accepted"
                self._find(i, reason, certain=bool(shares[i] > limit))
            elif self.parameters.dark_threshold > 0 and bright[i] < DIM:
                reason = f"dim: {bright[i]:.0%} of the brightness that other tilts let expect"
                self._find(i, reason, certain=False)

    def _shifted_or_blurred(self, measured: Measured) -> None:
        """Leave out the worst view, and ask the others again, until all that is certain is out."""
        figures: dict[str, Floats] = {}
        most = int(MOST * sum(self.used))
        while True:
            now, doubts = self._compared(measured)
            for name, values in now.items():
                kept = figures.setdefault(name, values)
                figures[name] = np.where(self.used, values, kept)
            certain = [(worth, finding) for worth, finding in doubts if finding.certain]
            if not certain or most == 0:
                break
            worst = max(certain, key=lambda one: one[0])[1]
            most -= 1
            self._find(worst.index, worst.reason, certain=True)
        for _, finding in doubts:
            self._find(finding.index, finding.reason, certain=False)
        self.columns |= {name: _listed(values) for name, values in figures.items()}

    def _compared(
        self, measured: Measured
    ) -> tuple[dict[str, Floats], list[tuple[float, Finding]]]:
        """Return all figures, and findings with a weight by which they are ordered."""
        chosen = [
            (pair, shift)
            for pair, shift in zip(measured.pairs, measured.shifts, strict=True)
            if self.used[pair[0]] and self.used[pair[1]]
        ]
        jump, match, across = view_cues.jumps(
            [pair for pair, _ in chosen],
            [shift for _, shift in chosen],
            self.tilts,
            self.used,
            measured.axis,
            measured.shape,
        )
        means = measured.blocks.mean(axis=(1, 2))
        noise = np.divide(measured.noise, means, out=np.zeros_like(means), where=means > 0)
        missing, sigma = view_cues.missing_detail(
            measured.ratios, measured.errors, noise, self.bright, self.tilts, self.used
        )
        found = []
        for i in self._candidates():
            found += self._of_shift(i, float(jump[i]), float(match[i]), float(across[i]))
            found += self._of_blur(i, float(missing[i]), float(sigma[i]))
        figures = {"jump": jump, "match [σ]": match, "neighbours' match [σ]": across}
        return figures | {"missing detail": missing, "missing [σ]": sigma}, found

    def _of_shift(
        self, i: int, jump: float, match: float, across: float
    ) -> list[tuple[float, Finding]]:
        limit = self.parameters.shift_threshold
        if limit == 0:
            return []
        if jump > DOUBT * limit:
            reason = (
                f"shifted: by {jump:.0%} of the field against its neighbours, up to {limit:.0%} "
                "is accepted"
            )
            return [(jump / limit, Finding(i, reason, jump > limit))]
        if match < LIKELY_LOST[0] * across and across > LIKELY_LOST[1]:
            reason = (
                f"shifted: matches its neighbours at {match:.1f} σ, which match each other at "
                f"{across:.1f} σ"
            )
            certain = match < LOST[0] * across and across > LOST[1]
            return [(LOST[0] * across / match, Finding(i, reason, certain))]
        return []

    def _of_blur(self, i: int, missing: float, sigma: float) -> list[tuple[float, Finding]]:
        limit = self.parameters.blur_threshold
        if limit == 0 or not (missing > DOUBT * limit and sigma > SIGNIFICANT):
            return []
        reason = (
            f"blurred: {min(missing, 1):.0%} of the detail of views of like tilt is missing, up to "
            f"{limit:.0%} is accepted"
        )
        return [(missing / limit, Finding(i, reason, missing > limit))]

    def _moved(self, motions: Sequence[float | None]) -> None:
        times = view_cues.unusual_motion(motions, self.used)
        limit = self.parameters.motion_threshold
        self.columns["motion [× usual]"] = _listed(times)
        for i in self._candidates():
            total = motions[i]
            if limit > 0 and total is not None and total > LEAST_MOTION and times[i] > limit:
                reason = f"moved: by {total:.0f} Å, {times[i]:.0f} times as much as usual"
                self._find(i, reason, certain=False)

    def _candidates(self) -> list[int]:
        return [i for i, used in enumerate(self.used) if used]

    def _find(self, index: int, reason: str, *, certain: bool) -> None:
        self.findings.append(Finding(index, reason, certain))
        if certain:
            self.used[index] = False


def _listed(values: Floats) -> list[float | None]:
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in values]
