import numpy as np
import pytest

from kernels import arrays
from kernels.backproject import aligned_projection
from kernels.ctf import Ctf
from kernels.ctf_correct import Correction, correct_spectrum, half_turns
from kernels.ctf_planes import lay_planes
from kernels.fourier import frequencies, irfft2, rfft2
from kernels.geometry import View
from kernels.plane_images import (
    corrected_columns,
    lay_out,
    padded_shape,
    view_phases,
    view_spectrum,
)

PIXEL = 4.0
CTF = Ctf(31000.0, 26000.0, 33.0, phase_shift=20.0)


def random_view(shape):
    return np.random.default_rng(5).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("mode", ["flip", "multiply", "wiener"])
def test_a_plane_is_the_whole_view_corrected_at_its_defocus(on, mode):
    view, margin = random_view((90, 70)), 16
    correction = Correction(mode)
    wide, high = padded_shape(90, 70, margin)
    # Plainly: not transposed, all columns.
    way_y = ((np.arange(high - 90) + 1) / (high - 90 + 1)).astype(np.float32)[:, None]
    way_x = ((np.arange(wide - 70) + 1) / (wide - 70 + 1)).astype(np.float32)
    first, last = (part.mean(1, keepdims=True) for part in (view[:, :8], view[:, -8:]))
    image = np.concatenate([view, last + (first - last) * way_x], axis=1)
    first, last = (part.mean(0) for part in (image[:8], image[-8:]))
    image = np.concatenate([image, last + (first - last) * way_y], axis=0)
    ky, kx = frequencies(image.shape, image, PIXEL)
    spectrum = arrays.to_host(view_spectrum(on(view), margin))
    # Frequencies at Nyquist have no sign of their own.
    spectrum[wide // 2], spectrum[:, high // 2] = 0, 0
    plainly = rfft2(image)
    plainly[high // 2], plainly[:, wide // 2] = 0, 0
    spectrum = on(spectrum)
    h = view_phases(view.shape, margin, CTF, PIXEL, spectrum)
    for offset, (start, count) in ((-900.0, (0, 70)), (0.0, (12, 30)), (450.0, (69, 1))):
        one = corrected_columns(
            *(spectrum, h, view.shape, margin, CTF, offset, (start, count), PIXEL, correction)
        )
        plain = half_turns(ky, kx, CTF)
        turned = correct_spectrum(plainly, plain, ky, kx, offset, CTF.voltage, correction, CTF)
        expected = irfft2(turned, image.shape)[:90, start : start + count]
        assert one.shape == (count, 90)
        error = arrays.to_host(one).T - expected
        if mode == "flip":  # rounding decides on which side of a zero a frequency lies
            assert np.sqrt(np.mean(error**2)) < 0.01 * expected.std()
        else:
            assert np.abs(error).max() < 1e-4 * view.max()


@pytest.mark.parametrize("blend", [False, True])
@pytest.mark.parametrize("x_tilt", [0.0, 4.0])
def test_every_column_that_a_voxel_reads_is_kept_and_few_others(blend, x_tilt):
    shape, columns, middle = (30, 20, 64), 70, (4.0, 15.0)
    views = [View(tilt, 0.0, x_tilt=x_tilt) for tilt in (-58.0, -20.0, 0.0, 3.0, 60.0)]
    projection = aligned_projection(views, shape, columns, PIXEL, (10.0, 20.0), rows=20)
    planes = lay_planes(views, shape, PIXEL, (10.0, 0.0, 20.0), step=45.0, blend=blend)
    layout = lay_out(projection, planes, (30, 64), columns, middle)
    z, x = np.indices((30, 64))
    spare = 0
    for (view, level), first, count in zip(layout.images, layout.first, layout.count, strict=True):
        column = projection.x[view] * x + projection.z[view] * z + projection.offset[view]
        read = []
        for y in np.linspace(*middle, 5):
            depth = planes.x[view] * x + planes.z[view] * z + planes.offset[view]
            depth = np.clip(
                depth + planes.y[view] * y,
                planes.first[view],
                planes.first[view] + planes.count[view] - 1,
            )
            near = np.abs(depth - level) < 1 if blend else np.abs(depth - level) <= 0.5
            read.append(column[near & (column >= 0) & (column <= columns - 1)])
        seen = np.concatenate(read)
        if seen.size:
            assert first <= seen.min()
            assert seen.max() <= first + count - 1 or first + count == columns
            spare = max(spare, count - (seen.max() - seen.min()))
    assert spare < 12
    assert layout.columns < 0.7 * columns * len(layout.images)


def test_images_lie_by_planes_without_gaps():
    views = [View(tilt, 0.0) for tilt in (-40.0, 10.0, 50.0)]
    projection = aligned_projection(views, (20, 9, 40), 48, PIXEL)
    planes = lay_planes(views, (20, 9, 40), PIXEL, step=40.0)
    layout = lay_out(projection, planes, (20, 40), 48, (0.0, 0.0))
    at = 0
    for level in layout.levels:
        for i in layout.of_plane(level):
            assert layout.place[i] + layout.first[i] == at
            at += layout.count[i]
    assert at == layout.columns == sum(layout.columns_of_plane(int(n)) for n in layout.levels)
