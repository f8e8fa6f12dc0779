import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mfgp
from mfgp.data import bucket
from mfgp.problem import problem_of
from mfgp.suggest import compute
from mfgp.surrogates import alone
from tests.mfgp import reference


def make_space(**columns: Any) -> mfgp.Space:
    return mfgp.Space(**{name: np.asarray(column) for name, column in columns.items()})


SPACE = make_space(kind=[0, 1, 2], log=[False, True, False], low=[0, 1, 0], high=[0, 8, 0])
SURROGATE = mfgp.exp_decay(restarts=1, max_evaluations=15)


def valid(rng: np.random.Generator, m: int) -> np.ndarray:
    integers = np.log(rng.integers(1, 9, m) / 0.5) / np.log(17)
    return np.column_stack([rng.uniform(size=m), integers, rng.integers(0, 2, m).astype(float)])


def problem(n: int, p: int = 2, seed: int = 0, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x, u = valid(rng, n), rng.choice(reference.RUNGS, n)
    y = (x[:, 0] - 0.3) ** 2 + 0.2 * x[:, 2] + np.exp(-3 * u) + 0.01 * rng.normal(size=n)
    arguments: dict[str, Any] = dict(
        seed=(1, 2),
        x=x,
        r=u,
        y=y,
        pending_x=valid(rng, p),
        pending_r=rng.choice(reference.RUNGS, p),
        r_acq=float(u.max()),
        candidates=valid(rng, 200),
        free=np.ones((200, 3), bool),
        space=SPACE,
        num_fantasies=5,
        pending_size=4,
    )
    return arguments | changes


def assert_sensible(s: mfgp.Suggestion) -> None:
    assert len(s.x) and np.all(np.isfinite(s.x)) and np.all((s.x >= 0) & (s.x <= 1))
    assert np.all(np.isfinite(s.acquisition)) and np.all(np.diff(s.acquisition) <= 0)
    assert np.isfinite(s.loss)
    json.dumps(s.hyperparameters, allow_nan=False)
    integers = 0.5 * 17 ** s.x[:, 1]
    np.testing.assert_allclose(integers, np.round(integers), atol=1e-9)
    assert np.all(np.isin(s.x[:, 2], [0, 1]))
    assert len(np.unique(s.x, axis=0)) == len(s.x)


def test_the_same_arguments_give_the_same_bits_and_another_trial_other_draws() -> None:
    a, b, c = (mfgp.suggest(SURROGATE, **problem(12, seed=3) | dict(seed=s)) for s in ((1, 2), (1, 2), (1, 3)))
    assert_sensible(a)
    assert np.array_equal(a.x, b.x) and np.array_equal(a.acquisition, b.acquisition) and a.hyperparameters == b.hyperparameters
    assert not np.array_equal(a.acquisition, c.acquisition)


def test_the_padded_size_of_pending_evaluations_does_not_matter() -> None:
    a, b = (mfgp.suggest(SURROGATE, **problem(12, pending_size=size)) for size in (2, 6))
    np.testing.assert_allclose(a.acquisition, b.acquisition, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(a.x[0], b.x[0], atol=1e-4)


def test_32_sizes_take_two_compilations() -> None:
    arguments = dict(candidates=problem(1)["candidates"][:33], free=np.ones((33, 3), bool))  # a shape that no other test uses
    before = compute.num_programs()
    warm = None
    for n in range(49, 81):
        s = mfgp.suggest(SURROGATE, **problem(n, p=n % 4, warm=warm, refit=n % 8 == 1, **arguments))
        warm = s.hyperparameters
    assert compute.num_programs() - before == 2


def test_buckets_grow_by_at_most_two_up_to_256_and_by_about_a_quarter_after() -> None:
    sizes = sorted({bucket(n) for n in range(1, 2049)})
    assert sizes == [64, 128, 256, 320, 400, 512, 576, 640, 704, 800, 896, 1024, 1280, 1600, 2048]
    assert all(bucket(n) >= n for n in range(1, 3000))


def test_hyperparameters_are_kept_without_a_refit_and_learned_with_one() -> None:
    first = mfgp.suggest(SURROGATE, **problem(20))
    kept = mfgp.suggest(SURROGATE, **problem(21, warm=first.hyperparameters, refit=False))
    assert first.refitted and first.evaluations > 5 and not kept.refitted and kept.evaluations == 0
    for name, value in alone(first.hyperparameters).items():
        np.testing.assert_allclose(kept.hyperparameters[name], value, rtol=1e-12)
    assert kept.hyperparameters.get("runner_up") == first.hyperparameters.get("runner_up")
    warm = mfgp.suggest(SURROGATE, **problem(21, warm=first.hyperparameters))
    assert warm.refitted and warm.loss < kept.loss


def test_float64_is_used_without_leaving_it_switched_on() -> None:
    with jax.enable_x64(False):
        s = mfgp.suggest(SURROGATE, **problem(12))
        assert s.x.dtype == np.float64
        assert jnp.ones(1).dtype == jnp.float32
        assert np.array_equal(s.x, mfgp.suggest(SURROGATE, **problem(12)).x)


def test_the_minimum_of_a_smooth_function_is_found_in_a_few_suggestions() -> None:
    rng = np.random.default_rng(0)
    space = make_space(kind=[0, 0], log=[False] * 2, low=[0, 0], high=[1, 1])
    f = lambda x: np.sum((x - [0.21, 0.77]) ** 2, -1)  # noqa: E731
    x = rng.uniform(size=(5, 2))
    for t in range(12):
        s = mfgp.suggest(
            mfgp.matern(restarts=1, max_evaluations=30),
            seed=(0, t),
            x=x,
            r=np.ones(len(x)),
            y=f(x),
            pending_x=np.zeros((0, 2)),
            pending_r=np.zeros(0),
            r_acq=1.0,
            candidates=rng.uniform(size=(200, 2)),
            free=np.ones((200, 2), bool),
            space=space,
        )
        x = np.concatenate([x, s.x[:1]])
    assert f(x).min() < 1e-3


HOSTILE = {
    "one observation": lambda p: p | dict(x=p["x"][:1], r=p["r"][:1], y=p["y"][:1]),
    "constant targets": lambda p: p | dict(y=np.full(len(p["y"]), 3.7)),
    "zero targets": lambda p: p | dict(y=np.zeros(len(p["y"]))),
    "one point, many times": lambda p: p | dict(x=np.repeat(p["x"][:1], len(p["y"]), 0), r=np.full(len(p["y"]), p["r_acq"])),
    "exact duplicates": lambda p: p | dict(x=np.repeat(p["x"][:4], 4, 0), r=np.repeat(p["r"][:4], 4), y=np.repeat(p["y"][:4], 4)),
    "duplicates that disagree": lambda p: p | dict(x=np.repeat(p["x"][:2], 8, 0), r=np.repeat(p["r"][:2], 8)),
    "tiny targets": lambda p: p | dict(y=p["y"] * 1e-12),
    "tiny differences": lambda p: p | dict(y=1.0 + p["y"] * 1e-12),
    "large targets": lambda p: p | dict(y=p["y"] * 1e12),
    "almost the largest number": lambda p: p | dict(y=np.sign(p["y"] - 0.3) * 1.7e308),
    "denormal targets": lambda p: p | dict(y=p["y"] * 1e-310),
    "an outlier": lambda p: p | dict(y=np.where(np.arange(len(p["y"])) == 3, 1e15, p["y"])),
    "pending where observed": lambda p: p | dict(pending_x=p["x"][:4], pending_r=p["r"][:4]),
    "pending all alike": lambda p: p | dict(pending_x=np.repeat(p["x"][:1], 4, 0), pending_r=np.repeat(p["r"][:1], 4)),
    "nothing pending": lambda p: p | dict(pending_x=np.zeros((0, 3)), pending_r=np.zeros(0)),
    "r_acq never seen": lambda p: p | dict(r_acq=0.999),
    "candidates all alike": lambda p: p | dict(candidates=np.repeat(p["candidates"][:1], 200, 0)),
    "candidates all observed": lambda p: p | dict(candidates=np.resize(p["x"], (200, 3))),
    "nothing may move": lambda p: p | dict(free=np.zeros((200, 3), bool)),
    "almost no resource": lambda p: p | dict(r=np.full(len(p["y"]), 1e-9), r_acq=1e-9),
}


FACTORIES = [mfgp.exp_decay, mfgp.matern, mfgp.matern_warped, mfgp.freeze_thaw, mfgp.independent, mfgp.coregional]


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_data_gives_a_finite_valid_suggestion(name: str, factory: Any) -> None:
    surrogate = factory(restarts=1, max_evaluations=15)
    arguments = HOSTILE[name](problem(16))
    s = mfgp.suggest(surrogate, **arguments)
    assert_sensible(s)
    assert s.refitted
    assert_sensible(mfgp.suggest(surrogate, **arguments | dict(warm=s.hyperparameters, refit=False)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(x=np.zeros((0, 3)), r=np.zeros(0), y=np.zeros(0)), "at least one observation"),
        (dict(y=np.full(12, np.nan)), "y has entries that are not finite"),
        (dict(x=np.zeros((12, 2))), r"x has shape \(12, 2\); \(12, 3\) is expected"),
        (dict(pending_size=1), "pending_size=1 must be at least"),
        (dict(candidates=np.zeros((0, 3)), free=np.zeros((0, 3), bool)), "candidates is empty"),
        (dict(warm={"scale": 1.0}), "warm has the hyperparameters"),
        (dict(warm={**dict.fromkeys((p.name for p in SURROGATE.parameters), 1.0)}), r"warm\['inverse_bandwidth'\]"),
    ],
)
def test_a_mistake_gets_a_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mfgp.suggest(SURROGATE, **problem(12, **changes))


def test_a_surrogate_refuses_values_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match=r"surrogate\.delta=2\.0 must be null"):
        mfgp.exp_decay(delta=2.0)
    with pytest.raises(ValueError, match=r"surrogate\.restarts=0 must be at least 1"):
        mfgp.matern(restarts=0)
    with pytest.raises(ValueError, match="low must not exceed"):
        make_space(kind=[1], log=[False], low=[3], high=[2])


