import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfgp.minimise import Minimum, minimise


def run(f, start, low, high, budget=200, **options) -> Minimum:
    options = dict(tolerance=1e-12, max_move=2.0) | options
    start, low, high = (jnp.asarray(a, float) for a in (start, low, high))
    return jax.jit(lambda: minimise(jax.value_and_grad(f), start, low, high, jnp.asarray(budget, jnp.int32), **options))()


def test_a_quadratic_on_a_box_has_its_known_minimum() -> None:
    """Separable, so the minimum on the box is the unconstrained one clipped."""
    weight, centre = jnp.asarray([1.0, 30.0, 0.1, 5.0]), jnp.asarray([0.3, 2.0, -4.0, 0.5])
    end = run(lambda x: jnp.sum(weight * (x - centre) ** 2), [0.9, 0.1, 0.9, 0.0], [0, 0, 0, 0], [1, 1, 1, 1])
    np.testing.assert_allclose(end.x, [0.3, 1.0, 0.0, 0.5], atol=1e-6)


def test_rosenbrock_is_solved_in_a_box() -> None:
    end = run(lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2, [-1.2, 1.0], [-2, -2], [2, 2])
    np.testing.assert_allclose(end.x, [1, 1], atol=1e-4)
    assert int(end.evaluations) < 120


def test_the_search_backs_off_from_where_the_objective_is_not_finite() -> None:
    end = run(lambda x: jnp.where(x[0] > 0.2, -jnp.log(jnp.maximum(x[0] - 0.2, 0.0)) + 3 * x[0], jnp.nan), [0.9], [0], [1])
    assert end.x[0] == pytest.approx(0.2 + 1 / 3, abs=1e-4)


def test_a_start_without_a_finite_value_comes_back_with_value_inf() -> None:
    end = run(lambda x: jnp.sum(x) * jnp.nan, [0.4], [0], [1])
    assert end.x[0] == 0.4 and end.value == np.inf and end.evaluations == 1


def test_held_coordinates_do_not_move_and_a_budget_of_zero_means_no_evaluation() -> None:
    f = lambda x: jnp.sum((x - 0.7) ** 2)  # noqa: E731
    end = run(f, [0.1, 0.2], [0.1, 0], [0.1, 1])
    np.testing.assert_allclose(end.x, [0.1, 0.7], atol=1e-6)
    idle = run(f, [0.1, 0.2], [0, 0], [1, 1], budget=0)
    assert idle.evaluations == 0 and np.array_equal(idle.x, [0.1, 0.2])
    assert run(f, [0.1, 0.2], [0, 0], [1, 1], budget=2).evaluations == 2


def test_the_exact_inverse_hessian_as_preconditioner_gives_newtons_step() -> None:
    hessian = jnp.asarray([[400.0, 3.0], [3.0, 0.05]])
    f = lambda x: 0.5 * (x - 0.5) @ hessian @ (x - 0.5)  # noqa: E731
    end = run(f, [0.1, 0.9], [0, 0], [1, 1], precondition=lambda x: jnp.linalg.inv(hessian))
    np.testing.assert_allclose(end.x, 0.5, atol=1e-8)
    assert end.evaluations <= 4


def test_a_start_of_which_the_quadratic_model_promises_too_little_is_not_left() -> None:
    def f(x: jax.Array) -> jax.Array:
        return 50.0 * jnp.sum((x - 0.5) ** 2)

    options = dict(precondition=lambda x: jnp.eye(2) / 100.0, enough=lambda value: 0.02)
    near, far = (run(f, [0.5, 0.5 + distance], [0, 0], [1, 1], **options) for distance in (0.01, 0.1))
    assert near.evaluations == 1 and near.x[1] == 0.51  # .005 to be gained
    assert far.evaluations == 2  # .5 to be gained, by Newton's step
    np.testing.assert_allclose(far.x, 0.5, atol=1e-9)
