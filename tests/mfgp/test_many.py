import threading

import jax
import numpy as np
import pytest

import mfgp
from mfgp.many import in_lock_step
from mfgp.suggest import compute
from tests.mfgp.test_suggest import SPACE, SURROGATE, assert_sensible, problem


def requests(count: int, step: int = 3) -> list[dict]:
    """Studies of different sizes; beyond 16 observations in another bucket."""
    made = [problem(8 + step * i, p=i % 3, seed=i) | dict(seed=(i, 0)) for i in range(count)]
    return [{name: value for name, value in one.items() if name != "num_fantasies"} for one in made]


def same(a: mfgp.Suggestion, b: mfgp.Suggestion) -> bool:
    return np.array_equal(a.x, b.x) and np.array_equal(a.acquisition, b.acquisition) and a.hyperparameters == b.hyperparameters


def test_studies_decided_together_get_the_bits_that_they_get_alone() -> None:
    asked = requests(6)
    together = mfgp.suggest_many(SURROGATE, asked, width=3, num_fantasies=5)
    for request, got in zip(asked, together, strict=True):
        assert_sensible(got)
        assert same(got, mfgp.suggest(SURROGATE, num_fantasies=5, **request))
    with pytest.raises(ValueError, match="width=0 must be at least 1"):
        mfgp.suggest_many(SURROGATE, asked, width=0)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="checks the accelerator's path against the CPU's")
def test_in_lock_step_a_study_does_not_depend_on_its_companions() -> None:
    asked = requests(5, step=2)
    options = dict(width=2, num_fantasies=5, acquisition=mfgp.ExpectedImprovement())
    together = in_lock_step(SURROGATE, asked, **options)
    for i in (0, 4):
        (alone,) = in_lock_step(SURROGATE, [asked[i]], **options)
        assert same(together[i], alone)
        single = mfgp.suggest(SURROGATE, num_fantasies=5, **asked[i])
        assert together[i].loss == pytest.approx(single.loss, abs=1e-3)
        assert together[i].evaluations == pytest.approx(single.evaluations, abs=3)


def test_after_precompiling_in_a_thread_a_suggestion_compiles_nothing() -> None:
    arguments = dict(candidates=problem(1)["candidates"][:31], free=np.ones((31, 3), bool))  # a shape that no other test uses
    n = mfgp.bucket(12) + 1
    options = dict(n=n, space=SPACE, num_candidates=31, num_fantasies=5, pending_size=4)
    thread = threading.Thread(target=lambda: mfgp.precompile(SURROGATE, **options))
    before = compute.num_programs()
    thread.start()
    thread.join()
    assert compute.num_programs() == before + 1
    s = mfgp.suggest(SURROGATE, **problem(n + 4, **arguments))
    assert_sensible(s)
    assert compute.num_programs() == before + 1
