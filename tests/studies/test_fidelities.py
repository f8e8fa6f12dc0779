"""Ranks at a lower fidelity are compared with those at the full one."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from experiments.paper import fidelities


def test_an_agreement_is_spearmans_with_an_interval_that_shrinks_with_the_number_of_configurations() -> None:
    rng = np.random.default_rng(0)
    full = rng.standard_normal(400)
    low = np.round(full + rng.standard_normal(400), 1)  # with ties
    found = fidelities.agreement(1 / 9, low, full)
    assert found.rho == pytest.approx(spearmanr(low, full).statistic)
    assert found.low < found.rho < found.high
    better = full <= np.median(full)
    assert found.better_half == pytest.approx(spearmanr(low[better], full[better]).statistic)
    few = fidelities.agreement(1 / 9, low[:50], full[:50])
    assert few.high - few.low > 2 * (found.high - found.low)
    assert math.isnan(fidelities.spearman(np.zeros(5), np.arange(5)))


@pytest.mark.parametrize(
    ("low", "high", "stand_in", "verdict"),
    [(0.6, 0.8, None, "agrees"), (0.1, 0.4, None, "disagrees"), (0.4, 0.6, None, "undecided"), (0.6, 0.8, "modelled", "stand-in agrees")],
)
def test_the_fidelity_nearest_to_a_ninth_decides(low: float, high: float, stand_in: str | None, verdict: str) -> None:
    points = [
        fidelities.Agreement(1 / 27, 0, 0, 0, 0),
        fidelities.Agreement(1 / 8, 0.7, low, high, 0),
        fidelities.Agreement(0.9, 1, 1, 1, 1),
    ]
    line = {"name": "any", "fidelity": "epochs", "stand_in": stand_in}
    assert fidelities._claim(line, points, 9, 0.5).verdict == verdict


@pytest.mark.parametrize(("noise", "verdict"), [((0.2, 2.0), "agrees"), ((2.0, 0.2), "disagrees"), ((0.5, 0.5), "undecided")])
def test_two_fidelities_are_compared_on_the_configurations_that_both_have(noise: tuple[float, float], verdict: str) -> None:
    rng = np.random.default_rng(0)
    full = rng.random(90)
    lows = [full + scale * rng.normal(size=90) for scale in noise]
    columns = [np.stack([rng.random(90), low, rng.random(90), full], axis=1) for low in lows]
    measured = {("net", "epochs"): ([1 / 27, 1 / 9, 1 / 3, 1], columns[0]), ("net", "records"): ([0.04, 0.1, 0.3, 1.0], columns[1][:80])}
    claim = fidelities._comparison({"text": "higher", "name": "net", "first": "epochs", "second": "records"}, measured)
    excess = spearmanr(lows[0][:80], full[:80])[0] - spearmanr(lows[1][:80], full[:80])[0]
    assert claim.verdict == verdict and claim.compared == "net: epochs against records, n = 80"
    assert claim.found.startswith(f"correlation at 0.11 minus that at 0.1: {excess:+.2f} [")
