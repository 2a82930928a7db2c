import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.bundle import Solution, fitted_point, solve
from kernels.bundle_model import VARIABLES, Model, mixing, numbers_of, views_of
from kernels.bundle_select import left_out, select
from kernels.bundle_system import Local, State, derivatives, predicted
from kernels.deformation import Deformation, seen_displacements
from kernels.geometry import View, aligned_from_raw, fit_points, project, raw_from_aligned, tilted
from kernels.tracks import Tracks, joined

TILTS = np.arange(-60.0, 61, 6)


def series(rng, *, axis=0.05, magnification=1e-3, tilt=0.1, stretch=0.0, skew=0.0, shift=100.0):
    return [
        View(
            t + rng.normal(0, tilt),
            85.3 + rng.normal(0, axis),
            *rng.normal(0, shift, 2).tolist(),
            magnification=1 + rng.normal(0, magnification),
            stretch=1 + rng.normal(0, stretch) if stretch else 1.0,
            skew=rng.normal(0, skew) if skew else 0.0,
        )
        for t in TILTS
    ]


def nominal(views):
    return [View(float(t), 85.3, v.shift_x, v.shift_y) for t, v in zip(TILTS, views, strict=True)]


def points_of(rng, count=20):
    return rng.uniform(-1, 1, (count, 3)) * (2000, 2000, 700)


def tracks_of(rng, points, views, noise=0.0, seen=1.0, moved=None):
    view, point, xy = [], [], []
    for i, v in enumerate(views):
        flat = tilted(points, v)[:, :2] + (0 if moved is None else moved(i, v))
        for j, place in enumerate(raw_from_aligned(flat, v)):
            if rng.uniform() < seen:
                view.append(i)
                point.append(j)
                xy.append(place + rng.normal(0, noise, 2))
    m = len(view)
    sigma = np.full(m, noise or 0.1)
    return Tracks(
        np.array(view), np.array(point), np.array(xy).reshape(m, 2), sigma, len(views), len(points)
    )


def misfit(points, views, found):
    """Rms distance of true places from one rigid specimen, seen as the found views say [Å]."""
    raw = np.stack([project(points, v) for v in views])
    seen = np.ones(raw.shape[:2], bool)
    fitted = fit_points(raw, seen, found)
    apart = [
        aligned_from_raw(r, v) - tilted(fitted, v)[:, :2] for r, v in zip(raw, found, strict=True)
    ]
    return float(np.sqrt((np.array(apart) ** 2).sum(axis=-1).mean()))


def test_numbers_and_views_are_each_others_inverse():
    views = series(np.random.default_rng(1), stretch=0.01, skew=0.2)
    again = views_of(numbers_of(views), views)
    for view, other in zip(views, again, strict=True):
        assert vars(other) == pytest.approx(vars(view), rel=1e-12)


