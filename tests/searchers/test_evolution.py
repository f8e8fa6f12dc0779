"""Regularised evolution against a queue played by hand."""

from collections import deque

import numpy as np
import pytest

from schedulers.encoding import Encoding
from schedulers.history import History, State
from schedulers.searchers.evolution import EvolutionSearcher, population
from tests.searchers.spaces import LEVELS, R_MAX, add_trial, mixed_space, play, slot_of


def test_the_population_is_a_queue_of_finished_trials():
    history, queue = History((R_MAX,)), deque(maxlen=4)
    rng = np.random.default_rng(0)
    for i in range(12):
        metric = float("nan") if i == 7 else float(rng.random())
        trial = add_trial(history, {"x": i}, {R_MAX: metric})
        if i != 7:
            queue.append((trial.trial_id, R_MAX, metric))
        running = add_trial(history, {"x": 100 + i}, {})  # pending trials are no members
        assert population(history, 4) == list(queue)
        history.end(running.trial_id, State.FAILED)


def test_under_early_stopping_age_counts_from_the_first_result_and_the_higher_rung_is_better():
    history = History(LEVELS)
    add_trial(history, {"x": 0}, {1: 0.9, 3: 0.8})
    add_trial(history, {"x": 1}, {1: 0.1})
    add_trial(history, {"x": 2}, {1: 0.5, 3: 0.7, 9: float("nan")})
    assert population(history, 3) == [(0, 3, 0.8), (1, 1, 0.1), (2, 3, 0.7)]
    assert population(history, 2) == [(1, 1, 0.1), (2, 3, 0.7)]


def test_a_child_differs_from_the_best_of_the_sample_in_one_hyperparameter_and_what_depends_on_it():
    space = mixed_space()
    searcher = EvolutionSearcher(space, population_size=5, sample_size=200, seed=3)  # a sample that large holds the best member
    history = play(searcher, 5, lambda config, r: config["lr"], reaches=lambda i: R_MAX)
    assert all(t.proposal.source != "model" for t in history.trials)
    changed = set()
    for _ in range(60):
        members = {trial: metric for trial, _, metric in population(history, 5)}
        proposal = searcher.suggest(history, slot_of(history))
        assert proposal.source == "model"
        best = int(proposal.note.split()[3])  # child of trial N
        assert members[best] == min(members.values())
        parent, child = history.trials[best].proposal.config, proposal.config
        different = {name for name in space if parent.get(name) != child.get(name)} - {"version"}
        assert different and (len(different) == 1 or different == {"op", "units"})
        changed |= different
        add_trial(history, proposal, {R_MAX: child["lr"]})
    assert changed >= {"lr", "drop", "depth", "op", "size"}


def test_children_are_new_and_legal():
    encoding = Encoding(mixed_space())
    history = play(EvolutionSearcher(mixed_space(), population_size=4, sample_size=2, seed=4), 80, lambda config, r: config["drop"])
    vectors = np.array([encoding.vector(t.proposal.config) for t in history.trials])
    assert encoding.is_legal(vectors).all() and len(set(encoding.keys(vectors))) == 80


def test_evolution_improves_on_random_search():
    def metric(config, r):
        return config["drop"] + abs(np.log10(config["lr"]) + 2) + (config["op"] != "skip")

    history = play(EvolutionSearcher(mixed_space(), population_size=10, sample_size=5, seed=5), 120, metric, reaches=lambda i: R_MAX)
    metrics = [metric(t.proposal.config, R_MAX) for t in history.trials]
    assert np.mean(metrics[80:]) < 0.6 * np.mean(metrics[:10])


@pytest.mark.parametrize("name", ["population_size", "sample_size"])
def test_a_size_below_one_is_refused(name):
    with pytest.raises(ValueError, match=rf"searcher\.{name}=0 must be at least 1"):
        EvolutionSearcher(mixed_space(), **{name: 0})
