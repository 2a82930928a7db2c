"""Which hand of the defocus gradient makes odd and even views agree better, on a small part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from kernels.ctf_correct import Correction
from kernels.ctf_planes import lay_planes
from kernels.plane_images import corrected_columns, padded_shape, view_phases, view_spectrum
from tasks.box import Box
from tasks.chunks.ctf3d import Correcting, Transformed, slab

Spectrum = NDArray[np.complex64]
BAND = 64  # rows in the middle on which hands are compared
COARSE, FINE = 1 / 50, 0.45  # frequencies at which they are [1/Å, cycles per voxel]
PARTS = 8  # of the band, whose scatter tells the error
CHECK_DEPTH = 200.0  # Å that the comparison is deep: then even and odd views overlap in k


def can_score_hands(voxel: float) -> bool:
    """Tell whether voxels of that size [Å] hold any frequency at which hands are compared."""
    return FINE / voxel > 1.1 * COARSE


def band_of(transformed: Transformed, how: Correcting) -> Spectrum:
    """Return the spectrum of the band of one view on which hands are compared."""
    frame = how.box.frame
    rows = min(BAND, frame[0])
    factor = 1 / how.spline() if how.fine else np.float32(1)
    spectra = transformed[1][len(transformed[1]) // 2]  # of the layer in the middle
    return _band(spectra[0] * factor, frame, how.margin, (frame[0] - rows) // 2, rows)


def score_hands(
    views: Sequence[Spectrum],
    how: Correcting,
    hand: int,
    middle: float,
    depths: Sequence[float],
) -> dict[str, float]:
    """Return how well odd and even views agree off the tilt axis, by the hand used.

    In a thin sheet at the specimen's middle, a band of rows long, in its outer thirds, at planes
    four times as far apart as in the tomogram, between 1/50 Å and 0.9 of Nyquist: the correlation
    of a tomogram of the odd views with one of the even. Odd and even views share no noise; a
    wrong correction leaves them phases that differ. What the views' own shapes do to the
    correlation is the same for both hands: only the difference tells, and only where it is several
    times its error; of fields narrower than a micrometre or of coarse voxels it tells nothing.
    `views` are their bands (`band_of`), `middle` is Z of the specimen's middle, `depths` are z′
    where the views' defoci hold [Å].

    Returns
    -------
    dict
        'as used', 'opposite', 'none' → correlation; 'error' → standard error of the difference of
        the first two, from parts of the band.
    """
    frame, voxel = how.box.frame, how.box.voxel
    band = min(BAND, frame[0])
    plain = how.parameters.model_copy(update={"interpolation": "linear"})
    nz = max(8, 2 * round(CHECK_DEPTH / voxel / 2))
    box = Box(voxel, how.box.binning, (band, frame[1]), (nz, band, frame[1]), 0, (0, 0, middle))
    found = {}
    for name, sign in (("as used", hand), ("opposite", -hand), ("none", 0)):
        planes = lay_planes(
            how.views,
            box.shape,
            voxel,
            box.centre,
            step=4 * how.planes.step if sign else 1e9,
            hand=sign or 1,
            depths=depths,
        )
        checked = Correcting(
            *(how.views, how.ctfs, box, how.turned, planes, Correction("multiply"), how.weights),
            *(how.margin, plain),
        )
        products = _agreement(views, checked, corrected=sign != 0)
        found[name] = products[:, 0] / products[:, 1].mean()
    difference = found["as used"] - found["opposite"]
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return {name: float(part.mean()) for name, part in found.items()} | {"error": float(error)}


def _band(
    spectrum: NDArray[np.complex64], frame: tuple[int, int], margin: int, low: int, band: int
) -> NDArray[np.complex64]:
    """Return the spectrum of some rows of a view."""
    high = padded_shape(*frame, margin)[1]
    lines = scipy.fft.ifft(spectrum, axis=0)[: frame[1]]
    rows = scipy.fft.irfft(lines, high, axis=1)[:, low : low + band]
    return view_spectrum(np.ascontiguousarray(rows.T), margin)


def _agreement(
    views: Sequence[NDArray[np.complex64]], how: Correcting, *, corrected: bool
) -> NDArray[np.float64]:
    """Return Σ A·B and √(Σ A² Σ B²) of the tomograms of odd and even views, by parts (n, 2)."""
    layout, box = how.layout(), how.box
    phases = [view_phases(box.frame, how.margin, ctf, box.voxel, views[0]) for ctf in how.ctfs]
    if not corrected:
        phases = [np.full_like(h, 0.5) for h in phases]  # where the factor is 1
    packed = []
    for level in layout.levels:
        images = []
        for i in layout.of_plane(int(level)):
            view = int(layout.images[i, 0])
            offset = float(level) * how.planes.step if corrected else 0.0
            columns = (int(layout.first[i]), int(layout.count[i]))
            images.append(
                corrected_columns(
                    *(views[view], phases[view], box.frame, how.margin, how.ctfs[view]),
                    *(offset, columns, box.voxel, how.correction),
                )
            )
        empty = np.zeros((0, box.frame[0]), dtype=np.float32)
        packed.append(np.concatenate([empty, *images]))
    odd = np.arange(len(how.views)) % 2 == 0
    weights = np.asarray(how.weights)
    first, last = how.rows(0, box.shape[1])
    packed = [plane[:, first:last] for plane in packed]
    volumes = [
        slab(how, layout, 0, box.shape[1], packed, weights * chosen) for chosen in (odd, ~odd)
    ]
    outer = np.abs(np.arange(box.shape[2]) - box.shape[2] / 2) > box.shape[2] / 6
    ky = scipy.fft.fftfreq(box.shape[1], box.voxel)[:, None]
    kx = scipy.fft.rfftfreq(box.shape[2], box.voxel)
    k = np.hypot(ky, kx)
    passed = (k > COARSE) & (k < FINE / box.voxel)
    one, other = (
        scipy.fft.irfft2(scipy.fft.rfft2(v) * passed, v.shape[1:])[:, :, outer] for v in volumes
    )
    parts = [np.array_split(v, PARTS, axis=1) for v in (one, other)]
    return np.array(
        [
            [(a * b).sum(), np.sqrt(np.square(a).sum() * np.square(b).sum())]
            for a, b in zip(*parts, strict=True)
        ],
        dtype=np.float64,
    )