def test_equal_surrogates_are_one_key() -> None:
    assert mfgp.exp_decay(delta=1.0) == mfgp.exp_decay(delta=1.0)
    assert hash(mfgp.exp_decay(delta=1.0)) == hash(mfgp.exp_decay(delta=1.0))
    assert mfgp.exp_decay(delta=1.0) != mfgp.exp_decay()


def test_values_per_level_follow_their_level_when_a_new_one_appears_between() -> None:
    surrogate = mfgp.coregional(restarts=1, max_evaluations=15)
    two = np.where(np.arange(16) % 2, reference.RUNGS[0], reference.RUNGS[2])
    first = mfgp.suggest(surrogate, **problem(16, p=0, r_acq=float(reference.RUNGS[2])) | dict(r=two))
    assert first.hyperparameters["levels"] == [reference.RUNGS[0], reference.RUNGS[2]]
    three = np.where(np.arange(16) == 0, reference.RUNGS[1], two)
    changes = dict(r=three, warm=first.hyperparameters, refit=False)
    second = mfgp.suggest(surrogate, **problem(16, p=0, r_acq=float(reference.RUNGS[2])) | changes)
    before, after = first.hyperparameters, second.hyperparameters
    assert after["levels"] == list(reference.RUNGS[:3])
    np.testing.assert_allclose(np.array(after["level_constant"])[[0, 2]], before["level_constant"])
    np.testing.assert_allclose(np.array(after["deviation"])[np.ix_([0, 2], [0, 2])], before["deviation"])
    assert after["level_constant"][1] == 0


