import numpy as np
import pytest

import mfgp
from mfgp.budgets import CHEAP, MANY_BANDWIDTHS, PATIENCE, PERIODS, PERIODS_BEYOND, SLACK, allot

OPTIONS = mfgp.exp_decay().options


def test_a_fit_without_a_warm_start_leaves_nothing_out_and_no_refit_spends_nothing() -> None:
    cold = allot(OPTIONS, 7, 512, 8, warm=False, runner_up=False, refit=True, fruitless=0)
    assert not np.any(cold[:2]) and np.all(cold[2:] == OPTIONS.max_evaluations)
    assert not np.any(allot(OPTIONS, 7, 512, 8, warm=True, runner_up=True, refit=False, fruitless=0))


@pytest.mark.parametrize("fruitless", [0, int(PATIENCE) - 1, 5, 100])
@pytest.mark.parametrize("spacing", [1, 2, 4, 10, 16])
@pytest.mark.parametrize("bandwidths", [8, MANY_BANDWIDTHS])
@pytest.mark.parametrize("rows", [64, 128, 320, 800])
def test_each_kind_of_start_comes_as_often_as_its_period_says_however_seldom_fits_are(
    rows: int, bandwidths: int, spacing: int, fruitless: int
) -> None:
    trials = range(0, 800 * spacing, spacing)
    settings = dict(warm=True, runner_up=True, refit=True, fruitless=fruitless)
    fits = np.array([allot(OPTIONS, trial, rows, bandwidths, **settings) > 0 for trial in trials])
    least, most = SLACK
    slack = min(max((1 + fruitless) / PATIENCE, least), most) if rows > CHEAP else 1
    fresh, *escapes = next((periods for most, periods in PERIODS.items() if rows <= most), PERIODS_BEYOND)
    if bandwidths >= MANY_BANDWIDTHS:
        escapes[0] = max(1, escapes[0] // 2)
    assert np.all(fits[:, 0])
    others = fits[:, 2:].any(axis=1)
    assert np.array_equal(fits[:, 1], others) and (others.all() or rows > 128)
    starts = {64: [1, 1, 1, 1], 128: [1, 1, 0, 0]}.get(rows) or ([1, 0, 0, 0] if bandwidths >= MANY_BANDWIDTHS else [0, 1, 0, 0])
    assert fits[:, 2:6].mean(axis=0) == pytest.approx([s / max(slack * fresh, 1) for s in starts], abs=0.02)
    wanted = 1 / np.maximum(slack * np.array(escapes), 1)
    assert fits[:, -len(escapes) :].mean(axis=0) == pytest.approx(wanted, abs=0.02)
