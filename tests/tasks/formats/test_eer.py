"""EER movies written by a small encoder of the published format come back electron by electron."""

from __future__ import annotations

import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
from eer_files import BITS, NX, NY, Electron, encoded, write_eer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.formats.eer import count_raw_frames, open_eer, raw_frames_for_dose
from tasks.formats.errors import FormatError
from tasks.formats.movies import open_movie

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def random_electrons(n: int, seed: int = 0) -> list[Electron]:
    rng = np.random.default_rng(seed)
    pixels = rng.choice(NY * NX, n, replace=False)
    places = rng.integers(0, 4, (n, 2))
    return [
        (int(p) // NX, int(p) % NX, int(d), int(r))
        for p, (d, r) in zip(pixels, places, strict=True)
    ]


def rendered(electrons: list[Electron], sampling: int = 1) -> np.ndarray:
    """Return the counts expected, row 0 the last row of the scan."""
    image = np.zeros((NY * sampling, NX * sampling), int)
    for row, column, down, right in electrons:
        y, x = row * sampling + down * sampling // 4, column * sampling + right * sampling // 4
        image[NY * sampling - 1 - y, x] += 1
    return image


@pytest.mark.parametrize("sampling", [1, 2, 4])
@pytest.mark.parametrize("compression", BITS)
def test_every_electron_is_where_it_was_put(
    tmp_path: Path, compression: int, sampling: int
) -> None:
    electrons = [random_electrons(n, n) for n in (0, 1, 40, 700)]
    frames = [encoded(e, BITS[compression]) for e in electrons]
    movie = open_eer(write_eer(tmp_path / "a.eer", frames, compression), 1, sampling)
    assert (movie.n_frames, movie.ny, movie.nx) == (4, NY * sampling, NX * sampling)
    for i, e in enumerate(electrons):
        np.testing.assert_array_equal(movie.frame(i), rendered(e, sampling))


def test_the_corners_of_the_detector_and_of_a_pixel(tmp_path: Path) -> None:
    corner = [(0, 0, 0, 0), (NY - 1, NX - 1, 3, 3), (0, NX - 1, 0, 3)]
    movie = open_eer(write_eer(tmp_path / "a.eer", [encoded(corner)]), 1, 4)
    found = {tuple(place) for place in np.argwhere(movie.frame(0)).tolist()}
    # The scan starts with the top row, so with the highest y.
    assert found == {(4 * NY - 1, 0), (0, 4 * NX - 1), (4 * NY - 1, 4 * NX - 1)}


@pytest.mark.parametrize("idle", [False, True])
def test_both_readings_of_eight_bit_codes_are_told_apart(tmp_path: Path, idle: bool) -> None:
    electrons = random_electrons(12)  # gaps of 500 pixels: most need a code that only skips
    codes = encoded(electrons, BITS[65000], idle=idle)
    for sampling in (1, 2, 4):
        movie = open_eer(write_eer(tmp_path / "a.eer", [codes], 65000), 1, sampling)
        np.testing.assert_array_equal(movie.frame(0), rendered(electrons, sampling))


def test_a_frame_sums_the_raw_frames_of_its_group_and_leaves_the_rest(tmp_path: Path) -> None:
    electrons = [random_electrons(300, seed) for seed in range(7)]
    path = write_eer(tmp_path / "a.eer", [encoded(e) for e in electrons])
    movie = open_eer(path, grouping=3, sampling=2)
    assert (movie.n_raw, movie.n_frames) == (7, 2)
    for i in range(2):
        expected = sum(rendered(e, 2) for e in electrons[3 * i : 3 * i + 3])
        np.testing.assert_array_equal(movie.frame(i), expected)


def test_counts_do_not_overflow(tmp_path: Path) -> None:
    same = [encoded([(5, 5, 0, 0)])]
    path = write_eer(tmp_path / "a.eer", same * 256)
    assert open_eer(path, 255).dtype == np.uint8
    assert open_eer(path, 255).frame(0).max() == 255
    assert open_eer(path, 256).frame(0).max() == 256


def test_bits_of_variable_codes_come_from_the_tags(tmp_path: Path) -> None:
    bits, tags = (8, 1, 1), {65007: 8, 65008: 1, 65009: 1}
    electrons = [(r, c, d // 2, right // 2) for r, c, d, right in random_electrons(200)]
    path = write_eer(tmp_path / "a.eer", [encoded(electrons, bits)], 65002, tags)
    halves = [(r, c, 2 * d, 2 * right) for r, c, d, right in electrons]
    np.testing.assert_array_equal(open_eer(path, 1, 2).frame(0), rendered(halves, 2))
    with pytest.raises(FormatError, match="sampling 4; choose 1, 2, 4, at most 2"):
        open_eer(path, 1, 4)


def test_the_sum_that_precedes_the_frames_is_no_frame(tmp_path: Path) -> None:
    electrons = random_electrons(50)
    path = write_eer(tmp_path / "a.eer", [encoded(electrons)] * 2, final_image=True)
    movie = open_movie(path, eer_fractions=1)
    assert movie.n_frames == 2
    np.testing.assert_array_equal(movie.frame(1), rendered(electrons))


@pytest.mark.parametrize("sampling", [1, 2, 4])
def test_tifffile_reads_the_same_electrons_upside_down(tmp_path: Path, sampling: int) -> None:
    codes = encoded(random_electrons(400))
    path = write_eer(tmp_path / "a.eer", [codes + bytes(-len(codes) % 8)])
    other = tifffile.TiffFile(path, superres=sampling.bit_length() - 1).pages[0].asarray()
    np.testing.assert_array_equal(open_eer(path, 1, sampling).frame(0), other[::-1])


def test_the_pixel_size_is_that_of_the_frames(tmp_path: Path) -> None:
    path = write_eer(tmp_path / "a.eer", [encoded([])])
    assert open_eer(path, 1).pixel_size == pytest.approx(0.75)
    assert open_eer(path, 1, 2).pixel_size == pytest.approx(0.375)
    path.write_bytes(path.read_bytes().replace(b'unit="m"', b'unit="?"'))
    assert open_eer(path, 1).pixel_size is None


def test_a_cut_off_movie_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    path = write_eer(tmp_path / "a.eer", [encoded(random_electrons(99))] * 3)
    whole = path.read_bytes()
    for size in range(len(whole) - 1, 20, -7):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError, match=r"a\.eer: .*; copy it again"):
            open_eer(path, 1)


@SAME_FOLDER
@given(st.binary(min_size=1, max_size=40), st.integers(0, 10_000), st.sampled_from([*BITS]))
def test_no_damage_raises_anything_but_a_format_error(
    tmp_path: Path, junk: bytes, at: int, compression: int
) -> None:
    frames = [encoded(random_electrons(200), BITS[compression])] * 2
    path = write_eer(tmp_path / "a.eer", frames, compression, final_image=True)
    raw = bytearray(path.read_bytes())
    at %= len(raw)
    raw[at : at + len(junk)] = junk
    path.write_bytes(raw)
    with suppress(FormatError):
        movie = open_movie(path, eer_fractions=1, eer_sampling=2)
        assert movie.frame(0).shape == (movie.ny, movie.nx)


def test_damaged_codes_name_the_raw_frame(tmp_path: Path) -> None:
    frames = [encoded([]), b"\xff" * 200]
    movie = open_eer(write_eer(tmp_path / "a.eer", frames), 1)
    movie.frame(0)
    with pytest.raises(FormatError, match="raw frame 2 of 2 cannot be decoded"):
        movie.frame(1)
    path = write_eer(tmp_path / "b.eer", [b"\xfe" * 6000], 65000)
    with pytest.raises(FormatError, match="raw frame 1 of 1 cannot be decoded"):
        open_eer(path, 1).frame(0)


@pytest.mark.parametrize(
    ("grouping", "sampling", "told"),
    [
        (None, 1, "3 raw frames and no of them in a frame; choose how many raw frames"),
        (0, 1, "3 raw frames and 0 of them"),
        (4, 1, "3 raw frames and 4 of them"),
        (1, 3, "sampling 3; choose 1, 2, 4"),
    ],
)
def test_what_does_not_suit_the_movie_is_refused(
    tmp_path: Path, grouping: int | None, sampling: int, told: str
) -> None:
    path = write_eer(tmp_path / "a.eer", [encoded([])] * 3)
    with pytest.raises(FormatError, match=told):
        open_movie(path, eer_fractions=grouping, eer_sampling=sampling)
    assert count_raw_frames(path) == 3


@pytest.mark.parametrize(
    ("dose", "of_frame", "expected"),
    [(3.0, 0.5, 40), (3.1, 0.45, 34), (3.0, 0.001, 1), (3.0, 9.0, 240), (0.0, 0.5, 240)],
)
def test_groups_come_nearest_to_a_dose(dose: float, of_frame: float, expected: int) -> None:
    assert raw_frames_for_dose(240, dose, of_frame) == expected


def test_doses_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"doses are 3 and 0 e/Å²"):
        raw_frames_for_dose(240, 3, 0)


def test_an_eer_movie_travels_by_pickle_without_its_electrons(tmp_path: Path) -> None:
    electrons = random_electrons(3000)
    path = write_eer(tmp_path / "a.eer", [encoded(electrons)] * 300)
    sent = pickle.dumps(open_eer(path, 300))
    assert len(sent) < 10_000
    np.testing.assert_array_equal(pickle.loads(sent).frame(0), 300 * rendered(electrons))
