"""The rings of one view: its tiles' spectra gathered by defocus, and what a CTF would make there.

The mean power of a tile is a smooth background times 1 + S(k)·½(1 − c(k)·cos 2φ): S is the ratio
of signal to noise, φ the whole phase of the CTF at the tile's own defocus, and c the contrast that
the tile's window and the specimen's thickness leave to the fringes. Tiles of one view differ in
defocus by the known tilt; nothing is rescaled, so that no interpolation blurs the rings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.ctf import Ctf, coefficients
from kernels.spectra import PolarSpectra, hann_autocorrelation

Floats = NDArray[np.float64]

STRIP = 200.0  # Å: tiles of a view whose defocus differs by less are gathered
BACKGROUND_STEP = 0.04  # 1/Å: over less than this the background bends no way of its own
LEAST_RINGS = 12
BLANK = 1e-6  # of the usual power: rounding of a constant
HANN_BANDWIDTH = 1.5  # bins of an unpadded spectrum


@dataclass(frozen=True)
class Optics:
    """What is known of a view's CTF: voltage [kV], Cs [mm], amplitude contrast.

    `phase_shift` [degrees] is that of a phase plate, where it is known or to start from.
    """

    voltage: float = 300.0
    cs: float = 2.7
    amplitude_contrast: float = 0.07
    phase_shift: float = 0.0

    def ctf(self, defocus: float, p: float, q: float, phase_shift: float | None = None) -> Ctf:
        """Return the CTF of a mean defocus and p, q = (U − V)(cos 2α, sin 2α), in Å."""
        half = 0.5 * math.hypot(p, q)
        return Ctf(
            defocus + half,
            defocus - half,
            math.degrees(0.5 * math.atan2(q, p)),
            self.voltage,
            self.cs,
            self.amplitude_contrast,
            self.phase_shift if phase_shift is None else phase_shift,
        )


class Rings:
    """The fitted rings of one view, tiles of like defocus gathered into groups.

    Attributes
    ----------
    power : (groups, sectors, rings) float64
        Mean power, that of each tile having the mean 1 over the fitted range.
    weight : (groups, sectors, rings) float64
        Independent samples in each mean.
    x, y : (groups,) float64
        Mean place of a group's tiles in the aligned frame, from the raw image's centre [Å].
    k : (rings,) float64
        [1/Å]
    k2, k2_cos, k2_sin : (sectors, rings) float64
        Means of k², k² cos 2α, k² sin 2α [1/Å²].
    window : float
        Side of the tiles [Å].
    correlated : float
        Neighbouring rings whose noise is the same.
    """

    def __init__(
        self,
        polar: PolarSpectra,
        places: ArrayLike,
        gradient: tuple[float, float],
        pixel: float,
        resolutions: tuple[float, float],
        zones: int = 1,
    ) -> None:
        """Gather the tiles of a view.

        Parameters
        ----------
        polar : PolarSpectra
        places : (n_tiles, 2)
            x′, y′ of the tiles' centres from the raw image's centre, aligned frame [Å].
        gradient : (float, float)
            Defocus per Å of x′ and y′: only its size is used here, for the grouping.
        pixel : float
            [Å]
        resolutions : (float, float)
            Least and greatest resolution that are fitted [Å].
        zones : int
            Into how many parts the view is cut at least, along the gradient and across it.

        Raises
        ------
        ValueError
            If fewer than 12 rings are in range, or no tile has power.
        """
        spacing = polar.box * pixel
        low = spacing / resolutions[0]
        high = min(spacing / resolutions[1], 0.95 * polar.box / 2, polar.power.shape[-1])
        first, last = math.ceil(low), math.floor(high)
        if last - first < LEAST_RINGS:
            raise ValueError(
                f"{max(last - first, 0)} rings between {resolutions[0]} and {spacing / high:.1f} Å,"
                f" expected {LEAST_RINGS}: use a larger box than {polar.window}"
            )
        within = (slice(None), slice(first, last))
        self.k = np.arange(first, last) / spacing
        self.k2, self.k2_cos, self.k2_sin = (
            values[within] / pixel**2 for values in (polar.k2, polar.k2_cos, polar.k2_sin)
        )
        self.window = polar.window * pixel
        self.correlated = HANN_BANDWIDTH * polar.box / polar.window
        count = polar.count[within]
        tiles = polar.power[:, :, first:last].astype(np.float64)
        level = np.tensordot(tiles, count, axes=2) / count.sum()
        seen = with_power(level)
        tiles = tiles[seen] / level[seen, None, None]
        place = np.asarray(places, dtype=np.float64)[seen]
        member = _groups(place, gradient, zones)
        size = np.bincount(member)
        gather = np.zeros((len(size), len(place)))
        gather[member, np.arange(len(place))] = 1 / size[member]
        self.power = np.tensordot(gather, tiles, axes=1)
        self.x, self.y = (gather @ place).T
        self.weight = size[:, None, None] * count / polar.redundancy
        # Of samples without pixels nothing is known; they must not spoil logarithms.
        self.power = np.where(count > 0, self.power, 1.0)
        x = np.linspace(-1, 1, len(self.k))
        # A narrow range gets a stiffer background: else it could take in the two or three rings
        # there are, and half the defocus would fit as well.
        degree = int(np.clip(round((self.k[-1] - self.k[0]) / BACKGROUND_STEP), 2, 4))
        radial = [*np.polynomial.legendre.legvander(x, degree).T, np.log(self.k)]
        ring_weight = self.weight.sum(axis=(0, 1))
        root = np.sqrt(ring_weight)[:, None]
        self.radial = (np.linalg.qr(np.stack(radial, axis=1) * root)[0] / root).T
        self.envelopes = np.polynomial.legendre.legvander(x, 2).T

    def offsets(self, gradient: tuple[float, float]) -> Floats:
        """Return the defocus of the groups minus that of the view (groups,) [Å]."""
        return gradient[0] * self.x + gradient[1] * self.y

    def backgrounds(self) -> Floats:
        """Return the smooth functions (n, sectors, rings) that make up the log background.

        Power that depends on the direction (motion left in the image, astigmatic illumination)
        must not pass for astigmatism, so that each direction may have its level and slope.
        """
        like = np.ones_like(self.k2)
        flat = [row[None, :] * like for row in self.radial]
        slope = np.linspace(-1, 1, len(self.k))
        for part in (self.k2_cos, self.k2_sin):
            direction = part / np.maximum(self.k2, 1e-12)
            flat += [direction, direction * slope]
        return np.stack(flat)


def contrast(k: Floats, defocus: ArrayLike, optics: Optics, window: float) -> Floats:
    """Return how much of its fringes a Hann-windowed tile of side `window` [Å] shows.

    Parameters
    ----------
    k : (rings,)
        [1/Å]
    defocus : float or (groups, 1)
        [Å]
    optics : Optics
    window : float
        [Å]
    """
    a, b, _ = coefficients(optics.ctf(0.0, 0.0, 0.0))
    slope = 2 * k * (a * np.asarray(defocus) + 2 * b * k**2)
    return hann_autocorrelation(slope / np.pi / window)


def with_power(level: ArrayLike) -> NDArray[np.bool_]:
    """Return which tiles (n,) of some mean power have noise: filled margins of a view have none.

    Raises
    ------
    ValueError
        If none has.
    """
    values = np.asarray(level, dtype=np.float64)
    known = np.isfinite(values) & (values > 0)
    if not known.any():
        raise ValueError("no tile has power, expected an image with noise")
    return np.asarray(known & (values > BLANK * np.median(values[known])))


def _groups(place: Floats, gradient: tuple[float, float], zones: int) -> NDArray[np.intp]:
    """Return the group (n_tiles,) of each tile: by defocus, then by place across its gradient."""
    gx, gy = gradient
    size = math.hypot(gx, gy)
    turn = np.asarray([[gx, gy], [-gy, gx]]) / size if size > 0 else np.eye(2)
    along, across = turn @ place.T
    strips = max(round(np.ptp(along) * size / STRIP), 1)
    members = np.stack([_cut(along, max(strips, zones)), _cut(across, zones)], axis=1)
    _, member = np.unique(members, axis=0, return_inverse=True)
    return member.reshape(-1)


def _cut(values: Floats, n: int) -> NDArray[np.intp]:
    """Return which of `n` equal parts of their range the values (m,) are in."""
    low, high = values.min(), values.max()
    part = (values - low) / max(high - low, 1e-9) * n
    return np.minimum(part.astype(np.intp), n - 1)
