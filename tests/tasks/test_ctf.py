from __future__ import annotations

import numpy as np
import pytest

from tasks.ctf import PROFILES
from tasks.store import Series, parse_project


@pytest.fixture
def done(finished_project: str) -> Series:
    return parse_project(finished_project).series("TS_01")


def test_spectra_and_profiles_are_there_for_the_views_that_are_kept(done: Series) -> None:
    result = done.current("main", "ctf")
    spectra, profiles = result.array("spectra"), result.array("profiles")
    box = spectra.shape[1]
    assert spectra.shape == (7, box, box // 2 + 1)
    assert spectra.chunks == (1, box, box // 2 + 1)
    assert (spectra[0] == 0).all()
    assert (spectra[1:].sum(axis=(1, 2)) > 0).all()
    assert profiles.shape[:2] == (7, len(PROFILES))
    assert np.isnan(profiles[0]).all()
    frequency = profiles[1:, PROFILES.index("frequency")]
    assert (np.diff(frequency, axis=1) > 0).all()
    assert frequency.max() <= 0.5 / 5.4 + 1e-6


def test_every_view_that_is_kept_has_an_estimate_and_no_other(done: Series) -> None:
    views = done.record("main").views
    assert views[0].ctf is None
    for view in views[1:]:
        assert view.ctf is not None
        assert 5000 <= view.ctf.defocus <= 60000
        assert -90 <= view.ctf.astigmatism_angle <= 90
        assert view.ctf.fit_resolution >= 2 * 5.4
        assert view.ctf.phase_shift == 0


def test_a_hand_that_so_few_views_cannot_tell_is_not_claimed(done: Series) -> None:
    about = done.current("main", "ctf").attributes()
    assert about["hand"]["hand"] in (0, 1)
    assert done.record("main").hand == (about["hand"]["hand"] or None)
    assert about["pixel_size"] == 5.4
