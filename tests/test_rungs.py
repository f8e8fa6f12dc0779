"""Levels, bracket law and pass rule against tables from the papers and brute force."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedulers.rungs import Rung, bracket_weights, num_passing, passes, rung_levels


@pytest.mark.parametrize(
    ("r_min", "r_max", "eta", "levels"),
    [
        (1, 27, 3, (1, 3, 9, 27)),
        (1, 81, 3, (1, 3, 9, 27, 81)),
        (1, 243, 3, (1, 3, 9, 27, 81, 243)),  # HpBandSter and NePS lose a rung to floating point
        (1, 1000, 10, (1, 10, 100, 1000)),  # likewise
        (1, 200, 3, (1, 3, 9, 27, 81, 200)),
        (1, 50, 3, (1, 3, 9, 27, 50)),
        (1, 28, 3, (1, 3, 9, 27, 28)),
        (1, 100, 4, (1, 4, 16, 64, 100)),
        (1, 9, 2.5, (1, 2, 6, 9)),  # 2.5 and 6.25, halves to even
        (5, 5, 3, (5,)),
    ],
)
def test_rung_levels_are_exact(r_min, r_max, eta, levels):
    assert rung_levels(r_min, r_max, eta) == levels


def test_a_rung_that_would_promote_almost_everything_can_be_merged():
    assert rung_levels(1, 28, 3, merge_top=True) == (1, 3, 9, 28)
    assert rung_levels(1, 50, 3, merge_top=True) == (1, 3, 9, 27, 50)


def test_top_down_levels_divide_from_r_max():
    assert rung_levels(1, 200, 3, "top_down") == (2, 7, 22, 67, 200)
    assert rung_levels(1, 243, 3, "top_down") == (1, 3, 9, 27, 81, 243)


def test_linear_levels_judge_at_every_r_min_and_a_list_is_taken_as_it_is():
    assert rung_levels(1, 5, 3, "linear") == (1, 2, 3, 4, 5)
    assert rung_levels(4, 10, 3, "linear") == (4, 8, 10)
    assert rung_levels(1, 100, 3, rungs=[5, 20, 60]) == (5, 20, 60, 100)
    assert rung_levels(1, 100, 3, rungs=[10, 100]) == (10, 100)


@pytest.mark.parametrize("rungs", [[], [3, 3], [5, 2], [0, 4], [1, 28], [1.5]])
def test_bad_lists_of_rungs_are_refused_by_name(rungs):
    with pytest.raises(ValueError, match=r"scheduler.rungs=\["):
        rung_levels(1, 27, 3, rungs=rungs)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((1, 27, 1.5), "eta=1.5"), ((30, 27, 3), "r_min=30"), ((0, 27, 3), "r_min=0"), ((1, 26.5, 3), "r_max=26.5")],
)
def test_bad_rungs_are_refused_by_name(arguments, named):
    with pytest.raises(ValueError, match=named):
        rung_levels(*arguments)


def test_the_bracket_law_is_the_papers_equation_1():
    assert bracket_weights((1, 3, 9, 27), 4) == pytest.approx((0.5510, 0.2449, 0.1224, 0.0816), abs=5e-5)
    unnormalised = np.array([243, 97.2, 40.5, 18, 9, 6])  # figure 6
    assert bracket_weights(rung_levels(1, 243, 3), 6) == pytest.approx(unnormalised / unnormalised.sum(), rel=1e-12)
    assert bracket_weights((1, 3, 9, 27, 81, 200), 5) == pytest.approx((0.5960, 0.2384, 0.0993, 0.0442, 0.0221), abs=1e-4)


def test_num_passing_follows_both_published_rules():
    #              n =  1  2  3  4  5  6  7  8  9
    assert [num_passing(n, 1, 3, "paper") for n in range(1, 10)] == [0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert [num_passing(n, 1, 3, "quantile") for n in range(1, 10)] == [0, 1, 1, 2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize("n", range(2, 61))
@pytest.mark.parametrize(("r", "r_next"), [(1, 3), (2, 3), (27, 50)])
def test_the_trial_at_the_cutoff_passes_for_every_n(n, r, r_next):
    """In floating point, with the metric maximised, syne-tune's quantile rejects it in 15% of the cases."""
    rung = Rung.empty(r, r_next, "quantile")
    k = 1 + (n - 1) * r // r_next
    others = [float(i) for i in range(n) if i != k - 1]
    for trial, value in enumerate(others):
        rung.insert(trial, value)
    assert passes(rung.insert(n, k - 1.0))
    assert not passes(Rung.empty(r, r_next, "quantile").insert(0, math.inf))


@given(values=st.lists(st.integers(-50, 50), min_size=2, max_size=40), eta=st.integers(2, 5))
def test_the_raytune_rule_compares_with_numpys_quantile_of_the_earlier_results(values, eta):
    rung = Rung.empty(1, eta, "raytune")
    for trial, value in enumerate(values):
        judgement = rung.insert(trial, float(value))
    assert judgement.cutoff == pytest.approx(np.quantile(values[:-1], 1 / eta), abs=1e-9)
    assert passes(judgement) == (judgement.metric <= judgement.cutoff)


@given(n=st.integers(2, 60), eta=st.integers(2, 5), data=st.data())
def test_the_quantile_rule_is_numpys_quantile_without_its_rounding(n, eta, data):
    values = data.draw(st.permutations(range(n)))
    rung = Rung.empty(1, eta, "quantile")
    for trial, value in enumerate(values):
        judgement = rung.insert(trial, float(value))
    # With distinct integers, y <= the exact quantile is y <= floor of it.
    exact = Fraction(n - 1, eta)
    assert passes(judgement) == (values[-1] <= math.floor(exact))


metrics = st.one_of(st.integers(0, 12).map(float), st.just(math.nan), st.just(math.inf))


@settings(max_examples=150)
@given(stream=st.lists(st.tuples(st.booleans(), metrics), max_size=60), eta=st.integers(2, 4), rule=st.sampled_from(["paper", "quantile"]))
def test_a_rung_agrees_with_sorting_everything_each_time(stream, eta, rule):
    """Brute force: sort all records, count; promotions in between must not change what counts."""
    rung, records, promoted = Rung.empty(1, eta, rule), [], set()
    for is_promotion, metric in stream:
        n = len(records)
        few = n < eta if rule == "paper" else n < 2
        k = 0 if few else (n // eta if rule == "paper" else 1 + (n - 1) // eta)
        ranked = sorted(records)
        if is_promotion:
            left = [record for record in ranked if record[1] not in promoted and record[0] < math.inf]
            expected = left[0][1] if left and k and left[0][0] <= ranked[k - 1][0] else None
            found = rung.promotable()
            assert (found and found[0]) == expected
            if found:
                promoted.add(found[0])
                rung.promote()
        else:
            value = metric if math.isfinite(metric) else math.inf
            records.append((value, n))
            judgement = rung.insert(n, metric)
            n += 1
            few = n < eta if rule == "paper" else n < 2
            k = 0 if few else (n // eta if rule == "paper" else 1 + (n - 1) // eta)
            assert (judgement.n, judgement.k) == (n, k)
            assert passes(judgement) == (value < math.inf and (few or value <= sorted(records)[k - 1][0]))
