"""BOHB's model against a direct formula with SciPy, HpBandSter's bookkeeping played by hand, and its known defects."""

import math

import numpy as np
import pytest
from ConfigSpace import Categorical, ConfigurationSpace, Float, Integer
from scipy import stats

from schedulers.encoding import Encoding
from schedulers.history import History
from schedulers.searchers.kde import KDESearcher, ProductKDE, UnitCoordinates, good_and_bad, impute
from tests.searchers.spaces import LEVELS, add_trial, mixed_space, play, slot_of

CHOICES = np.array([0, 4, 0])


def some_points(num, seed=0):
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.random(num), rng.integers(4, size=num), 0.3 + 0.1 * rng.random(num)])


def direct_density(points, query, rule):
    """One pair at a time, from the definition."""
    n, dim = points.shape
    total = 0.0
    for point in points:
        product = 1.0
        for j in range(dim):
            column = points[:, j]
            if CHOICES[j] and rule == "clipped":
                shares = [np.mean(column == c) for c in range(CHOICES[j])]
                std, c = math.sqrt(sum(p * (1 - p) for p in shares) / 2), CHOICES[j]
            else:
                std, c = math.sqrt(np.mean((column - column.mean()) ** 2)), len(set(column))
            h = max(1.06 * std * n ** (-1 / (4 + dim)), 1e-3)
            if not CHOICES[j]:
                product *= stats.norm.pdf(query[j], point[j], h)
                continue
            h = min(h, (c - 1) / c) if rule == "clipped" else h
            product *= 1 - h if query[j] == point[j] else h / (c - 1)
        total += product / n
    return total


@pytest.mark.parametrize("rule", ["hpbandster", "clipped"])
def test_the_density_is_the_direct_formula(rule):
    points, queries = some_points(12), some_points(7, seed=1)
    kde = ProductKDE.fit(points, CHOICES, rule, 1e-3)
    np.testing.assert_allclose(kde.density(queries), [direct_density(points, query, rule) for query in queries], rtol=1e-12)


def test_a_constant_coordinate_has_the_least_bandwidth():
    points = some_points(6)
    points[:, 0], points[:, 1] = 0.25, 2
    kde = ProductKDE.fit(points, CHOICES, "clipped", 1e-3)
    assert kde.bandwidths[0] == kde.bandwidths[1] == 1e-3
    assert np.isfinite(kde.density(some_points(5))).all()
    assert np.isfinite(ProductKDE.fit(points, CHOICES, "hpbandster", 1e-3).density(some_points(5))).all()


def test_hpbandsters_categories_give_negative_densities_at_the_points_themselves_and_clipped_ones_do_not():
    """Six hyperparameters of five categories and seven points, as in a cell space at the model's first fit."""
    rng = np.random.default_rng(0)
    choices = np.full(6, 5)
    negative, highest = 0, 0.0
    for _ in range(100):
        points = rng.integers(5, size=(7, 6)).astype(float)
        broken, sound = (ProductKDE.fit(points, choices, rule, 1e-3) for rule in ("hpbandster", "clipped"))
        highest = max(highest, broken.bandwidths.max())
        negative += np.sum(broken.density(points) < 0)
        assert np.all(sound.bandwidths <= 4 / 5)
        assert np.all(sound.density(points) > 0)
    assert highest > 1  # the kernel prefers every other category, and is negative at its own
    assert negative > 0.2 * 700


def test_the_clipped_kernel_of_categories_is_a_distribution():
    rng = np.random.default_rng(1)
    points = rng.integers(3, size=(9, 2)).astype(float)
    kde = ProductKDE.fit(points, np.array([3, 3]), "clipped", 1e-3)
    grid = np.array([[i, j] for i in range(3) for j in range(3)], float)
    assert kde.density(grid).sum() == pytest.approx(1)


def test_log_scales_and_the_ends_of_integers_are_where_they_belong():
    space = ConfigurationSpace()
    space.add(Float("lr", (1e-6, 1.0), log=True), Integer("units", (16, 1024), log=True))
    encoding = Encoding(space)
    coordinates = UnitCoordinates(encoding)
    points = coordinates.points(np.array([encoding.vector({"lr": 1e-3, "units": 16}), encoding.vector({"lr": 1.0, "units": 1024})]))
    assert points[0, 0] == pytest.approx(0.5) and points[1, 0] == 1
    corners = encoding.configs(coordinates.vectors(np.array([[0.0, 0.0], [1.0, 1.0]]), encoding))
    assert [c["units"] for c in corners] == [16, 1024]
    assert [c["lr"] for c in corners] == pytest.approx([1e-6, 1.0])


