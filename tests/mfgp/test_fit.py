import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import mfgp
from mfgp.data import Data, thin
from mfgp.fit import APART, fit, inverse_information, loss_and_grad
from mfgp.problem import problem_of
from mfgp.surrogates import random_starts
from tests.mfgp import reference


def initial(surrogate: mfgp.Surrogate, d: int) -> np.ndarray:
    return surrogate.flatten({}, d, reference.RUNGS, 4)


@pytest.mark.parametrize("surrogate", [mfgp.matern(), mfgp.exp_decay()], ids=["matern", "exp_decay"])
def test_a_fit_ends_where_scipys_bounded_lbfgs_does_not_improve_it(surrogate: mfgp.Surrogate) -> None:
    low, high = surrogate.box(3, 4)
    objective = jax.jit(lambda t, data: loss_and_grad(surrogate, t, data))
    solve = jax.jit(lambda data, starts, budgets: fit(surrogate, data, starts, budgets))
    for seed in range(3):
        data = reference.data(*reference.study(np.random.default_rng(seed), 40), 64, reference.RUNGS)
        end = solve(data, jnp.asarray(initial(surrogate, 3))[None], jnp.asarray([200], jnp.int32))
        value, _ = objective(end.theta, data)
        assert float(value) == pytest.approx(float(end.loss), abs=1e-9)
        assert np.all(end.theta >= low) and np.all(end.theta <= high)
        both = lambda t, data=data: tuple(np.asarray(part, float) for part in objective(jnp.asarray(t), data))  # noqa: E731
        onward = minimize(both, np.asarray(end.theta), jac=True, method="L-BFGS-B", bounds=list(zip(low, high, strict=True)))
        assert float(end.loss) - onward.fun < 0.1


def test_the_best_start_wins_and_a_start_without_budget_is_left_out() -> None:
    surrogate = mfgp.matern()
    data = reference.data(*reference.study(np.random.default_rng(1), 30), 32, reference.RUNGS)
    first = jnp.asarray(initial(surrogate, 3))
    starts = jnp.stack([first, first + 0.5, first - 0.5])
    solve = jax.jit(lambda budgets: fit(surrogate, data, starts, budgets))
    alone = [solve(jnp.asarray(np.eye(3, dtype=np.int32)[i] * 15, jnp.int32)) for i in range(3)]
    together = solve(jnp.full(3, 15, jnp.int32))
    assert float(together.loss) == min(float(one.loss) for one in alone)
    assert int(together.evaluations) == sum(int(one.evaluations) for one in alone)
    idle = solve(jnp.zeros(3, jnp.int32))
    assert np.array_equal(idle.theta, first) and idle.loss == np.inf and idle.evaluations == 0


def test_a_refit_ends_sooner_than_a_fit_without_warm_start_and_hardly_higher() -> None:
    surrogate = mfgp.exp_decay()
    data = reference.data(*reference.study(np.random.default_rng(2), 40), 64, reference.RUNGS)
    first = jnp.asarray(initial(surrogate, 3))
    solve = jax.jit(lambda starts, budgets, warm: fit(surrogate, data, starts, budgets, warm=warm), static_argnums=2)
    cold = solve(jnp.stack([first, first]), jnp.asarray([0, 200]), True)  # nothing to go on from
    same = solve(jnp.stack([first, first]), jnp.asarray([0, 200]), False)
    assert (float(cold.loss), int(cold.evaluations)) == (float(same.loss), int(same.evaluations))
    starts, budgets = jnp.stack([cold.theta, first, first]), jnp.asarray([200, 0, 200])
    refit, searched = solve(starts, budgets, True), solve(starts, budgets, False)
    assert refit.evaluations < searched.evaluations
    assert float(refit.loss) <= float(cold.loss) and float(refit.loss) < float(searched.loss) + 0.1


def test_the_second_best_optimum_is_kept_and_takes_over_when_it_is_the_better_one() -> None:
    surrogate = mfgp.exp_decay()
    data = reference.data(*reference.study(np.random.default_rng(4), 40), 64, reference.RUNGS)
    low, high = (jnp.asarray(side) for side in surrogate.box(3, data.inputs.levels.shape[0]))
    starts = random_starts(jax.random.key(0), jnp.asarray(initial(surrogate, 3)), low, high, 8)
    solve = jax.jit(lambda starts, budgets, warm: fit(surrogate, data, starts, budgets, warm=warm), static_argnums=2)
    ends = sorted((solve(start[None], jnp.asarray([200]), False) for start in starts), key=lambda end: float(end.loss))
    best, other = ends[0], next(end for end in ends if end.loss > ends[0].loss + APART)
    assert np.isnan(best.runner_up).all()
    together = solve(starts, jnp.full(8, 200), False)
    assert float(together.loss) == float(best.loss)
    np.testing.assert_allclose(together.runner_up, other.theta, atol=1e-6)
    for order in ([best, other], [other, best]):
        again = solve(jnp.stack([end.theta for end in order]), jnp.asarray([60, 60]), True)
        assert float(again.loss) == pytest.approx(float(best.loss), abs=0.02) and int(again.evaluations) < 20
        assert float(loss_and_grad(surrogate, again.runner_up, data)[0]) == pytest.approx(float(other.loss), abs=0.02)
        assert float(again.gain) == pytest.approx(float(other.loss - best.loss) if order[0] is other else 0, abs=0.04)


