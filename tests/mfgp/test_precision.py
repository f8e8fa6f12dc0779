"""Single precision against double: what may differ, and that nothing breaks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mfgp
from mfgp import query
from mfgp.compiler import compiled
from mfgp.posterior import condition, factorise, log_marginal_likelihood
from mfgp.precision import precision_of
from mfgp.problem import problem_of
from mfgp.suggest import compute
from tests.mfgp import reference
from tests.mfgp.test_collapsed import both_forms
from tests.mfgp.test_suggest import assert_sensible, problem

FAMILIES = ["matern", "matern_warped", "exp_decay", "freeze_thaw", "independent", "coregional"]
SINGLE, DOUBLE = (mfgp.exp_decay(precision=precision, restarts=1, escapes=0) for precision in ("float32", "float64"))


@pytest.mark.parametrize("name", FAMILIES)
def test_likelihood_mean_and_deviation_are_close_to_those_of_double_precision(name: str) -> None:
    rng = np.random.default_rng(0)
    x, u, y = reference.study(rng, 60)
    answers = []
    for precision in ("float32", "float64"):
        surrogate = getattr(mfgp, name)(precision=precision)
        with precision_of(surrogate):
            data, at = reference.data(x, u, y, 64), reference.inputs(rng.uniform(size=(20, 3)), np.full(20, 1.0), levels=reference.RUNGS)
            at = at._replace(x=jnp.asarray(np.random.default_rng(1).uniform(size=(20, 3))), level=jnp.full(20, 3))
            theta = surrogate.flatten({}, 3, reference.RUNGS, 4)

            def evaluate(theta, data, at, surrogate=surrogate):
                process = surrogate.unflatten(theta, data.inputs)
                return log_marginal_likelihood(process, data), *condition(process, data).predict(at)

            answers.append(compiled(static_argnames=())(evaluate)(theta, data, at))
    (value, mean, variance), (expected, expected_mean, expected_variance) = answers
    assert value.dtype == mean.dtype == np.float32 and expected.dtype == np.float64
    std = np.sqrt(expected_variance)
    assert abs(value - expected) < 0.05
    assert np.max(np.abs(mean - expected_mean) / std) < 0.01
    np.testing.assert_allclose(np.sqrt(variance), std, rtol=0.01)


def test_a_fit_and_a_choice_in_single_precision_are_nearly_as_good() -> None:
    arguments = problem(40, seed=6)
    single, double = (mfgp.suggest(surrogate, **arguments) for surrogate in (SINGLE, DOUBLE))
    assert_sensible(single)
    held = dict(warm=single.hyperparameters, refit=False)
    at_singles = mfgp.suggest(DOUBLE, **arguments, **held)
    assert at_singles.loss < double.loss + 0.1
    np.testing.assert_allclose(single.loss, at_singles.loss, atol=0.05)
    assert single.hyperparameters["noise"] >= 0.99e-4  # what single precision can tell
    there = arguments | dict(candidates=np.repeat(single.x[:1], 200, 0), free=np.zeros((200, 3), bool))
    assert mfgp.suggest(DOUBLE, **there, **held).acquisition[0] > at_singles.acquisition[0] - 0.02


def test_everything_that_computes_does_so_in_single_precision() -> None:
    arguments = problem(40)
    del arguments["num_fantasies"]
    with precision_of(SINGLE):
        result = compute(SINGLE, mfgp.ExpectedImprovement(), 5, problem_of(SINGLE, **arguments))
    assert {leaf.dtype for leaf in jax.tree.leaves(result)} <= {jnp.dtype("float32"), jnp.dtype("int32")}


def test_other_entries_take_single_precision_too() -> None:
    assert_sensible(mfgp.suggest(SINGLE, **problem(40, acquisition=mfgp.LowerConfidenceBound())))
    requests = [{name: value for name, value in problem(n).items() if name != "num_fantasies"} for n in (35, 40)]
    many = mfgp.suggest_many(SINGLE, requests, width=2, num_fantasies=5)
    for request, suggestion in zip(requests, many, strict=True):
        assert np.array_equal(suggestion.x, mfgp.suggest(SINGLE, **request, num_fantasies=5).x)
    p = problem(40)
    known = query.Known(p["x"], p["r"], p["y"], p["pending_x"][:0], p["pending_r"][:0], 4)
    warm, at = many[1].hyperparameters | {"noise": 1e-3}, np.full(200, p["r_acq"])
    single, double = (query.believe(surrogate, warm, (0, 0), known, p["candidates"], at) for surrogate in (SINGLE, DOUBLE))
    assert np.max(np.abs(single.mean - double.mean) / double.std) < 0.05


def test_many_epochs_collapse_in_single_precision() -> None:
    process, (dense, collapsed) = reference.processes(np.random.default_rng(0), 3)[1], both_forms()
    likelihood = compiled(static_argnames=())(log_marginal_likelihood)
    expected = likelihood(process, dense)
    with jax.enable_x64(False):
        single = jax.tree.map(lambda a: jnp.asarray(np.asarray(a)), (process, collapsed))
        value = likelihood(*single)
    assert value.dtype == np.float32
    np.testing.assert_allclose(value, expected, atol=0.1)


@pytest.mark.parametrize("case", ["duplicates", "constant", "huge", "tiny noise"])
def test_hostile_data_give_finite_answers(case: str) -> None:
    arguments = problem(40, seed=3)
    if case == "duplicates":
        arguments["x"] = np.repeat(arguments["x"][:1], 40, 0)
    y = {"constant": np.ones(40), "huge": 1e12 * arguments["y"]}
    arguments["y"] = y.get(case, arguments["y"])
    warm = mfgp.suggest(SINGLE, **arguments).hyperparameters
    assert_sensible(mfgp.suggest(SINGLE, **arguments, warm=warm | {"noise": 1e-9} if case == "tiny noise" else warm, refit=False))


def test_the_jitter_starts_where_the_precision_can_tell() -> None:
    with jax.enable_x64(False):
        factor = factorise(jnp.ones((8, 8), jnp.float32))
        assert factor.jitter.dtype == jnp.float32 and 1e-7 < factor.jitter < 1e-4 and np.all(np.isfinite(factor.chol))


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match=r"surrogate.precision=float16 must be one of float64, float32"):
        mfgp.matern(precision="float16")
