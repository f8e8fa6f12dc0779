"""The laboratory predicts cells that the surrogate has not seen, and says how well."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

import mfgp
from experiments import laboratory
from experiments.benchmarks.synthetic import Curves
from experiments.laboratory import Trace
from experiments.paper import laboratory as figure


@pytest.fixture(scope="module")
def trace() -> Trace:
    return laboratory.record("curves", Curves(r_max=9, noise=0.01), trials=15, brackets=2)


def test_a_trace_holds_what_the_study_observed_and_all_of_its_curves(trace: Trace) -> None:
    assert trace.levels == (1, 3, 9) and trace.curves.shape == (15, 9) and np.isfinite(trace.curves).all()
    cells = list(zip(trace.trial.tolist(), trace.r.tolist(), strict=True))
    assert len(cells) == len(set(cells)) and set(trace.r.tolist()) <= set(trace.levels)
    assert set(trace.trial.tolist()) == set(range(15))
    stopped = [trial for trial in range(15) if (trial, 9) not in cells]
    assert stopped  # there is something to predict that the study has not seen


def test_predictions_are_a_function_of_the_other_trials_and_of_a_trials_first_cell(trace: Trace) -> None:
    surrogate = mfgp.matern(max_evaluations=15, restarts=1)
    asked = 3
    changed = trace._replace(curves=trace.curves.copy())
    seen_r = trace.r[trace.trial == asked].min()
    changed.curves[asked] += 0.7
    changed.curves[asked, seen_r - 1] -= 0.7

    def of_asked(given: Trace, task: str) -> np.ndarray:
        centre, unit = laboratory.units(given)
        mine = [p for p in laboratory.examine(given, surrogate) if (p.trial, p.task) == (asked, task)]
        return np.array([[p.r, p.mean * unit + centre, p.std * unit, p.truth * unit + centre] for p in mine])

    before, after = of_asked(trace, "continued"), of_asked(changed, "continued")
    assert before[:, 0].tolist() == [r for r in trace.levels if r > seen_r]
    np.testing.assert_allclose(after[:, :3], before[:, :3], rtol=1e-6)
    np.testing.assert_allclose(after[:, 3], before[:, 3] + 0.7)
    assert of_asked(trace, "new")[:, 0].tolist() == list(trace.levels)


def test_scores_are_those_of_their_definitions() -> None:
    rng = np.random.default_rng(0)
    mean, std = rng.standard_normal(20_000), rng.uniform(0.5, 2.0, 20_000)
    truth = mean + std * rng.standard_normal(20_000)
    assert laboratory.coverage(truth, mean, std) == pytest.approx(0.9, abs=0.008)  # four standard errors
    assert laboratory.coverage(truth, mean, 0.5 * std) == pytest.approx(2 * norm.cdf(0.5 * norm.ppf(0.95)) - 1, abs=0.014)
    exact = np.mean(0.5 * np.log(2 * np.pi * std**2) + 0.5 * ((truth - mean) / std) ** 2)
    assert laboratory.log_likelihood(truth, mean, std) == pytest.approx(exact)
    assert laboratory.rank_correlation(truth, np.exp(truth)) == pytest.approx(1.0)
    assert np.isnan(laboratory.rank_correlation(truth, np.zeros(20_000)))


def test_an_interval_that_covers_too_little_or_too_much_at_a_rung_has_failed(trace: Trace) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for r, spread in ((3, 1.0), (9, 4.0)):  # standard deviations of the truth, where the surrogate says 1
        rows += [laboratory.Prediction("continued", i, r, spread * z, 0.0, 1.0) for i, z in enumerate(rng.standard_normal(200))]
    columns = {name: [getattr(row, name) for row in rows] for name in laboratory.Prediction._fields}
    examined = figure.Examined(trace, "any", figure.pa.table(columns), [])
    (claim,) = figure._claims(examined, (0.8, 0.97), "synthetic")
    assert claim.verdict == "failed at r=9" and "r=3: 9" in claim.found
    (claim,) = figure._claims(examined, (0.2, 0.97), "synthetic")
    assert claim.verdict == "holds"


def test_every_surrogate_of_the_configuration_is_examined() -> None:
    files = {path.stem for path in (Path(__file__).parents[2] / "conf" / "surrogate").glob("*.yaml")}
    assert set(figure.surrogate_names()) == files and "exp_decay" in files
