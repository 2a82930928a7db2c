import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import arrays, fourier


def blob(shape, y, x, width=3.0):
    """A Gaussian at (y, x) pixels from the centre pixel."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    r2 = (rows - shape[0] // 2 - y) ** 2 + (columns - shape[1] // 2 - x) ** 2
    return np.exp(-r2 / (2 * width**2)).astype(np.float32)


def centroid(image):
    """Its place from the centre pixel."""
    rows, columns = np.indices(image.shape)
    total = image.sum()
    return (
        (rows * image).sum() / total - image.shape[0] // 2,
        (columns * image).sum() / total - image.shape[1] // 2,
    )


@pytest.mark.parametrize("shape", [(32, 40), (33, 41)])
def test_the_transform_inverts(on, shape):
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    back = fourier.irfft2(fourier.rfft2(on(image)), shape)
    assert arrays.to_host(back).dtype == np.float32
    np.testing.assert_allclose(arrays.to_host(back), image, atol=1e-6)


def test_a_shift_moves_content_up_and_right(on):
    moved = fourier.shift_images(on(blob((48, 64), 0, 0)), 2.5, -3.25)
    np.testing.assert_allclose(arrays.to_host(moved), blob((48, 64), 2.5, -3.25), atol=1e-5)


@pytest.mark.parametrize("factor", [1, 1.5, 2, 3, 4, 2.5])
@pytest.mark.parametrize("shape", [(120, 121), (119, 120), (127, 128)])
def test_binning_keeps_centre_and_mean(on, shape, factor):
    image = blob(shape, 4.0, -6.0, width=8.0) + 5
    binned = arrays.to_host(fourier.bin_images(on(image), factor))
    np.testing.assert_allclose(centroid(binned - 5), (4 / factor, -6 / factor), atol=0.01)
    _, used = fourier.binned_shape(shape, factor)
    assert binned.mean() == pytest.approx(float(fourier.trim(image, used).mean()), rel=1e-6)


def test_binning_folds_nothing_back(on):
    columns = np.arange(128)
    image = np.tile(np.cos(2 * np.pi * 0.4 * columns), (128, 1)).astype(np.float32)
    binned = arrays.to_host(fourier.bin_images(on(image[:, :125]), 2))  # beyond the new Nyquist
    inner = binned[:, 8:-8]
    assert 10 * np.log10(np.mean(inner**2) / np.mean(image**2)) < -25


@given(st.floats(1, 5000))
def test_fast_sizes_are_even_and_smooth(size):
    fast = fourier.fast_size(size)
    assert fast >= size
    assert fast % 2 == 0
    for prime in (2, 3, 5):
        while fast % prime == 0:
            fast //= prime
    assert fast == 1


@pytest.mark.parametrize(("small", "large"), [((7, 8), (12, 11)), ((8, 7), (8, 9))])
def test_padding_and_trimming_keep_the_centre(on, small, large):
    image = np.random.default_rng(1).normal(size=small).astype(np.float32)
    padded = fourier.pad(on(image), large)
    assert (
        arrays.to_host(padded)[large[0] // 2, large[1] // 2] == image[small[0] // 2, small[1] // 2]
    )
    np.testing.assert_array_equal(arrays.to_host(fourier.trim(padded, small)), image)


def test_tapering_ends_at_the_mean(on):
    image = np.random.default_rng(2).normal(3, 1, size=(64, 64)).astype(np.float32)
    faded = arrays.to_host(fourier.taper(on(image), 10))
    np.testing.assert_allclose(faded[0], image.mean(), atol=0.05)
    np.testing.assert_array_equal(faded[10:-10, 10:-10], fourier.taper(image, 0)[10:-10, 10:-10])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda i: fourier.bin_images(i, 0.5), "binning is 0.5, it must be at least 1"),
        (lambda i: fourier.bin_images(i, 2.0001), "no whole number of pixels of 16"),
        (lambda i: fourier.trim(i, (20, 8)), "cannot trim"),
        (lambda i: fourier.pad(i, (20, 8)), "cannot pad"),
    ],
)
def test_errors_say_what_was_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call(np.zeros((16, 16), np.float32))