@pytest.mark.parametrize("acquisition", [mfgp.LowerConfidenceBound(), mfgp.Thompson()], ids=["lcb", "thompson"])
def test_other_acquisitions_give_sensible_suggestions(acquisition: Any) -> None:
    s = mfgp.suggest(SURROGATE, **problem(12, acquisition=acquisition))
    assert_sensible(s)
    assert len(s.x) > 30


def test_fresh_starts_rescue_a_fit_from_a_warm_start_without_a_slope() -> None:
    """Inverse bandwidths at their lower bound: every coordinate is switched off, and the gradient that could switch it on is zero."""
    single, rescued, escaped = (mfgp.exp_decay(restarts=1, warm_restarts=k, escapes=e) for k, e in ((0, 0), (1, 0), (0, 1)))
    good = mfgp.suggest(single, **problem(24))
    stuck = good.hyperparameters | dict(inverse_bandwidth=[1e-4] * 3)
    assert mfgp.suggest(single, **problem(24, warm=stuck)).loss > good.loss + 5
    assert mfgp.suggest(rescued, **problem(24, warm=stuck)).loss < good.loss + 0.1  # from the initial values, or random ones
    assert mfgp.suggest(escaped, **problem(24, warm=stuck)).loss < good.loss + 5


def test_with_more_rows_a_random_start_rescues_a_fit_now_and_then() -> None:
    single, rescued = (mfgp.exp_decay(restarts=1, warm_restarts=k, escapes=0) for k in (0, 1))
    stuck = mfgp.suggest(single, **problem(140)).hyperparameters | dict(inverse_bandwidth=[1e-4] * 3)
    kept = mfgp.suggest(single, **problem(140, warm=stuck)).loss
    rescues = [mfgp.suggest(rescued, **problem(140, warm=stuck) | dict(seed=(1, trial))).loss < kept - 5 for trial in range(6)]
    assert 0 < sum(rescues) < 6