@pytest.mark.parametrize("local", [False, True])
def test_derivatives_are_those_of_differences(local):
    rng = np.random.default_rng(3)
    views = series(rng, stretch=0.02, skew=0.5)
    views = [View(**{**vars(v), "x_tilt": rng.normal(0, 2)}) for v in views]
    points = points_of(rng, 6)
    tracks = tracks_of(rng, points, views)
    bend = Local(2, 2, 2000.0, np.linspace(0, 1, len(views)), 30.0) if local else None
    size = bend.size if bend else 0
    state = State(numbers_of(views), points, rng.normal(0, 20, size))
    by_view, by_point, by_local = derivatives(state, tracks, bend)
    for k, step in enumerate([1e-6] * 6 + [1e-3] * 2):
        ahead, behind = state.numbers.copy(), state.numbers.copy()
        ahead[:, k] += step
        behind[:, k] -= step
        found = predicted(State(ahead, points, state.coefficients), tracks, bend)
        found = (found - predicted(State(behind, points, state.coefficients), tracks, bend)) / (
            2 * step
        )
        np.testing.assert_allclose(by_view[:, :, k], found, atol=1e-3)
    for k in range(3):
        shift = np.eye(3)[k] * 1e-2
        found = predicted(State(state.numbers, points + shift, state.coefficients), tracks, bend)
        found = found - predicted(
            State(state.numbers, points - shift, state.coefficients), tracks, bend
        )
        np.testing.assert_allclose(by_point[:, :, k], found / 2e-2, atol=2e-4)
    for k in range(size):
        change = np.eye(size)[k] * 1e-2
        found = predicted(State(state.numbers, points, state.coefficients + change), tracks, bend)
        found = found - predicted(
            State(state.numbers, points, state.coefficients - change), tracks, bend
        )
        np.testing.assert_allclose(by_local[:, :, k], found / 2e-2, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_without_noise_everything_is_recovered(seed):
    rng = np.random.default_rng(seed)
    views, points = series(rng), points_of(rng)
    tracks = tracks_of(rng, points, views, seen=0.8)
    solution = solve(tracks, nominal(views), Model("all", "all", "all"))
    assert np.nanmax(solution.lengths) < 1e-3
    assert misfit(points, views, solution.views) < 2e-3


def test_noise_of_a_third_of_a_pixel_leaves_axis_and_shifts_sharp():
    errors = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        views, points = series(rng, axis=0.0, magnification=0.0, tilt=0.0), points_of(rng, 25)
        tracks = tracks_of(rng, points, views, noise=0.3)
        solution = solve(tracks, nominal(views))
        assert abs(solution.views[0].axis - 85.3) < 0.02
        errors.append(misfit(points, views, solution.views))
    assert np.mean(errors) < 0.1


def test_stated_errors_are_the_real_ones():
    axis, magnification = [], []
    for seed in range(12):
        rng = np.random.default_rng(100 + seed)
        views, points = series(rng, tilt=0.0), points_of(rng, 25)
        tracks = tracks_of(rng, points, views, noise=0.5)
        solution = solve(tracks, nominal(views), Model("all", "all"), robust=False)
        off = np.array([s.axis - v.axis for s, v in zip(solution.views, views, strict=True)])
        axis.append(np.radians(off) / solution.errors[:, 0])
        ratio = np.array([s.magnification for s in solution.views])
        ratio /= [v.magnification for v in views]
        # The common magnification is a matter of the specimen's scale.
        magnification.append((ratio - ratio.mean()) / solution.errors[:, 1])
    assert np.std(axis) == pytest.approx(1, abs=0.12)
    assert np.std(magnification) == pytest.approx(1, abs=0.12)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_gross_outliers_hardly_change_the_residual_of_the_others(seed):
    rng = np.random.default_rng(seed)
    views, points = series(rng), points_of(rng, 25)
    tracks = tracks_of(rng, points, views, noise=1.0)
    bad = rng.uniform(size=len(tracks.view)) < 0.1
    xy = tracks.xy + np.where(bad[:, None], rng.uniform(-300, 300, tracks.xy.shape), 0)
    spoilt = Tracks(tracks.view, tracks.point, xy, tracks.sigma, tracks.n_views, tracks.n_points)
    model = Model("all", "all")
    alone = solve(tracks.chosen(~bad), nominal(views), model)
    among = solve(spoilt, nominal(views), model)
    # Good ones lose their say, too, and not the same: two standard errors of the mean of 470.
    assert among.lengths[~bad].mean() == pytest.approx(alone.lengths.mean(), rel=0.05)
    far = np.hypot(*(spoilt.xy - tracks.xy).T) > 12
    assert (among.weights[far] == 0).mean() > 0.97


def test_a_point_seen_twice_and_a_view_without_points_take_no_part():
    rng = np.random.default_rng(5)
    views, points = series(rng), points_of(rng)
    tracks = tracks_of(rng, points, views)
    kept = (tracks.view != 4) & ((tracks.point != 0) | (tracks.view < 2))
    start = nominal(views)
    solution = solve(tracks.chosen(kept), start)
    assert np.isnan(solution.points[0]).all()
    assert np.isnan(solution.lengths[tracks.chosen(kept).point == 0]).all()
    assert solution.views[4] == start[4]


def test_nothing_to_solve_is_refused():
    rng = np.random.default_rng(6)
    views = series(rng)
    tracks = tracks_of(rng, points_of(rng), views)
    with pytest.raises(ValueError, match="no point is seen"):
        solve(tracks.chosen(tracks.view < 2), views)
    with pytest.raises(ValueError, match="views for tracks"):
        solve(tracks, views[1:])


@pytest.mark.parametrize("mode", ["fixed", "one", "grouped", "all"])
@pytest.mark.parametrize("name", VARIABLES)
def test_groups_share_out_every_view(mode, name):
    views = nominal(series(np.random.default_rng(1)))
    used = [i != 3 for i in range(len(views))]
    mix, priors = mixing(Model(**{"rotation": "fixed", name: mode}), views, used)
    shares = mix.todense().reshape(len(views), 8, -1)[:, VARIABLES.index(name)]
    count = {"fixed": 0, "one": 1, "all": len(views) - 1}
    free = np.abs(shares).sum(axis=0) > 0
    if mode in count:
        assert free.sum() == count[mode]
    else:
        assert 2 <= free.sum() < len(views) / 2
    if mode != "fixed":
        np.testing.assert_allclose(shares.sum(axis=1)[used], 1)
    assert len(priors) == mix.shape[1]


def test_a_deformation_is_found_where_there_is_one_and_only_there():
    rng = np.random.default_rng(8)
    views, points = series(rng), points_of(rng, 60)
    times = np.linspace(0, 1, len(views))
    domed = Deformation(np.zeros((3, 5, 1)), 2000.0)
    domed.coefficients[2, 2, 0] = domed.coefficients[2, 4, 0] = -60.0

    def bend(i, view):
        return seen_displacements(domed, points, times[i], view)

    for moved in (None, bend):
        tracks = tracks_of(rng, points, views, noise=1.0, moved=moved)
        chosen = select(tracks, nominal(views), times=times, half_width=2000.0).solution
        assert (chosen.deformation is not None) == (moved is not None)
    found = chosen.deformation
    assert found is not None
    # Up to what shifts and rotations of the specimen do, the field is that planted.
    grid = np.stack(np.meshgrid(*[np.linspace(-1800, 1800, 7)] * 2), -1).reshape(-1, 2)
    design = np.column_stack([grid, np.ones(len(grid))])
    planted, measured = (
        seen_displacements(d, grid, 1.0, View(55.0, 85.3))[:, 0]
        - seen_displacements(d, grid, 1.0, View(0.0, 85.3))[:, 0] * np.cos(np.radians(55))
        for d in (domed, found)
    )
    apart = measured - planted
    apart -= design @ np.linalg.lstsq(design, apart, rcond=None)[0]
    assert np.sqrt((apart**2).mean()) < 5 < np.std(planted)


def test_free_variables_are_those_that_vary():
    rng = np.random.default_rng(9)
    still = series(rng, axis=0.0, magnification=0.0, tilt=0.0)
    points = points_of(rng, 25)
    plain = select(tracks_of(rng, points, still, noise=1.0), nominal(still)).solution.model
    assert plain == Model()
    moving = series(rng, axis=0.0, magnification=3e-3, tilt=0.0)
    chosen = select(tracks_of(rng, points, moving, noise=1.0), nominal(moving)).solution.model
    assert chosen.magnification == "all"
    assert chosen.stretch == chosen.skew == "fixed"


def test_left_out_points_are_predicted_as_well_as_the_noise_allows():
    rng = np.random.default_rng(10)
    views, points = series(rng, axis=0, magnification=0, tilt=0), points_of(rng, 25)
    tried = left_out(tracks_of(rng, points, views, noise=1.0), nominal(views), Model(), folds=25)
    expected = np.sqrt(np.pi / 2)  # mean length of a vector of two unit normal coordinates
    assert tried.score == pytest.approx(expected, rel=0.08)
    assert np.isfinite(tried.by_point).all()


def test_a_new_point_is_placed_from_the_views():
    rng = np.random.default_rng(11)
    views, points = series(rng), points_of(rng)
    tracks = tracks_of(rng, points, views)
    solution = solve(tracks, nominal(views), Model("all", "all", "all"))
    placed, residuals = fitted_point(tracks, solution)
    np.testing.assert_allclose(placed, solution.points, atol=1e-2)
    assert np.abs(residuals).max() < 1e-2
    assert isinstance(solution, Solution)


def test_tracks_are_joined_and_checked():
    rng = np.random.default_rng(12)
    views = series(rng)
    a, b = (tracks_of(rng, points_of(rng, n), views) for n in (3, 4))
    both = joined([a, b])
    assert both.n_points == 7
    assert (both.point[len(a.view) :] == b.point + 3).all()
    with pytest.raises(ValueError, match="not finite"):
        Tracks(a.view, a.point, a.xy * np.nan, a.sigma, a.n_views, a.n_points)
    with pytest.raises(ValueError, match="point index"):
        Tracks(a.view, a.point + 1, a.xy, a.sigma, a.n_views, a.n_points)
