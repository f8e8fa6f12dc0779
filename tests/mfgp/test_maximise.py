import jax
import jax.numpy as jnp
import numpy as np

from mfgp import acquisition, maximise, posterior
from mfgp.data import at_level
from mfgp.maximise import Grid
from tests.mfgp import reference
from tests.mfgp.test_acquisition import fantasies


def grid_of(integer: list, log: list, low: list, high: list, group: list | None = None) -> Grid:
    """A grid of plain lists; without categories if no group is given."""
    numbers = (jnp.asarray(end, float) for end in (low, high))
    return Grid(jnp.asarray(integer, bool), jnp.asarray(log, bool), *numbers, jnp.asarray(group or [-1] * len(low), jnp.int32))


def test_neighbours_are_one_integer_or_one_category_away() -> None:
    #    integer 2..5, float, one of three, one of two, held
    grid = grid_of([1, 0, 0, 0, 0, 0, 0], [0] * 7, [2, 0, 0, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0, 0], [-1, -1, 7, 7, 7, 3, 1])
    x = jnp.asarray([0.125, 0.4, 0.0, 1.0, 0.0, 0.25, 0.75])  # 2, 0.4, the second, the first
    moves = jnp.asarray([True] * 6 + [False])
    got = {tuple(np.round(row, 6)) for row in np.asarray(maximise.neighbours(x, moves, grid))}
    rest = (0.25, 0.75)
    expected = {
        (0.125, 0.4, 0, 1, 0, *rest),  # itself, where nothing moves
        (0.375, 0.4, 0, 1, 0, *rest),  # 3
        (0.125, 0.4, 1, 0, 0, *rest),
        (0.125, 0.4, 0, 0, 1, *rest),
        (0.125, 0.4, 0, 1, 0, 0.75, 0.75),
    }
    assert got == expected


def test_climbing_over_neighbours_reaches_what_the_screen_did_not_contain() -> None:
    """A separable score over 6 categories of 4: each candidate is wrong in two, and two rounds of moves mend both."""
    rng = np.random.default_rng(0)
    best = rng.integers(0, 4, 6)
    weight = jnp.asarray(np.eye(4)[best].ravel())
    wrong = np.tile(best, (40, 1))
    for row in wrong:
        places = rng.choice(6, 2, replace=False)
        row[places] = (row[places] + rng.integers(1, 4, 2)) % 4
    candidates = jnp.asarray(np.eye(4)[wrong].reshape(40, -1))
    grid = grid_of([0] * 24, [0] * 24, [0] * 24, [0] * 24, list(np.repeat(range(6), 4)))
    for free, reached in ((True, 6.0), (False, 4.0)):
        end = maximise.maximise(lambda x: x @ weight, candidates, jnp.full(candidates.shape, free), grid, 16)
        assert float(end.acquisition[0]) == reached


def test_projection_moves_integers_to_the_encoding_of_the_nearest_and_nothing_else() -> None:
    grid = grid_of([0, 1, 1], [0, 0, 1], [0, 2, 1], [0, 5, 8])
    got = maximise.project(jnp.asarray([[0.37, 0.99, 0.0], [1.0, 0.26, 1.0], [0.0, 0.0, 0.7]]), grid)
    linear = lambda k: (k - 1.5) / 4  # noqa: E731
    log = lambda k: np.log(k / 0.5) / np.log(8.5 / 0.5)  # noqa: E731
    third = round(0.5 * 17**0.7)
    np.testing.assert_allclose(got, [[0.37, linear(5), log(1)], [1.0, linear(3), log(8)], [0.0, linear(2), log(third)]], atol=1e-12)
    np.testing.assert_allclose(maximise.project(got, grid), got, atol=1e-12)


