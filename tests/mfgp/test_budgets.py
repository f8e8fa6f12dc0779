import numpy as np
import pytest

import mfgp
from mfgp.budgets import CHEAP_ROWS, MANY_COORDINATES, PERIODS, PERIODS_BEYOND, allot

OPTIONS = mfgp.exp_decay().options


def test_a_fit_without_a_warm_start_leaves_nothing_out_and_no_refit_spends_nothing() -> None:
    cold = allot(OPTIONS, 7, 512, 8, warm=False, refit=True)
    assert cold[0] == 0 and np.all(cold[1:] == OPTIONS.max_evaluations)
    assert not np.any(allot(OPTIONS, 7, 512, 8, warm=True, refit=False))


@pytest.mark.parametrize("spacing", [1, 2, 4, 10, 16])
@pytest.mark.parametrize("coordinates", [8, MANY_COORDINATES])
@pytest.mark.parametrize("rows", [64, 128, 320, 800])
def test_each_kind_of_start_comes_as_often_as_its_period_says_however_seldom_fits_are(rows: int, coordinates: int, spacing: int) -> None:
    fits = np.array([allot(OPTIONS, trial, rows, coordinates, warm=True, refit=True) > 0 for trial in range(0, 800 * spacing, spacing)])
    fresh, *escapes = next((periods for most, periods in PERIODS.items() if rows <= most), PERIODS_BEYOND)
    assert np.all(fits[:, 0])
    rate = 1.0 if rows <= CHEAP_ROWS else 0.5 / fresh  # of the initial values, and of a random start
    assert fits[:, 1:3].mean(axis=0) == pytest.approx([rate, rate], abs=0.02)
    wanted = 1 / np.array(escapes)
    wanted[0] = min(1.0, wanted[0] * (2 if coordinates >= MANY_COORDINATES else 1))
    assert fits[:, -len(escapes) :].mean(axis=0) == pytest.approx(wanted, abs=0.02)
