import numpy as np
import pytest

import mfgp
from mfgp.budgets import PERIODS, PERIODS_BEYOND, allot

OPTIONS = mfgp.exp_decay().options


def test_a_fit_without_a_warm_start_leaves_nothing_out_and_no_refit_spends_nothing() -> None:
    cold = allot(OPTIONS, 7, 512, warm=False, refit=True)
    assert cold[0] == 0 and np.all(cold[1:] == OPTIONS.max_evaluations)
    assert not np.any(allot(OPTIONS, 7, 512, warm=True, refit=False))


@pytest.mark.parametrize("spacing", [1, 2, 4, 10, 16])
@pytest.mark.parametrize("rows", [64, 128, 320, 800])
def test_each_kind_of_start_comes_as_often_as_its_period_says_however_seldom_fits_are(rows: int, spacing: int) -> None:
    fits = np.array([allot(OPTIONS, trial, rows, warm=True, refit=True) > 0 for trial in range(0, 800 * spacing, spacing)])
    fresh, *escapes = PERIODS.get(rows, PERIODS_BEYOND)
    assert np.all(fits[:, 0])
    initial, random = fits[:, 1].mean(), fits[:, 2].mean()
    assert initial == pytest.approx(0.5 / fresh, abs=0.02) and random == pytest.approx(0.5 / fresh, abs=0.02)
    assert fits[:, -len(escapes) :].mean(axis=0) == pytest.approx(1 / np.array(escapes), abs=0.02)
