"""The iterative form against dense algebra, and the choice of a form by size."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mfgp
from mfgp import iterative, large, posterior
from mfgp.compiler import compiled
from mfgp.data import Data, Inputs
from tests.mfgp import reference
from tests.mfgp.test_suggest import SURROGATE, assert_sensible, problem

FAMILIES = ["matern", "exp_decay", "matern_warped", "freeze_thaw", "independent", "coregional", "warped_inputs"]


def history(rng: np.random.Generator, configs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Curves of which a third passes each rung."""
    x, last = rng.uniform(size=(configs, 3)), np.minimum(rng.geometric(2 / 3, configs), 4)
    level, config = (a.ravel() for a in np.meshgrid(np.arange(4), np.arange(configs), indexing="ij"))
    seen = level < last[config]
    x, u = x[config[seen]], reference.RUNGS[level[seen]]
    return x, u, np.sin(4 * x[:, 0]) + np.exp(-3 * u) * (1 + 0.3 * x[:, 2]) + 0.2 * rng.normal(size=len(x))


def rows_of(x: np.ndarray, u: np.ndarray, y: np.ndarray, rows: int) -> large.Rows:
    return jax.tree.map(jnp.asarray, large.rows_of(reference.data(x, u, y, rows, levels=reference.RUNGS), (0, 0)))


@pytest.mark.parametrize("family", range(len(FAMILIES)), ids=FAMILIES)
def test_products_equal_those_with_the_whole_covariance(family: int) -> None:
    rng = np.random.default_rng(family)
    x, u, y = history(rng, 40)
    process, rows = reference.processes(rng, 3)[family], rows_of(x, u, y, 80)
    p, v = reference.as_numpy(process), rng.normal(size=(80, 3))
    got = jax.jit(iterative.gram_times)(process, rows, v)
    expected = (reference.cov(p, x, u, x, u) + p.noise * np.eye(len(y))) @ v[: len(y)]
    np.testing.assert_allclose(got[: len(y)], expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(got[len(y) :], v[len(y) :])
    z, at = np.concatenate([x[:5], rng.uniform(size=(70, 3))]), rng.choice(reference.RUNGS, 75)
    for m in (20, 75):  # at once, and in tiles
        query = reference.inputs(z[:m], at[:m], levels=reference.RUNGS)
        inside = v * (np.arange(80) < len(y))[:, None]
        got = jax.jit(iterative.cross_times)(process, query, rows, inside)
        np.testing.assert_allclose(got, reference.cov(p, z[:m], at[:m], x, u) @ v[: len(y)], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", [0, 1, 3], ids=lambda family: FAMILIES[family])
def test_the_posterior_is_the_dense_one_fantasies_included(family: int) -> None:
    rng = np.random.default_rng(10 + family)
    x, u, y = history(rng, 150)
    process, rows = reference.processes(rng, 3)[family], rows_of(x, u, y, 320)
    pending = reference.inputs(rng.uniform(size=(3, 3)), reference.RUNGS[[0, 1, 3]], 4, reference.RUNGS)
    points = np.concatenate([x[:3], pending.x[:3], rng.uniform(size=(6, 3))])
    query = reference.inputs(points, np.full(12, reference.RUNGS[2]), levels=reference.RUNGS)

    @compiled(static_argnames=())
    def iterated(process: Any, rows: Any) -> Any:
        post = iterative.condition(jax.random.key(7), process, rows, pending, 6)
        exact, left = iterative.at(post, query)
        return post.predict(query), exact, post.relative_residual, left

    @compiled(static_argnames=())
    def dense(process: Any, data: Any) -> Any:
        return posterior.fantasise(jax.random.key(7), posterior.condition(process, data), pending, 6).predict(query)

    (mean, _), exact, *residuals = iterated(process, rows)
    expected, variance = dense(process, rows.data)
    std = np.sqrt(variance)
    assert np.max(np.ptp(expected, axis=0) / std) > 0.1  # fantasies differ
    assert max(residuals) <= 1e-3
    assert np.max(np.abs(mean - expected) / std) < 0.05
    np.testing.assert_array_equal(mean, exact.mean)
    np.testing.assert_allclose(exact.variance, variance, rtol=0.01)


def test_with_every_row_a_landmark_the_sparse_variance_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "num_landmarks", lambda rows: rows)
    rng = np.random.default_rng(3)
    x, u, y = history(rng, 40)
    process, rows = reference.processes(rng, 3)[0], rows_of(x, u, y, 80)
    nobody, query = (reference.inputs(x[:n], u[:n], m, reference.RUNGS) for n, m in ((0, 2), (10, 10)))
    got = compiled(static_argnames=())(lambda: iterative.condition(jax.random.key(0), process, rows, nobody, 1).predict(query))()
    mean, variance = posterior.condition(process, rows.data).predict(query)
    np.testing.assert_allclose(got[0], mean, rtol=1e-3)
    np.testing.assert_allclose(got[1], variance, rtol=1e-6)


def test_the_reported_residual_is_that_of_the_solution() -> None:
    rng = np.random.default_rng(2)
    x, u, y = history(rng, 40)
    process, rows = reference.processes(rng, 3)[1], rows_of(x, u, y, 80)
    p, right = reference.as_numpy(process), np.zeros((80, 2))
    right[: len(y)] = rng.normal(size=(len(y), 2))
    for tolerance in (1e-2, 1e-6):
        solved, left = jax.jit(lambda b, t=tolerance: iterative.solve(process, rows, iterative.sparse(process, rows), b, t))(right)
        covariance = reference.cov(p, x, u, x, u) + p.noise * np.eye(len(y))
        true = np.linalg.norm(right[: len(y)] - covariance @ solved[: len(y)], axis=0) / np.linalg.norm(right, axis=0)
        np.testing.assert_allclose(left, np.max(true), rtol=1e-3)
        assert left <= 1.1 * tolerance


def test_landmarks_take_each_configuration_before_any_twice() -> None:
    x, u, y = history(np.random.default_rng(0), 30)
    rows = large.rows_of(reference.data(x, u, y, 64, levels=reference.RUNGS), (0, 3))
    first = np.asarray(rows.config)[rows.landmarks][:30]
    assert len(np.unique(rows.landmarks)) == len(rows.landmarks) == 32 and len(np.unique(first)) == 30
    np.testing.assert_array_equal(np.asarray(rows.configs)[rows.config[: len(y)]], x)


@pytest.mark.parametrize("surrogate", [mfgp.matern(), mfgp.exp_decay()], ids=["matern", "exp_decay"])
def test_a_sample_has_whole_configurations(surrogate: mfgp.Surrogate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "FIT_ROWS", 64)
    x, u, y = history(np.random.default_rng(1), 200)
    data = reference.data(x, u, y, 512, levels=reference.RUNGS)
    samples = [large.sample(surrogate, data, 1, seed) for seed in ((0, 1), (0, 1), (0, 2))]
    for part in samples:
        mask = np.asarray(part.inputs.mask)
        of_sample, counts = np.unique(np.asarray(part.inputs.x)[mask], axis=0, return_counts=True)
        everything, all_counts = np.unique(x, axis=0, return_counts=True)
        chosen = [int(np.flatnonzero(np.all(everything == row, axis=1))[0]) for row in of_sample]
        assert 60 < mask.sum() <= 64
        np.testing.assert_array_equal(counts, all_counts[chosen])
    assert np.array_equal(samples[0].y, samples[1].y) and not np.array_equal(samples[0].y, samples[2].y)


def shrink(monkeypatch: pytest.MonkeyPatch, fit_rows: int, dense_rows: int) -> None:
    for module in (large, sys.modules["mfgp.suggest"]):  # mfgp.suggest itself is the function
        monkeypatch.setattr(module, "FIT_ROWS", fit_rows)
    monkeypatch.setattr(large, "DENSE_ROWS", dense_rows)


def test_draws_of_hyperparameters_stay_as_they_are_beyond_the_rows_of_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch, 64, 512)
    surrogate = mfgp.exp_decay(mcmc=mfgp.SliceSampling(draws=2, warmup=1, thin=1))
    arguments = problem(100, seed=4)
    levels = np.unique(arguments["r"])
    best = surrogate.readable(surrogate.flatten({}, 3, levels, 8), 3, levels, 8)
    warm = best | {"draws": [best | {"noise": 0.05}, best | {"noise": 0.02}]}
    got = mfgp.suggest(surrogate, **arguments, warm=warm, refit=False)
    assert [one["noise"] for one in got.hyperparameters["draws"]] == pytest.approx([0.05, 0.02], rel=1e-9)


