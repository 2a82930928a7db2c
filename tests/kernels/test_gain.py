"""The orientation of a gain is read from the mean of raw frames, or said to be unknown."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from kernels.detector import orient_reference
from kernels.gain import (
    CLEAR,
    ORIENTATIONS,
    at_one_sampling,
    canonical,
    lead,
    rank_orientations,
)
from kernels.simulate import gain_reference

ELECTRONS = 41 * 8 * 0.7  # per pixel: 41 movies of 8 frames
FLIPS = ("none", "up-down", "left-right")


def grid(shape):
    return np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])[None, :]


def mean_frame(gain, rng, intensity=1.0, electrons=ELECTRONS):
    """Return the mean of 41 × 8 frames: counts with noise, uncorrected."""
    return (rng.poisson(electrons * intensity / gain) / (41 * 8)).astype(np.float32)


def as_filed(gain, rotation, flip):
    """Return what must lie in the file for `rotation` and `flip` to make it `gain`."""
    back = orient_reference(gain, 0, flip)
    return np.ascontiguousarray(orient_reference(back, -rotation % 4))


def gradient(shape):
    """Return a beam that is off centre and falls to a half, and the edge of a carbon film."""
    y, x = grid(shape)
    return np.exp(-0.4 * ((x - 0.6) ** 2 + (y + 0.3) ** 2)) * np.where(x + 0.4 * y > 0.3, 0.8, 1)


def blobs(shape, size, rng):
    field = scipy.ndimage.gaussian_filter(rng.standard_normal(shape), size)
    return (field / field.std()).astype(np.float32)


@pytest.mark.parametrize(("rotation", "flip"), ORIENTATIONS)
@pytest.mark.parametrize("uneven", [False, True])
def test_the_right_one_of_eight_comes_first(rotation, flip, uneven):
    rng = np.random.default_rng(7)
    gain = gain_reference((256, 256), rng)
    mean = mean_frame(gain, rng, gradient(gain.shape) if uneven else 1.0)
    filed = as_filed(gain, rotation, flip)
    np.testing.assert_array_equal(orient_reference(filed, rotation, flip), gain)
    ranking = rank_orientations(mean, filed)
    first = ranking[0]
    assert (first.rotation, first.flip, first.inverted) == (rotation, flip, False)
    assert lead(ranking) > 3 * CLEAR
    assert len(ranking) == 16


@pytest.mark.parametrize(("rotation", "flip"), [(0, "none"), (3, "none"), (1, "up-down")])
def test_a_gain_that_divides_is_told(rotation, flip):
    rng = np.random.default_rng(8)
    gain = gain_reference((256, 256), rng)
    # Of any scale: sensitivities as counts of a flat exposure.
    ranking = rank_orientations(mean_frame(gain, rng), as_filed(5000 / gain, rotation, flip))
    first = ranking[0]
    assert (first.rotation, first.flip, first.inverted) == (rotation, flip, True)
    assert lead(ranking) > 3 * CLEAR


@pytest.mark.parametrize(("rotation", "flip"), ORIENTATIONS)
def test_frames_that_are_not_square_leave_four_orientations(rotation, flip):
    rng = np.random.default_rng(9)
    gain = gain_reference((180, 257), rng)
    ranking = rank_orientations(mean_frame(gain, rng), as_filed(gain, rotation, flip))
    assert (ranking[0].rotation, ranking[0].flip, ranking[0].inverted) == (rotation, flip, False)
    assert lead(ranking) > 3 * CLEAR
    assert len(ranking) == 8
    assert {one.rotation % 2 for one in ranking} == {rotation % 2}


@pytest.mark.parametrize("structure", ["pixels", "smooth"])
def test_single_pixels_suffice_and_so_do_smooth_parts(structure):
    rng = np.random.default_rng(10)
    shape = (256, 256)
    noise = rng.standard_normal(shape) if structure == "pixels" else blobs(shape, 6, rng)
    gain = (1 + (0.015 if structure == "pixels" else 0.03) * noise).astype(np.float32)
    ranking = rank_orientations(mean_frame(gain, rng, gradient(shape)), as_filed(gain, 3, "none"))
    assert (ranking[0].rotation, ranking[0].flip) == (3, "none")
    assert lead(ranking) > CLEAR


def test_the_beam_does_not_decide_for_a_gain_as_smooth_as_itself():
    rng = np.random.default_rng(11)
    y, x = grid((256, 256))
    gain = (1 + 0.05 * np.sin(2.5 * x + 1.7 * y + 1) + 0.05 * x).astype(np.float32)
    # The beam happens to be what the gain would make, were it mirrored.
    mean = mean_frame(gain[:, ::-1], rng)
    assert lead(rank_orientations(mean, gain)) < CLEAR


def test_single_pixels_decide_against_a_beam_that_speaks_for_a_mirrored_gain():
    rng = np.random.default_rng(12)
    gain = gain_reference((256, 256), rng)
    smooth = scipy.ndimage.gaussian_filter(gain, 20)
    ranking = rank_orientations(mean_frame(gain, rng, smooth / smooth[:, ::-1] ** 2), gain)
    assert (ranking[0].rotation, ranking[0].flip) == (0, "none")
    assert lead(ranking) > CLEAR


def test_without_structure_in_the_gain_nothing_is_told():
    rng = np.random.default_rng(13)
    y, x = grid((256, 256))
    frames = mean_frame(gain_reference((256, 256), rng), rng, gradient((256, 256)))
    for gain in (
        np.ones((256, 256), np.float32),
        np.full((256, 256), 0.3, np.float32),
        (1 - 0.1 * (x**2 + y**2)).astype(np.float32),
    ):
        assert lead(rank_orientations(frames, gain)) < CLEAR


def test_movies_that_are_corrected_already_tell_nothing():
    rng = np.random.default_rng(14)
    gain = gain_reference((256, 256), rng)
    corrected = mean_frame(np.ones_like(gain), rng, gradient(gain.shape))
    assert lead(rank_orientations(corrected, gain)) < CLEAR


def test_the_specimen_never_decides():
    leads = []
    for seed in range(30):
        rng = np.random.default_rng(100 + seed)
        shape = (128, 128)
        specimen = np.clip(1 + 0.2 * blobs(shape, rng.uniform(1, 10), rng), 0.1, 3)
        another = gain_reference(shape, rng) if seed % 2 else 1.5 + 0.1 * blobs(shape, 3, rng)
        mean = mean_frame(np.ones(shape), rng, specimen * gradient(shape))
        leads.append(lead(rank_orientations(mean, another)))
    assert max(leads) < 3


def test_a_gain_that_looks_alike_mirrored_is_told_up_to_the_mirror():
    rng = np.random.default_rng(15)
    gain = np.repeat(1 + 0.03 * rng.standard_normal((1, 256)), 256, axis=0).astype(np.float32)
    ranking = rank_orientations(mean_frame(gain, rng), gain)
    alike = [(one.rotation, one.flip) for one in ranking if one.behind < CLEAR]
    assert sorted(alike) == [(0, "none"), (0, "up-down")]
    assert lead(ranking) == 0


def test_dead_and_hot_pixels_change_little():
    rng = np.random.default_rng(16)
    gain = gain_reference((256, 256), rng)
    mean = mean_frame(gain, rng)
    clean = lead(rank_orientations(mean, gain))
    mean[rng.random(mean.shape) < 1e-3] = 500
    mean[:, 100] = 0
    spoiled = gain.copy()
    spoiled[rng.random(gain.shape) < 1e-3] = 0
    spoiled[40, :] = np.nan
    spoiled[:, 100] = np.inf
    ranking = rank_orientations(mean, spoiled)
    assert (ranking[0].rotation, ranking[0].flip) == (0, "none")
    assert lead(ranking) > 0.9 * clean


def test_more_electrons_make_it_clearer():
    rng = np.random.default_rng(17)
    gain = gain_reference((256, 256), rng)
    leads = [
        lead(rank_orientations(mean_frame(gain, rng, electrons=electrons), gain))
        for electrons in (1, 10, 100)
    ]
    assert leads[0] < leads[1] < leads[2]


def test_arrays_may_be_anywhere_and_stay_as_they_are(on):
    rng = np.random.default_rng(18)
    gain = gain_reference((96, 96), rng)
    mean = mean_frame(gain, rng)
    before = mean.copy(), gain.copy()
    ranking = rank_orientations(on(mean), on(gain))
    np.testing.assert_array_equal(mean, before[0])
    np.testing.assert_array_equal(gain, before[1])
    assert ranking == rank_orientations(mean, gain)
    assert [one.score for one in ranking] == sorted((one.score for one in ranking), reverse=True)
    assert ranking[0].behind == 0


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_the_share_tells_raw_frames_from_corrected_ones(noise):
    rng = np.random.default_rng(19)
    gain = gain_reference((256, 256), rng)
    given = gain * (1 + noise * rng.standard_normal(gain.shape)).astype(np.float32)
    own = 0.02**2 + 2 * 0.015**2 + noise**2  # columns, rows and pixels; the smooth part is left out
    raw = rank_orientations(mean_frame(gain, rng, gradient(gain.shape)), given)[0]
    assert (raw.rotation, raw.flip, raw.inverted) == (0, "none", False)
    assert raw.share == pytest.approx(1 - noise**2 / own, abs=0.1)
    corrected = mean_frame(gain, rng, gradient(gain.shape)) * given
    ranking = rank_orientations(corrected, given)
    assert ranking[0].share == pytest.approx(noise**2 / own, abs=0.1)
    if noise:  # what a gain's own noise left looks like a gain that divides
        assert ranking[0].inverted
        assert lead(ranking) > CLEAR


@pytest.mark.parametrize("factor", [2, 4])
def test_the_finer_of_mean_and_gain_is_binned_whichever_way_it_lies(factor):
    rng = np.random.default_rng(20)
    gain = rng.uniform(0.5, 1.5, (6, 10)).astype(np.float32)
    fine = np.kron(gain, np.ones((factor, factor))).astype(np.float32)
    fine[0, 0] = np.nan
    fine[factor : 2 * factor, :factor] = 0
    for turned in (fine, fine.T):
        mean, binned = at_one_sampling(gain, turned, 1000)
        assert mean is gain
        upright = binned if turned is fine else binned.T
        assert upright[1, 0] == 0
        upright[1, 0] = gain[1, 0]
        np.testing.assert_allclose(upright, gain, rtol=1e-6)
        mean, same = at_one_sampling(np.abs(np.nan_to_num(turned)), gain, 1000)
        assert same is gain
        assert mean.shape in {gain.shape, gain.shape[::-1]}


def test_counts_of_zero_are_binned_like_any_other():
    mean = np.zeros((8, 8), np.float32)
    mean[::2, ::2] = 4
    mean[1, 1] = -4  # less the dark reference
    expected = np.ones((4, 4))
    expected[0, 0] = 0
    binned, _ = at_one_sampling(mean, np.ones((4, 4), np.float32), 1000)
    np.testing.assert_array_equal(binned, expected)


def test_large_arrays_are_binned_together_while_they_are_even():
    mean, gain = np.ones((24, 40), np.float32), np.ones((40, 24), np.float32)
    sizes = [at_one_sampling(mean, gain, largest)[1].shape for largest in (40, 39, 10, 1)]
    assert sizes == [(40, 24), (20, 12), (10, 6), (5, 3)]
    assert at_one_sampling(mean, gain, 10)[0].shape == (6, 10)
    odd = np.ones((25, 40), np.float32)
    assert at_one_sampling(odd, odd, 1)[0] is odd
    unlike = at_one_sampling(mean, np.ones((72, 120), np.float32), 1000)
    assert [one.shape for one in unlike] == [(24, 40), (72, 120)]


def test_what_cannot_be_compared_is_refused():
    ones = np.ones((20, 30), np.float32)
    with pytest.raises(ValueError, match=r"gain is 20×20 pixels, the frames 20×30 \(y, x\)"):
        rank_orientations(ones, ones[:, :20])
    with pytest.raises(ValueError, match="no electrons"):
        rank_orientations(0 * ones, ones)
    with pytest.raises(ValueError, match="no positive pixel"):
        rank_orientations(ones, -ones)


def test_a_frame_without_noise_or_pattern_tells_nothing():
    assert lead(rank_orientations(np.ones((20, 30), np.float32), np.ones((30, 20)))) == 0


@pytest.mark.parametrize("rotation", range(4))
@pytest.mark.parametrize("flip", FLIPS)
def test_every_rotation_and_flip_is_one_of_eight(rotation, flip):
    reference = np.arange(12.0).reshape(3, 4)
    same = canonical(rotation, flip)
    assert same in ORIENTATIONS
    np.testing.assert_array_equal(
        orient_reference(reference, *same), orient_reference(reference, rotation, flip)
    )


def test_unknown_orientations_are_refused():
    with pytest.raises(ValueError, match="rotation 90 and flip 'none'"):
        canonical(90, "none")