def test_refinement_improves_on_the_screen_and_respects_what_is_free() -> None:
    rng = np.random.default_rng(4)
    *_, post = fantasies(rng)
    grid = grid_of([0, 1, 0], [0, 0, 0], [0, 1, 0], [0, 4, 0])
    candidates = np.column_stack([rng.uniform(size=300), rng.integers(0, 4, 300) / 4 + 0.125, rng.integers(0, 2, 300)])
    free = np.tile([True, True, False], (300, 1))
    best = acquisition.incumbent(post, jnp.asarray(3))

    def score(x: jax.Array) -> jax.Array:
        query = at_level(x, jnp.asarray(3, jnp.int32), post.inputs)
        return acquisition.log_expected_improvement(post, best, jnp.asarray(0.01), query)

    chosen = jax.jit(lambda free: maximise.maximise(score, jnp.asarray(candidates), free, grid, 64))
    held, moved = chosen(np.zeros_like(free)), chosen(free)
    assert moved.acquisition[0] > held.acquisition[0]
    rows = {tuple(row) for row in candidates}
    assert {tuple(row) for row in np.asarray(held.x)} <= rows
    assert np.all(np.isin(np.round(np.asarray(moved.x)[:, 1] - 0.125, 9), [0, 0.25, 0.5, 0.75]))
    assert np.all(np.isin(np.asarray(moved.x)[:, 2], [0, 1]))
    assert np.all(np.diff(moved.acquisition) <= 0)
    np.testing.assert_allclose(moved.acquisition, score(moved.x), rtol=1e-9, atol=1e-9)


def test_repeated_candidates_are_returned_once_before_others() -> None:
    rng = np.random.default_rng(6)
    rows = rng.uniform(size=(5, 2))
    candidates = jnp.asarray(np.concatenate([rows, rows, rows[:2]]))
    grid = grid_of([0, 0], [0, 0], [0, 0], [0, 0])
    end = maximise.maximise(lambda x: -x[:, 0], candidates, jnp.zeros(candidates.shape, bool), grid, 10)
    finite = np.asarray(end.x)[np.isfinite(end.acquisition)]
    expected = rows[np.argsort(rows[:, 0])]
    np.testing.assert_array_equal(np.unique(finite, axis=0), np.unique(expected, axis=0))
    np.testing.assert_array_equal(finite[0], expected[0])


def test_thompson_draws_choose_in_proportion_to_the_probability_of_being_best() -> None:
    rng = np.random.default_rng(7)
    process, (x, u, y) = reference.processes(rng, 3)[1], reference.study(rng, 10)
    post = posterior.condition(process, reference.data(x, u, y, 16, reference.RUNGS))
    rows, level = jnp.asarray(rng.uniform(size=(4, 3))), jnp.asarray(3, jnp.int32)
    first = jax.jit(jax.vmap(lambda key: jnp.argmax(jnp.all(rows == maximise.thompson(key, post, level, rows, 4, 512).x[0], axis=1))))
    chosen = np.bincount(np.asarray(first(jax.random.split(jax.random.key(0), 4000))), minlength=4) / 4000
    mean, covariance = posterior.predict_joint(post, at_level(rows, level, post.inputs))
    draws = rng.multivariate_normal(np.asarray(mean[0]), np.asarray(covariance), size=100_000)
    best = np.bincount(np.argmin(draws, axis=1), minlength=4) / 100_000
    np.testing.assert_allclose(chosen, best, atol=0.04)


def test_a_screen_decides_which_of_many_candidates_are_scored() -> None:
    """The score's best is found if the screen is any likeness of it, and is not if the screen leaves it out."""
    rng = np.random.default_rng(5)
    candidates = jnp.asarray(rng.uniform(size=(4 * maximise.SHORTLIST + 3, 2)))
    held, grid = jnp.zeros(candidates.shape, bool), grid_of([0, 0], [0, 0], [0, 0], [0, 0])

    def score(x: jax.Array) -> jax.Array:
        return -jnp.abs(x[:, 0] - 0.37)

    plain = maximise.maximise(score, candidates, held, grid, 8)
    likeness = maximise.maximise(score, candidates, held, grid, 8, lambda x: 3.0 * score(x) + 0.01 * jnp.sin(50 * x[:, 1]))
    np.testing.assert_array_equal(likeness.x, plain.x)
    opposite = maximise.maximise(score, candidates, held, grid, 8, lambda x: -score(x))
    assert opposite.acquisition[0] < plain.acquisition[-1]