@pytest.mark.parametrize("surrogate", [mfgp.exp_decay, mfgp.coregional])
def test_the_runner_up_of_one_fit_is_tried_by_the_next_when_anything_else_is(surrogate: Any) -> None:
    """It travels with the hyperparameters, also to a suggestion that knows another level."""
    single, curious = (surrogate(restarts=1, warm_restarts=0, escapes=e, max_evaluations=1) for e in (0, 1))
    before = alone(mfgp.suggest(surrogate(), **problem(24)).hyperparameters)
    known = problem(24, pending_r=np.array([0.5, 0.6]))
    stuck = before | dict(inverse_bandwidth=[1e-4] * 3)
    left = mfgp.suggest(single, **known | dict(warm=stuck | dict(runner_up=before)))
    tried = mfgp.suggest(curious, **known | dict(warm=stuck | dict(runner_up=before)))
    as_it_was = mfgp.suggest(single, **known | dict(warm=before, refit=False))
    assert left.loss > as_it_was.loss + 5 and tried.loss == pytest.approx(as_it_was.loss, rel=1e-9)
    np.testing.assert_allclose(left.hyperparameters["runner_up"]["inverse_bandwidth"], before["inverse_bandwidth"], rtol=1e-9)
    np.testing.assert_allclose(tried.hyperparameters["inverse_bandwidth"], before["inverse_bandwidth"], rtol=1e-9)


def test_fits_in_a_row_that_tried_more_and_gained_nothing_are_counted() -> None:
    single, curious = (mfgp.exp_decay(restarts=1, warm_restarts=0, escapes=e, max_evaluations=1) for e in (0, 1))
    good = alone(mfgp.suggest(mfgp.exp_decay(), **problem(24)).hyperparameters)
    stuck = good | dict(inverse_bandwidth=[1e-4] * 3)

    def count(surrogate: Any, warm: dict[str, Any], refit: bool = True) -> int:
        return int(mfgp.suggest(surrogate, **problem(24), warm=warm, refit=refit).hyperparameters["fruitless"])

    in_vain, rescued = (warm | dict(fruitless=5) for warm in (good | dict(runner_up=stuck), stuck | dict(runner_up=good)))
    assert count(curious, in_vain) == 6 and count(curious, good | dict(runner_up=stuck)) == 1
    assert count(curious, rescued) == 0
    assert count(single, rescued) == 5 and count(curious, rescued, refit=False) == 5  # nothing else was tried
    assert mfgp.suggest(curious, **problem(24)).hyperparameters["fruitless"] == 0


def test_where_trying_gains_nothing_it_comes_less_often() -> None:
    surrogate = mfgp.exp_decay()
    arguments = {name: value for name, value in problem(140).items() if name not in ("num_fantasies", "acquisition")}

    def tried(warm: dict[str, Any]) -> int:
        return sum(int(np.sum(problem_of(surrogate, **arguments | dict(seed=(1, t), warm=warm)).budgets[1:] > 0)) for t in range(60))

    restless, usual, calm = (tried({"fruitless": count}) for count in (0, 3, 100))
    assert tried({}) == restless
    assert restless == pytest.approx(2 * usual, rel=0.1) and usual == pytest.approx(3 * calm, rel=0.1)