def test_an_iterative_suggestion_is_as_good_as_the_dense_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    arguments = problem(300, seed=4) | dict(free=np.zeros((200, 3), bool))
    arguments["y"] = arguments["y"] + 0.1 * rng.normal(size=300)
    levels = np.unique(arguments["r"])
    warm = SURROGATE.readable(SURROGATE.flatten({}, 3, levels, 8), 3, levels, 8) | {"noise": 0.05}
    held: dict[str, Any] = dict(warm=warm, refit=False)
    dense = mfgp.suggest(SURROGATE, **arguments, **held)
    shrink(monkeypatch, 64, 128)
    got, again = (mfgp.suggest(SURROGATE, **arguments, **held) for _ in range(2))
    assert_sensible(got)
    assert got.form.startswith("iterative: 300 observations, relative residual") and got.form in got.fallback
    assert np.array_equal(got.x, again.x) and np.array_equal(got.acquisition, again.acquisition)
    of_dense = {tuple(row): value for row, value in zip(dense.x, dense.acquisition, strict=True)}
    np.testing.assert_allclose(got.acquisition[:5], [of_dense[tuple(row)] for row in got.x[:5]], atol=0.05)
    assert of_dense[tuple(got.x[0])] > dense.acquisition[0] - 0.05


def test_beyond_a_size_the_fit_sees_a_sample_and_the_posterior_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch, 64, 512)
    arguments = problem(300, seed=5)
    fitted = mfgp.suggest(SURROGATE, **arguments)
    assert_sensible(fitted)
    assert fitted.refitted and "fitted to" in fitted.fallback and "of 300 observations" in fitted.fallback
    assert fitted.form == "dense: 300 rows" and fitted.evaluations > 0
    held: dict[str, Any] = dict(warm=fitted.hyperparameters, refit=False)
    shrink(monkeypatch, 512, 512)
    np.testing.assert_allclose(fitted.acquisition, mfgp.suggest(SURROGATE, **arguments, **held).acquisition, rtol=1e-7, atol=1e-7)


def test_what_needs_dense_algebra_gets_it_or_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Data(Inputs(np.zeros((256, 1)), np.zeros(256, int), np.zeros(8), np.ones(256, bool)), np.zeros(256))  # type: ignore[arg-type]
    shrink(monkeypatch, 64, 128)
    assert large.plan(mfgp.matern(), mfgp.ExpectedImprovement(), data) == (True, "")
    iterated, note = large.plan(mfgp.matern(), mfgp.Thompson(), data)
    assert not iterated and "acquisition=thompson needs dense algebra" in note
    monkeypatch.setattr(large, "MOST_DENSE_ROWS", 200)
    with pytest.raises(ValueError, match="surrogate.mcmc needs dense algebra, valid up to 200 rows of observations; there are 256"):
        large.plan(mfgp.matern(mcmc=mfgp.Nuts()), mfgp.ExpectedImprovement(), data)
