import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm, rankdata

import mfgp
from mfgp.data import FEW_ROWS, Data, Inputs, copula, joint, of_chosen, pad, per_rung, standardise, thin


def test_standardising_is_invariant_to_shift_and_scale() -> None:
    y = np.random.default_rng(0).normal(size=30)
    z = standardise(y)
    np.testing.assert_allclose((z.mean(), z.std()), (0, 1), atol=1e-12)
    for scale, shift in ((1e-12, 0.0), (1e12, 5.0), (1e300, 0.0)):
        np.testing.assert_allclose(standardise(y * scale + shift), z, atol=1e-9)
    np.testing.assert_array_equal(standardise(np.full(4, 7.3)), np.zeros(4))


def test_joint_targets_let_the_lowest_resource_dominate_and_per_rung_targets_do_not() -> None:
    """Spread 1 at the bottom and .01 at the top."""
    rng = np.random.default_rng(1)
    r = np.repeat([0.1, 0.9], [60, 20])
    y = np.where(r == 0.1, 0.5 + rng.normal(size=80), 0.1 + 0.01 * rng.normal(size=80))
    assert joint(y, r)[r == 0.9].std() < 0.02
    for level in (0.1, 0.9):
        z = per_rung(y, r)[r == level]
        np.testing.assert_allclose((z.mean(), z.std()), (0, 1), atol=1e-12)


def test_a_resource_with_too_few_values_borrows_the_next_lower_ones_transformation() -> None:
    r = np.array([0.1, 0.1, 0.1, 0.3, 0.3, 0.3, 0.9, 0.9])
    y = np.array([3.0, 4.0, 5.0, 1.0, 2.0, 3.0, 1.5, 0.5])
    np.testing.assert_allclose(per_rung(y, r)[6:], (y[6:] - 2.0) / np.sqrt(2 / 3))
    np.testing.assert_allclose(per_rung(y[:2], r[:2]), joint(y[:2], r[:2]))


def test_copula_targets_are_normal_scores_of_the_ranks() -> None:
    y = np.array([5.0, 1.0, 1.0, 1e15, -3.0])
    expected = norm.ppf((rankdata(y) - 0.5) / 5)
    np.testing.assert_allclose(copula(y, np.zeros(5)), expected)
    np.testing.assert_allclose(copula(np.full(4, 2.0), np.zeros(4)), 0.0, atol=1e-12)


def test_unknown_targets_are_named() -> None:
    with pytest.raises(ValueError, match=r"surrogate\.targets=log must be one of joint, per_rung, copula"):
        mfgp.matern(targets="log")


def test_padding_repeats_the_first_row() -> None:
    np.testing.assert_array_equal(pad(np.array([[1.0, 2.0], [3.0, 4.0]]), 3), [[1, 2], [3, 4], [1, 2]])
    np.testing.assert_array_equal(pad(np.zeros((0, 2)), 2), np.zeros((2, 2)))


def test_thinning_keeps_rows_evenly_spread_over_those_that_are_no_padding() -> None:
    def data_of(n: int, rows: int) -> Data:
        count = np.arange(rows)
        inputs = Inputs(jnp.asarray(count[:, None], float), jnp.zeros(rows, int), jnp.ones(8), jnp.asarray(count < n))
        return Data(inputs, jnp.asarray(np.where(count < n, 10.0 * count, 0.0)))

    few = thin(data_of(80, 128), 20)
    np.testing.assert_array_equal(few.y, 40.0 * np.arange(20))
    np.testing.assert_array_equal(few.inputs.x[:, 0], 4 * np.arange(20))
    assert np.all(few.inputs.mask)
    padded = thin(data_of(12, 128), 20)
    assert int(np.sum(padded.inputs.mask)) == 12 and padded.y.shape == (20,)
    whole = data_of(12, 16)
    assert thin(whole, 16) is whole


@pytest.mark.parametrize("rows", [1, FEW_ROWS - 1, FEW_ROWS, 2 * FEW_ROWS + 3])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_of_chosen_computes_the_chosen_rows_and_fills_the_others(rows: int, share: float) -> None:
    x = np.random.default_rng(rows).normal(size=(rows, 2))
    chosen = np.random.default_rng(1).random(rows) < share
    table, seen = jnp.asarray(x), []

    def values(index):
        jax.debug.callback(lambda some: seen.extend(some), index)
        return jnp.stack([jnp.sum(table[index], axis=1), jnp.max(table[index], axis=1)])

    found = jax.jit(lambda c: of_chosen(values, c, -7.0))(chosen)
    jax.effects_barrier()
    np.testing.assert_allclose(found, np.where(chosen, np.stack([x.sum(1), x.max(1)]), -7.0))
    size = min(FEW_ROWS, rows)
    assert len(seen) == -(-chosen.sum() // size) * size  # no more than it takes
