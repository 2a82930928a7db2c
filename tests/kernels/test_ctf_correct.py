import numpy as np
import pytest

from kernels import arrays
from kernels.ctf import Ctf, coefficients, ctf_2d
from kernels.ctf_correct import Correction, correct_spectrum, first_peak, half_turns
from kernels.fourier import frequencies, irfft2, rfft2

SHAPE, PIXEL = (96, 110), 3.0
VIEW = Ctf(31000.0, 29500.0, 37.0, phase_shift=0.0)


def spectrum_of(seed=1):
    image = np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)
    return rfft2(image)


def exact_ctf(ctf):
    ky, kx = np.fft.fftfreq(SHAPE[0], PIXEL)[:, None], np.fft.rfftfreq(SHAPE[1], PIXEL)[None]
    return ctf_2d(ky, kx, ctf)


def corrected(on, correction, offset=450.0, ctf=VIEW):
    spectrum = on(spectrum_of())
    ky, kx = frequencies(SHAPE, spectrum, PIXEL)
    h = half_turns(ky, kx, ctf)
    out = correct_spectrum(spectrum, h, ky, kx, offset, ctf.voltage, correction, ctf)
    return arrays.to_host(out) / spectrum_of()


def test_multiplying_is_by_minus_the_ctf(on):
    np.testing.assert_allclose(
        corrected(on, Correction("multiply")), -exact_ctf(VIEW.with_offset(450.0)), atol=2e-4
    )


def test_flipping_is_by_minus_its_sign(on):
    ctf = exact_ctf(VIEW.with_offset(450.0))
    clear = np.abs(ctf) > 1e-3
    np.testing.assert_allclose(corrected(on, Correction("flip"))[clear], -np.sign(ctf[clear]))


def test_wiener_divides_where_the_signal_is_strong(on):
    ctf = exact_ctf(VIEW.with_offset(450.0))
    ky, kx = frequencies(SHAPE, np.zeros(1, np.float32), PIXEL)
    noise = np.exp(np.sqrt(ky**2 + kx**2) / 0.04) / 5.0
    expected = -ctf / (ctf**2 + noise)
    found = corrected(on, Correction("wiener", snr=5.0, snr_falloff=0.04))
    np.testing.assert_allclose(found, expected, atol=5e-4)


def test_below_the_first_peak_nothing_is_weakened(on):
    correction = Correction("multiply", first_peak_intact=True)
    ky, kx = frequencies(SHAPE, np.zeros(1, np.float32), PIXEL)
    k = np.sqrt(ky**2 + kx**2)
    found, limit = corrected(on, correction), first_peak(VIEW, 450.0)
    np.testing.assert_allclose(found[k < 0.99 * limit], 1, atol=1e-5)
    beyond = k > 1.01 * limit
    expected = -exact_ctf(VIEW.with_offset(450.0))
    np.testing.assert_allclose(found[beyond], expected[beyond], atol=2e-4)


@pytest.mark.parametrize("ctf", [Ctf(30000, 30000), Ctf(15000, 15000, cs=0.0), Ctf(9000, 9000)])
def test_the_first_peak_is_where_the_ctf_is_minus_one(ctf):
    k = first_peak(ctf, 0.0)
    assert ctf_2d(np.zeros((1, 1)), np.array([[k]]), ctf)[0, 0] == pytest.approx(-1, abs=1e-9)
    lower = np.linspace(0, 0.999 * k, 50)[None]
    assert (np.diff(ctf_2d(np.zeros((1, 1)), lower, ctf)[0]) < 0).all()


@pytest.mark.parametrize("ctf", [Ctf(30000, 30000, phase_shift=90), Ctf(-3000, -3000)])
def test_without_a_first_peak_nothing_is_intact(ctf):
    assert first_peak(ctf, 0.0) == 0.0


def test_the_phase_keeps_its_digits_at_high_resolution():
    shape, pixel = (256, 256), 0.8
    ky, kx = frequencies(shape, np.zeros(1, np.float32), pixel)
    ctf = Ctf(45000.0, 44000.0, 12.0)
    a, b, c = coefficients(ctf)
    exact_ky, exact_kx = np.fft.fftfreq(256, pixel)[:, None], np.fft.rfftfreq(256, pixel)[None]
    assert (a * 45000 * 0.4 + b * 0.16) / np.pi > 100  # a hundred turns
    found = np.sin(np.pi * half_turns(ky, kx, ctf).astype(np.float64))
    # Frequencies are float32 themselves: 1e-7 of a hundred turns.
    np.testing.assert_allclose(found, -ctf_2d(exact_ky, exact_kx, ctf), atol=3e-4)
    assert c > 0


def test_flipping_restores_the_phases_of_a_point():
    # A point imaged by the CTF is, flipped, positive and centred: all phases agree.
    spectrum = (exact_ctf(VIEW) * -1).astype(np.complex64)
    ky, kx = frequencies(SHAPE, spectrum, PIXEL)
    h = half_turns(ky, kx, VIEW)
    flipped = correct_spectrum(spectrum, h, ky, kx, 0.0, 300.0, Correction("flip"))
    image = irfft2(flipped, SHAPE)
    assert np.unravel_index(image.argmax(), SHAPE) == (0, 0)
    assert image[0, 0] == pytest.approx(np.abs(exact_ctf(VIEW)).mean(), rel=0.02)


def test_unknown_modes_and_ratios_are_refused():
    with pytest.raises(ValueError, match="mode is 'both'"):
        Correction("both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be positive"):
        Correction("wiener", snr=0.0)
