"""Patches: planted deformations come back, no deformation stays none, errors are what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from kernels.deformation import Deformation, displacements, seen_displacements, space_powers
from kernels.geometry import (
    View,
    image_matrix,
    project,
    raw_from_aligned,
    tilt_rotation,
    tilted,
)
from kernels.patch_align import align_patches
from kernels.patch_field import fit_field
from kernels.patch_rays import Column, Rays, dense_voxels, project_column, smear_bent
from kernels.patches import measure_patches, patch_grid
from kernels.tracks import Tracks

PIXEL = 12.0
SHAPE = (144, 144)
FIELD = SHAPE[0] * PIXEL
TILTS = tuple(float(t) for t in range(-57, 58, 6))
TIMES = [abs(t) / 57.0 for t in TILTS]


@cache
def balls() -> np.ndarray:
    return np.random.default_rng(3).uniform(-0.5, 0.5, (170, 3)) * (1.3 * FIELD, FIELD, 500)


def dome(height: float) -> Deformation:
    coefficients = np.zeros((3, len(space_powers(2)), 1))
    coefficients[2, :, 0] = height * np.array([0, 0, 1, 0.2, 0.8])
    coefficients[0, 0, 0] = 0.2 * height
    return Deformation(coefficients, FIELD / 2)


@cache
def series(height: float) -> tuple[tuple[View, ...], np.ndarray]:
    """True views and images of balls 75 Å wide in noise, which move as a dome rises."""
    rng = np.random.default_rng(4)
    views = tuple(View(t, 84.0, *rng.uniform(-40, 40, 2)) for t in TILTS)
    rows, columns = np.indices(SHAPE)
    images = 0.3 * rng.normal(size=(len(views), *SHAPE))
    for image, view, time in zip(images, views, TIMES, strict=True):
        moved = balls() + displacements(dome(height), balls(), time)
        for x, y in project(moved, view) / PIXEL + (SHAPE[1] // 2, SHAPE[0] // 2):
            if -5 < x < SHAPE[1] + 5 and -5 < y < SHAPE[0] + 5:
                image -= np.sqrt(np.maximum(0, 1 - ((rows - y) ** 2 + (columns - x) ** 2) / 10))
    return views, images.astype(np.float32)


def layout(count: int = 3) -> tuple[np.ndarray, tuple[float, float]]:
    field = 0.9 * FIELD
    return patch_grid((field, field), (count, count)), (field / count, field / count)


def test_true_views_leave_residuals_as_large_as_their_errors_say() -> None:
    views, images = series(0.0)
    centres, size = layout()
    found = measure_patches(images, views, PIXEL, [True] * len(views), centres, size, 800)
    assert len(found.tracks.view) > 0.95 * len(views) * len(centres)
    pull = found.residuals / found.tracks.sigma[:, None]
    assert 0.5 < np.sqrt(np.mean(pull**2)) < 1.6
    assert np.sqrt(np.mean(found.residuals**2)) < 0.1 * PIXEL


def test_a_moved_view_is_found_moved_in_every_patch() -> None:
    views, images = series(0.0)
    away = list(views)
    away[4] = replace(views[4], shift_x=views[4].shift_x + 20, shift_y=views[4].shift_y - 10)
    centres, size = layout()
    found = measure_patches(images, away, PIXEL, [True] * len(views), centres, size, 800)
    mine = found.tracks.view == 4
    seen = found.residuals[mine] @ image_matrix(views[4]).T
    np.testing.assert_allclose(np.median(seen, axis=0), (-20, 10), atol=2.5)


def test_a_planted_dome_is_recovered() -> None:
    views, images = series(60.0)
    centres, size = layout()
    used = [True] * len(views)
    found = align_patches(images, views, PIXEL, used, centres, size, 800, TIMES, FIELD / 2)
    assert found.deformation is not None
    end = displacements(found.deformation, centres, 1.0) - displacements(dome(60.0), centres, 1.0)
    planted = displacements(dome(60.0), centres, 1.0)
    error = np.sqrt(np.mean((end - end.mean(axis=0)) ** 2))
    assert error < 0.15 * np.sqrt(np.mean((planted - planted.mean(axis=0)) ** 2))
    # How sure it says to be, within a factor of 3.
    assert found.field is not None
    assert error < 3 * found.field.error


def test_without_deformation_none_is_found() -> None:
    views, images = series(0.0)
    centres, size = layout()
    used = [True] * len(views)
    found = align_patches(images, views, PIXEL, used, centres, size, 800, TIMES, FIELD / 2)
    assert found.deformation is None
    apart = [a.shift_x - b.shift_x for a, b in zip(found.views, views, strict=True)]
    assert np.std(apart) < 2.0


def test_the_result_is_the_same_on_two_threads() -> None:
    views, images = series(0.0)
    centres, size = layout()
    few = ([True] * len(views), centres, size, 600)
    one, two = (measure_patches(images, views, PIXEL, *few, threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one.tracks.xy, two.tracks.xy)


def test_patches_are_the_same_in_every_namespace(on: Callable[[Any], Any]) -> None:
    views, images = series(0.0)
    few = slice(3, 16, 2)
    rest = ([True] * len(views[few]), *layout(2), 600)
    expected = measure_patches(images[few], views[few], PIXEL, *rest)
    found = measure_patches(on(images[few]), views[few], PIXEL, *rest)
    np.testing.assert_array_equal(found.tracks.view, expected.tracks.view)
    np.testing.assert_allclose(found.tracks.xy, expected.tracks.xy, atol=0.05)


def test_empty_views_give_no_observations() -> None:
    views, _ = series(0.0)
    images = np.random.default_rng(5).normal(size=(len(views), *SHAPE)).astype(np.float32)
    centres, size = layout()
    used = [True] * len(views)
    found = align_patches(images, views, PIXEL, used, centres, size, 800, TIMES, FIELD / 2)
    assert len(found.patched.tracks.view) < 0.05 * len(views) * len(centres)
    assert found.deformation is None
    assert found.views == views


def planted_tracks(
    deformation: Deformation | None, noise: float, wrong: float = 0.0, seed: int = 6
) -> tuple[Tracks, list[View], np.ndarray]:
    rng = np.random.default_rng(seed)
    centres, _ = layout(4)
    points = np.column_stack([centres, rng.uniform(-200, 200, len(centres))])
    views = [View(t, 84.0, *rng.uniform(-40, 40, 2)) for t in TILTS]
    rows = []
    for i, (view, time) in enumerate(zip(views, TIMES, strict=True)):
        aligned = tilted(points, view)[:, :2]
        if deformation is not None:
            aligned = aligned + seen_displacements(deformation, points, time, view)
        raw = raw_from_aligned(aligned, view) + noise * rng.normal(size=(len(points), 2))
        raw[rng.random(len(points)) < wrong] += 100
        rows += [(i, j, *xy) for j, xy in enumerate(raw)]
    table = np.array(rows)
    tracks = Tracks(
        table[:, 0].astype(int),
        table[:, 1].astype(int),
        table[:, 2:],
        np.full(len(table), max(noise, 1e-3)),
        len(views),
        len(points),
    )
    return tracks, views, points


def test_a_field_without_noise_comes_back_exactly() -> None:
    tracks, views, points = planted_tracks(dome(80.0), 0.0)
    found = fit_field(tracks, views, points, TIMES, FIELD / 2)
    assert found.deformation is not None
    np.testing.assert_allclose(
        displacements(found.deformation, points, 1.0),
        displacements(dome(80.0), points, 1.0),
        atol=1,
    )


def test_noise_alone_is_no_field_and_its_size_is_told() -> None:
    tracks, views, points = planted_tracks(None, 2.0)
    found = fit_field(tracks, views, points, TIMES, FIELD / 2)
    assert found.deformation is None
    assert found.excess == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(("height", "kept"), [(2.0, False), (60.0, True)])
def test_a_field_that_patches_could_have_by_mistake_is_none(height: float, kept: bool) -> None:
    tracks, views, points = planted_tracks(dome(height), 0.05)
    assert fit_field(tracks, views, points, TIMES, FIELD / 2).deformation is not None
    found = fit_field(tracks, views, points, TIMES, FIELD / 2, least=0.5)
    assert (found.deformation is not None) == kept
    assert found.model.order == 0 or kept


def test_the_error_of_a_field_that_is_no_polynomial_is_told() -> None:
    def bump(places: np.ndarray) -> np.ndarray:
        away = np.hypot(places[:, 0] - 0.3 * FIELD, places[:, 1])
        return np.column_stack(
            [0 * away, 0 * away, 60 * np.exp(-0.5 * (away / (0.2 * FIELD)) ** 2)]
        )

    tracks, views, points = planted_tracks(None, 0.1)
    moves = [
        time * (bump(points) @ tilt_rotation(view)[:2].T) @ image_matrix(view).T
        for view, time in zip(views, TIMES, strict=True)
    ]
    moved = replace(tracks, xy=tracks.xy + np.array(moves)[tracks.view, tracks.point])
    found = fit_field(moved, views, points, TIMES, FIELD / 2)
    assert found.deformation is not None
    error = displacements(found.deformation, points, 1.0) - bump(points)
    error -= error.mean(axis=0)
    real = float(np.sqrt((error**2).sum(axis=1).mean()))
    assert real > 2  # a polynomial cannot follow
    assert real / 3 < found.error < 3 * real


@pytest.mark.parametrize("height", [0.0, 80.0])
def test_errors_of_shifts_are_as_large_as_the_shifts_are_off(height: float) -> None:
    off, told = [], []
    for seed in range(8):
        bent = dome(height) if height else None
        tracks, views, points = planted_tracks(bent, 2.0, seed=seed)
        found = fit_field(tracks, views, points, TIMES, FIELD / 2, variables=())
        assert (found.deformation is not None) == bool(height)
        raw = [
            (b.shift_x - a.shift_x, b.shift_y - a.shift_y)
            for a, b in zip(views, found.views, strict=True)
        ]
        matrices = np.stack([image_matrix(view) for view in views])
        seen = np.linalg.solve(matrices, np.array(raw)[..., None]).ravel()
        # The specimen as a whole may be anywhere.
        rows = np.stack([tilt_rotation(view)[:2] for view in views]).reshape(-1, 3)
        seen -= rows @ np.linalg.lstsq(rows, seen, rcond=None)[0]
        off.append(np.einsum("vab,vb->va", matrices, seen.reshape(-1, 2)))
        told.append(found.shift_errors)
    expected = np.sqrt(np.mean(np.square(told)))
    assert np.sqrt(np.mean(np.square(off))) == pytest.approx(expected, rel=0.2)
    if not height:
        assert expected == pytest.approx(2.0 / np.sqrt(16), rel=0.2)


def test_errors_of_shifts_grow_where_fewer_patches_are_seen() -> None:
    tracks, views, points = planted_tracks(None, 2.0)
    some = (tracks.view != 7) & ((tracks.view != 3) | (tracks.point < 4))
    less = tracks.chosen(some)
    found = fit_field(less, views, points, TIMES, FIELD / 2, variables=())
    assert np.isnan(found.shift_errors[7]).all()
    rest = np.delete(found.shift_errors, [3, 7], axis=0)
    assert np.isfinite(rest).all()
    assert np.hypot(*found.shift_errors[3]) > 1.4 * np.median(np.hypot(*rest.T))


def test_wrong_places_are_disregarded() -> None:
    tracks, views, points = planted_tracks(dome(80.0), 1.0, wrong=0.05)
    found = fit_field(tracks, views, points, TIMES, FIELD / 2)
    assert found.deformation is not None
    end = displacements(found.deformation, points, 1.0) - displacements(dome(80.0), points, 1.0)
    assert np.sqrt(np.mean(end**2)) < 6
    assert 0.02 < np.mean(found.weights < 0.1) < 0.1


def test_three_patches_are_refused() -> None:
    tracks, views, points = planted_tracks(None, 1.0)
    with pytest.raises(ValueError, match="3 patches are observed, at least 4"):
        fit_field(tracks.chosen(tracks.point < 3), views, points, TIMES, FIELD / 2)


def test_smearing_and_projecting_are_adjoint_and_own_share_is_taken_out() -> None:
    rng = np.random.default_rng(8)
    feature, other = rng.normal(size=(2, 30, 14)).astype(np.float32)
    dx, dy = rng.uniform(-1.5, 1.5, (2, 38, 14)).astype(np.float32)
    rays = Rays(33.0, dx, dy)
    whole = Column(0, 0, np.ones(38, np.float32), np.ones(14, np.float32))
    volume = np.zeros((9, 38, 14), np.float32)
    smear_bent(feature, rays, volume)
    alone = dense_voxels(volume, feature, rays, 1.0, 1e-5)
    assert not len(alone.value)
    none = np.zeros_like(feature)
    positive = np.abs(volume)
    image, centre = project_column(dense_voxels(positive, none, rays, 1.0, 0.0), whole, none.shape)
    smeared = np.zeros_like(volume)
    smear_bent(other, rays, smeared)
    assert np.vdot(image, other) == pytest.approx(np.vdot(positive, smeared), rel=1e-4)
    assert centre[3] == pytest.approx(image.sum(), rel=1e-4)