def test_the_preconditioner_is_the_inverse_expected_hessian() -> None:
    """With few rows the subset is all of them: the expectation of the observed information over draws of the targets."""
    surrogate = mfgp.exp_decay()
    rng = np.random.default_rng(2)
    x, u, _ = reference.study(rng, 12, 2)
    theta = jnp.asarray(initial(surrogate, 2)).at[-1].set(np.log(0.1))
    points = reference.inputs(x, u, 16)
    process = surrogate.unflatten(theta, points)
    covariance = process.cov(points, points)[:12, :12] + process.noise * jnp.eye(12)
    targets = np.asarray(process.mean(points)[:12]) + rng.normal(size=(4000, 12)) @ np.linalg.cholesky(covariance).T

    def score(y: jax.Array) -> jax.Array:
        from mfgp.posterior import log_marginal_likelihood_and_grad

        data = reference.Data(points, jnp.concatenate([y, jnp.zeros(4)]))
        return log_marginal_likelihood_and_grad(lambda t: surrogate.unflatten(t, points), theta, data)[1]

    scores = np.asarray(jax.lax.map(score, jnp.asarray(targets)))
    information = np.linalg.inv(np.asarray(inverse_information(surrogate, theta, reference.data(x, u, targets[0], 16))))
    expected = scores.T @ scores / len(scores) + 0.3 * np.eye(len(theta))
    np.testing.assert_allclose(information, expected, atol=0.1 * np.max(np.abs(expected)))


def test_learned_hyperparameters_predict_new_curves_better_than_the_initial_ones() -> None:
    surrogate = mfgp.exp_decay()
    rng = np.random.default_rng(5)
    x, u, y = reference.study(rng, 120)
    space = mfgp.Space(kind=np.zeros(3), log=np.zeros(3), low=np.zeros(3), high=np.ones(3))
    problem = problem_of(
        surrogate,
        seed=(0, 0),
        x=x[:100],
        r=u[:100],
        y=y[:100],
        pending_x=np.zeros((0, 3)),
        pending_r=np.zeros(0),
        r_acq=reference.RUNGS[3],
        candidates=x[:1],
        free=np.ones((1, 3), bool),
        space=space,
    )
    problem = jax.tree.map(jnp.asarray, problem)
    end = jax.jit(lambda data, starts: fit(surrogate, data, starts, jnp.asarray([60], jnp.int32)))(problem.data, problem.first)
    from mfgp.posterior import condition, predict

    query = reference.inputs(x[100:], u[100:], levels=np.asarray(problem.data.inputs.levels))
    z = (y[100:] - y[:100].mean()) / y[:100].std()

    def score(theta: jax.Array) -> float:
        process = surrogate.unflatten(theta, query)
        mean, variance = predict(condition(process, problem.data), query)
        variance = variance + process.noise
        return float(jnp.mean(-0.5 * (z - mean[0]) ** 2 / variance - 0.5 * jnp.log(variance)))

    assert score(end.theta) > score(problem.first[0]) + 0.2


@pytest.mark.parametrize(("coordinates", "rows"), [(3, 170), (258, 30), (600, 16)])
def test_the_preconditioner_sees_fewer_rows_of_many_hyperparameters(monkeypatch: pytest.MonkeyPatch, coordinates: int, rows: int) -> None:
    seen: list[int] = []

    def watched(data: Data, size: int) -> Data:
        seen.append(size)
        return thin(data, size)

    monkeypatch.setattr("mfgp.fit.thin", watched)
    x, u = np.random.default_rng(0).random((512, coordinates)), np.full(512, reference.RUNGS[0])
    data, surrogate = reference.data(x, u, u, 512, reference.RUNGS), mfgp.exp_decay()
    theta = initial(surrogate, coordinates)
    jax.eval_shape(lambda t: inverse_information(surrogate, t, data), theta)
    assert seen == [rows]
