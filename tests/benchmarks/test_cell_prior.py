"""Priors over cells are the operation frequencies of good cells, and the searchers take them for the networks that train."""

import os
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments.benchmarks.cells import EDGES, OPERATIONS
from experiments.benchmarks.nasbench201 import Cells, load_cells
from experiments.benchmarks.space import build_space
from experiments.cell_prior import as_yaml, chosen, frequencies
from experiments.cli import CONFIG_DIR
from schedulers.history import History
from schedulers.searchers.prior import PriorSearcher
from schedulers.searchers.priorband import PriorBandSearcher
from schedulers.types import Slot


def settings(benchmark: str) -> Any:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("main", [f"benchmark={benchmark}", f"+prior={benchmark}"])


def test_frequencies_count_each_operation_once_more_than_it_occurs() -> None:
    ops = np.array([[0, 2], [1, 2], [1, 2]])
    np.testing.assert_allclose(frequencies(ops, 3), np.array([[2, 3, 1], [1, 1, 4]]) / 6)


def test_the_best_cells_are_those_with_the_highest_mean_over_their_repetitions() -> None:
    ops = np.arange(4)[:, None].repeat(6, 1)
    final = np.array([[50.0, np.nan, 60.0], [70.0, 72.0, np.nan], [10.0, 10.0, 10.0], [90.0, 40.0, np.nan]])  # means 55, 71, 10, 65
    cells = Cells(ops, ("a", "b", "c", "d"), (final[::-1], final, final), np.ones((4, 3)), np.ones((4, 3)), np.arange(4), np.ones((4, 2)))
    assert chosen(cells, "cifar100", "best", 2)[:, 0].tolist() == [1, 3]
    assert chosen(cells, "cifar100", "worst", 1)[:, 0].tolist() == [2]
    assert chosen(cells, "cifar10", "best", 1)[:, 0].tolist() == [2]


def test_what_is_printed_is_a_prior_whose_rows_sum_up_to_one() -> None:
    table = frequencies(np.random.default_rng(0).integers(0, 5, (101, 6)), 5)
    entries = OmegaConf.create(as_yaml(table, OPERATIONS, [f"edge_{i}" for i in range(6)]))
    for i in range(6):
        row = entries[f"edge_{i}"].probabilities
        assert list(row) == list(OPERATIONS) and sum(row.values()) == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(list(row.values()), table[i], atol=2.1e-4)


@pytest.mark.parametrize("benchmark", ["nas201", "jahs"])
def test_the_bundled_prior_fits_its_space_and_its_best_cell_comes_first(benchmark: str) -> None:
    cfg = settings(benchmark)
    space, prior = build_space(cfg.benchmark.space), OmegaConf.to_container(cfg.prior)
    history, slot = History([1, 3]), Slot(0, 0, 1, 3)
    searchers = PriorSearcher(space, prior=prior), PriorBandSearcher(space, prior=prior, eta=3)
    for searcher in searchers:
        proposal = searcher.suggest(history, slot)
        assert proposal is not None and proposal.source == "prior"
        likeliest = [max(prior[f"edge_{i}"]["probabilities"].items(), key=lambda pair: pair[1])[0] for i in range(len(EDGES))]
        assert [proposal.config[f"edge_{i}"] for i in range(len(EDGES))] == likeliest
    if benchmark == "jahs":
        assert proposal.config["trivial_augment"] and proposal.config["learning_rate"] == pytest.approx(0.1)


def test_cells_are_drawn_as_often_as_the_prior_says() -> None:
    cfg = settings("jahs")
    prior = OmegaConf.to_container(cfg.prior)
    searcher = PriorSearcher(build_space(cfg.benchmark.space), prior=prior, part="arch", mode_first=False)
    history = History([1, 3])
    for trial in range(400):
        proposal = searcher.suggest(history, Slot(trial, 0, 1, 3))
        assert proposal is not None
        history.launch(proposal, 0, 1, 3)
    drawn = Counter(str(trial.proposal.config["edge_3"]) for trial in history.trials)
    share = prior["edge_3"]["probabilities"]["skip_connect"]
    assert drawn["skip_connect"] / 400 == pytest.approx(share, abs=4 * (share * (1 - share) / 400) ** 0.5)


@pytest.mark.skipif("MFGP_DATA_DIR" not in os.environ, reason="MFGP_DATA_DIR names no folder with the real files")
@pytest.mark.parametrize(("name", "edges"), [("nas201", "edge_{i}"), ("cells_good", "edge_{edge}")])
def test_the_bundled_priors_are_those_of_the_real_table(name: str, edges: str) -> None:
    cells = load_cells(data_dir=os.environ["MFGP_DATA_DIR"])
    names = [edges.format(i=i, edge=f"{a}_{b}") for i, (a, b) in enumerate(EDGES)]
    text = as_yaml(frequencies(chosen(cells, "cifar100", "best", 100), 5), cells.op_names, names)
    bundled = (CONFIG_DIR / "prior" / f"{name}.yaml").read_text()
    assert text == "\n".join(line for line in bundled.splitlines() if not line.startswith("#"))
