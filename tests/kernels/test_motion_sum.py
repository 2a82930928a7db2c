"""Movies are summed as if nothing had moved: against planted motion, ideal sums and each other."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
from scipy.ndimage import map_coordinates, spline_filter

from kernels import arrays, dose
from kernels.fourier import bin_images
from kernels.motion_sum import sum_frames
from kernels.warp import grid_field

SHIFTS = np.array([[2.1 * np.sin(i / 2), -1.3 * i] for i in range(4)])


def bend(y, x):
    """Return a smooth local motion of four frames, up to 1.5 pixels at the corners."""
    t = np.arange(4)[:, None, None, None] / 3
    down = 4 * y * y + 1.5 * np.sin(3 * x)
    across = 3 * x * x - 2 * y * x + y
    return t * np.stack([down, across])


def texture(size, rng):
    """Return white noise, without its last frequency, and its exact value at any place."""
    spectrum = scipy.fft.rfft2(rng.standard_normal((size, size)))
    spectrum[size // 2] = spectrum[:, size // 2] = 0
    fine = np.zeros((4 * size, 2 * size + 1), complex)
    half = size // 2
    fine[:half, : half + 1], fine[-half:, : half + 1] = spectrum[:half], spectrum[half:]
    spline = spline_filter(16 * scipy.fft.irfft2(fine), 5, mode="grid-wrap")

    def at(y, x):
        return map_coordinates(spline, [4 * y, 4 * x], order=5, prefilter=False, mode="grid-wrap")

    return scipy.fft.irfft2(spectrum).astype(np.float32), at


def moving(at, shape, shifts, field):
    """Return frames in which what belongs at p lies at p + shift + field(p)."""
    q = np.indices(shape, dtype=np.float64)
    centre = np.array([n // 2 for n in shape])[:, None, None]
    size = np.array(shape)[:, None, None]
    frames = []
    for i, shift in enumerate(shifts):
        p = q
        for _ in range(12):
            p = q - shift[:, None, None] - field(*((p - centre) / size))[i]
        frames.append(at(*p).astype(np.float32))
    return frames


def rings(a, b):
    """Return correlations in ten rings up to the Nyquist frequency, borders left out."""
    window = np.hanning(a.shape[0])[:, None] * np.hanning(a.shape[1])
    a, b = scipy.fft.rfft2(a * window), scipy.fft.rfft2(b * window)
    k = np.hypot(scipy.fft.fftfreq(a.shape[0])[:, None], np.arange(a.shape[1]) / a.shape[0])
    ring = np.minimum(k * 20, 10).astype(int).ravel()

    def total(values):
        return np.bincount(ring, values.ravel(), 11)[:10]

    return total((a * b.conj()).real) / np.sqrt(total(np.abs(a) ** 2) * total(np.abs(b) ** 2))


@pytest.mark.parametrize(("binning", "least"), [(2.0, 0.9995), (1.5, 0.9995), (1.0, 0.995)])
def test_local_motion_is_undone_up_to_the_last_ring(binning, least):
    truth, at = texture(256, np.random.default_rng(0))
    frames = moving(at, truth.shape, SHIFTS, bend)
    full = sum_frames(frames, SHIFTS, binning, field=bend).full / 4
    assert rings(full, bin_images(truth, binning)).min() > least


def test_without_the_field_the_same_motion_is_not_undone():
    truth, at = texture(256, np.random.default_rng(0))
    frames = moving(at, truth.shape, SHIFTS, bend)
    full = sum_frames(frames, SHIFTS, 2.0).full / 4
    assert rings(full, bin_images(truth, 2.0))[-1] < 0.96


@pytest.mark.parametrize("binning", [2.0, 1.5])
def test_warped_noise_stays_as_strong_as_it_was(binning):
    noise = np.random.default_rng(1).standard_normal((4, 512, 512), dtype=np.float32)
    still = sum_frames(noise, np.zeros((4, 2)), binning).full
    moved = sum_frames(noise, SHIFTS, binning, field=bend).full
    assert moved.std() == pytest.approx(still.std(), rel=0.01)


def test_without_a_field_the_phase_ramp_is_exact_at_every_frequency(on):
    truth, at = texture(96, np.random.default_rng(2))
    frames = moving(at, truth.shape, SHIFTS, lambda y, x: np.zeros((4, 2, 1, 1)))
    full = arrays.to_host(sum_frames([on(f) for f in frames], SHIFTS).full)
    assert full.dtype == np.float32
    np.testing.assert_allclose(full[24:-24, 24:-24] / 4, truth[24:-24, 24:-24], atol=0.05)
    assert rings(full, truth).min() > 0.999


@pytest.mark.parametrize("shape", [(64, 64), (75, 90)])
@pytest.mark.parametrize("binning", [1.0, 1.5, 2.0, 3.0])
def test_the_centre_pixel_stays_the_centre_pixel_and_the_mean_the_mean(shape, binning):
    dot = np.zeros(shape, np.float32)
    y, x = (np.arange(n) - n // 2 for n in shape)
    dot += np.exp(-(y[:, None] ** 2 + x**2) / 20)
    for field in (None, lambda y, x: np.zeros((2, 2, *y.shape))):
        full = sum_frames([dot, dot], np.zeros((2, 2)), binning, field=field).full / 2
        assert full.shape == tuple(int(n / binning) for n in shape)
        peak = np.unravel_index(full.argmax(), full.shape)
        assert peak == tuple(n // 2 for n in full.shape)
        assert full.max() == pytest.approx(1, abs=0.15)
        assert full.sum() * binning**2 == pytest.approx(dot.sum(), rel=1e-2)
        centred = sum(
            (np.arange(n) - n // 2) @ full.sum(axis=1 - i) for i, n in enumerate(full.shape)
        )
        assert abs(centred / full.sum()) < 2e-3


def test_even_frames_stay_even_to_the_border():
    frames = [np.full((60, 70), value, np.float32) for value in (1.0, 2.0, 3.0, 4.0)]
    for field in (None, bend):
        full = sum_frames(frames, 8 * SHIFTS, 2.0, field=field).full
        np.testing.assert_allclose(full, 10, rtol=2e-4)


def test_borders_left_by_the_motion_have_the_noise_of_the_rest():
    noise = np.random.default_rng(3).standard_normal((4, 256, 256), dtype=np.float32)
    shifts = np.array([[0, 0], [10, 0], [20, 0], [30, 0]])
    for field in (None, bend):
        full = sum_frames(noise, shifts, 2.0, field=field).full
        assert full[-14:].std() == pytest.approx(full[20:-20].std(), rel=0.15)


def test_odd_is_the_first_and_third_frame_and_odd_plus_even_is_full(on):
    frames = [np.full((20, 16), value, np.float32) for value in (1, 10, 100)]
    zero = np.zeros((3, 2))
    for field in (None, lambda y, x: np.zeros((3, 2, *y.shape))):
        sums = sum_frames([on(frame) for frame in frames], zero, field=field)
        odd, even, full = (arrays.to_host(s) for s in (sums.odd, sums.even, sums.full))
        np.testing.assert_allclose(odd, 101, rtol=1e-5)
        np.testing.assert_allclose(even, 10, rtol=1e-5)
        np.testing.assert_array_equal(full, odd + even)
        assert sums.weighted is None


def test_a_single_frame_is_its_own_odd_sum():
    frame = np.random.default_rng(4).standard_normal((64, 64), dtype=np.float32)
    sums = sum_frames([frame], np.zeros((1, 2)))
    np.testing.assert_allclose(sums.odd, frame, atol=1e-5)
    assert not sums.even.any()


@pytest.mark.parametrize("field", [None, bend], ids=["shifts", "field"])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_namespace_gives_the_same_sums(on, field, weighted):
    frames = np.random.default_rng(5).standard_normal((4, 90, 110), dtype=np.float32) + 2

    def total(move):
        weights = None
        if weighted:

            def weights(i, shape):
                return dose.exposure_weights(shape, 5.0, 3.0 * i + 3, 300, move(frames[0]))

        return sum_frames([move(f) for f in frames], SHIFTS, 1.5, field=field, weights=weights)

    here, there = total(np.asarray), total(on)
    for name in ("full", "odd", "even") + ("weighted",) * weighted:
        ours, theirs = getattr(here, name), arrays.to_host(getattr(there, name))
        assert np.abs(theirs - ours).max() < 1e-4 * ours.std()


def test_weights_of_one_change_nothing_and_equal_weights_cancel():
    frames = np.random.default_rng(6).standard_normal((4, 64, 64), dtype=np.float32) + 1
    for field in (None, bend):
        for value in (1.0, 0.3):
            sums = sum_frames(
                frames, SHIFTS, 2.0, field=field,
                weights=lambda i, shape, value=value: np.full(
                    (shape[0], shape[1] // 2 + 1), value, np.float32
                ),
            )  # fmt: skip
            np.testing.assert_allclose(sums.weighted, sums.full, atol=2e-5)


def test_weighting_by_exposure_keeps_the_noise_and_favours_early_frames():
    noise = np.random.default_rng(7).standard_normal((4, 256, 256), dtype=np.float32)
    noise += np.arange(1, 5)[:, None, None]

    def weights(i, shape):
        return dose.exposure_weights(shape, 2.0, 10.0 * (i + 1), 300, noise)

    sums = sum_frames(noise, np.zeros((4, 2)), weights=weights)
    assert sums.weighted.mean() == pytest.approx(sums.full.mean(), rel=1e-4)
    assert sums.weighted.std() == pytest.approx(sums.full.std(), rel=0.01)
    first, last = (rings(sums.weighted, frame)[-1] for frame in (noise[0], noise[3]))
    assert first > 0.8 > 0.3 > last


def test_a_grid_and_the_field_it_samples_agree():
    frames = np.random.default_rng(8).standard_normal((4, 128, 128), dtype=np.float32)
    places = np.linspace(-0.5, 0.5, 33)
    grid = np.moveaxis(bend(*np.meshgrid(places, places, indexing="ij")), 1, -1)
    one = sum_frames(frames, SHIFTS, 2.0, field=bend).full
    other = sum_frames(frames, SHIFTS, 2.0, field=grid_field(grid)).full
    assert np.abs(one - other).max() < 0.01 * one.std()


def test_frames_are_read_once_and_left_unchanged():
    frames = np.random.default_rng(9).standard_normal((4, 64, 64), dtype=np.float32)
    before, reads = frames.copy(), []

    def once():
        for i, frame in enumerate(frames):
            reads.append(i)
            frame.flags.writeable = False
            yield frame

    sum_frames(once(), SHIFTS)
    sum_frames(once(), SHIFTS, field=bend)
    assert reads == [*range(4), *range(4)]
    np.testing.assert_array_equal(frames, before)


def test_numbers_that_disagree_are_refused():
    frames = np.zeros((3, 32, 32), np.float32)
    with pytest.raises(ValueError, match="3 frames for 4 shifts"):
        sum_frames(frames, np.zeros((4, 2)))
    with pytest.raises(ValueError, match="more frames than the 2 shifts"):
        sum_frames(frames, np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"the field has \(4, 2\) displacements"):
        sum_frames(frames, np.zeros((3, 2)), field=bend)
    with pytest.raises(ValueError, match="0 frames for 1 shifts"):
        sum_frames([], np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"frame 2 is \(32, 30\), the first one is \(32, 32\)"):
        sum_frames([frames[0], frames[1][:, 1:-1]], np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"expected finite \(n, 2\)"):
        sum_frames(frames, np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match=r"binning is 0\.5"):
        sum_frames(frames, np.zeros((3, 2)), 0.5)