def hpbandster(history, dim, drop):
    """Its bookkeeping, result by result: per budget the results, and whether a model exists there."""
    results, models = {}, {}
    for trial, r, metric in zip(history.observed_trials, history.observed_resources, history.observed_metrics, strict=True):
        if drop and models and max(models) > r:
            continue
        results.setdefault(r, []).append((metric if math.isfinite(metric) else math.inf, len(results.get(r, [])), trial))
        n = len(results[r])
        best_first = [trial for *_, trial in sorted(results[r])]
        num_good, num_bad = max(dim + 1, 15 * n // 100), max(dim + 1, 85 * n // 100)
        good, bad = best_first[:num_good], best_first[num_good : num_good + num_bad]
        if n > dim and len(good) > dim and len(bad) > dim:
            models[r] = good, bad
    return (*models[max(models)], max(models)) if models else None


@pytest.mark.parametrize("drop", [True, False])
def test_the_split_is_hpbandsters_after_every_result_whether_it_drops_results_at_lower_budgets_or_not(drop):
    rng = np.random.default_rng(2)
    history, with_model = History(LEVELS), 0
    for trial_id in range(70):
        reports = {r: float(rng.choice([rng.random(), np.nan], p=[0.9, 0.1])) for r in LEVELS[: 1 + rng.integers(3)]}
        add_trial(history, {"x": trial_id}, reports)
        expected, split = hpbandster(history, 4, drop), good_and_bad(history, 4, 15, keep_all_budgets=False)
        assert (expected is None) == (split is None)
        if expected is not None:
            with_model += 1
            assert (split.good.tolist(), split.bad.tolist(), split.r) == expected
    assert with_model > 40 and split.r == 9


def test_a_result_at_a_lower_budget_counts_only_if_all_budgets_are_kept():
    """HpBandSter's model at the largest budget never hears of it again; ours does if asked to."""
    history = History(LEVELS)
    for i in range(8):
        add_trial(history, {"x": i}, {1: 1.0 + i, 3: 1.0 + i, 9: 1.0 + i})
    before = [good_and_bad(history, 2, 15, keep) for keep in (False, True)]
    for i in range(8, 20):
        add_trial(history, {"x": i}, {1: 0.1})
    add_trial(history, {"x": 20}, {1: 0.1, 3: 0.2})
    after = [good_and_bad(history, 2, 15, keep) for keep in (False, True)]
    assert np.array_equal(before[0].bad, after[0].bad)
    assert after[1].good.tolist() == [0, 1, 2]  # those that reached r_max, whatever the others' metrics at lower rungs
    assert after[1].bad.tolist() == [3, 4, 5, 6, 7, 20, *range(8, 19)]  # 85 % of 21
    assert not np.array_equal(before[1].bad, after[1].bad)


@pytest.mark.parametrize("num, expected", [(9, False), (10, True)])
def test_the_model_needs_twice_one_more_than_the_number_of_hyperparameters(num, expected):
    history = History(LEVELS)
    for i in range(num):
        add_trial(history, {"x": i}, {1: float(i)})
    assert (good_and_bad(history, 4, 15, False) is not None) == expected


def test_missing_values_are_those_of_rows_where_the_hyperparameter_is_active():
    points = np.array([[0.1, np.nan, np.nan], [np.nan, 2.0, np.nan], [0.7, 1.0, np.nan]])
    filled = impute(points, np.array([0, 3, 4]), np.random.default_rng(3))
    present = ~np.isnan(points)
    assert np.array_equal(filled[present], points[present])
    assert filled[1, 0] in (0.1, 0.7) and filled[0, 1] in (1.0, 2.0)
    assert set(filled[:, 2]) <= {0.0, 1.0, 2.0, 3.0}


@pytest.mark.parametrize("rule", ["hpbandster", "clipped"])
def test_proposals_are_a_third_random_and_gather_where_results_are_good(rule):
    space = ConfigurationSpace()
    space.add(Float("x", (0.0, 1.0)), Float("y", (1e-4, 1.0), log=True))
    searcher = KDESearcher(space, seed=1, categorical=rule)

    def metric(config, r):
        return abs(config["x"] - 0.8) + abs(math.log10(config["y"]) + 1) / 4

    history = play(searcher, 150, metric)
    late = history.trials[60:]
    chosen = [t.proposal.config for t in late if t.proposal.source == "model"]
    random = [t.proposal.config for t in late if t.proposal.source == "random"]
    assert stats.binomtest(len(random), len(late), 1 / 3).pvalue > 1e-3
    assert np.mean([metric(c, 1) for c in chosen]) < 0.5 * np.mean([metric(c, 1) for c in random])


def test_conditional_and_forbidden_configurations_are_respected():
    encoding = Encoding(mixed_space())
    history = play(KDESearcher(mixed_space(), seed=2, random_fraction=0.1), 60, lambda config, r: config["lr"] + (config["op"] != "conv"))
    configs = [t.proposal.config for t in history.trials]
    assert sum(t.proposal.source == "model" for t in history.trials) > 15
    for config in configs:
        assert encoding.is_legal(encoding.vector(config)[None])[0]
        assert ("units" in config) == (config["op"] == "conv")
    assert slot_of(history).trial_id == len(set(map(str, configs))) == 60


@pytest.mark.parametrize("settings", [{"categorical": "onehot"}, {"random_fraction": 1.5}, {"good_percent": 0}, {"min_bandwidth": 0.0}])
def test_a_bad_setting_is_named(settings):
    name = next(iter(settings))
    with pytest.raises(ValueError, match=rf"searcher\.{name}="):
        KDESearcher(mixed_space(), **settings)
    space = ConfigurationSpace()
    space.add(Categorical("c", ["a", "b"]))
    KDESearcher(space)
