"""Spaces and histories that the searchers' tests share."""

from ConfigSpace import (
    Categorical,
    ConfigurationSpace,
    Constant,
    EqualsCondition,
    Float,
    ForbiddenAndConjunction,
    ForbiddenEqualsClause,
    Integer,
    OrdinalHyperparameter,
)

from schedulers.history import History, State
from schedulers.types import Proposal, Report, Slot

R_MAX = 9
LEVELS = (1, 3, 9)


def mixed_space():
    """Every kind of hyperparameter, a condition and a forbidden clause."""
    space = ConfigurationSpace()
    space.add(Float("lr", (1e-4, 1.0), log=True), Float("drop", (0.0, 0.9)), Integer("units", (4, 64), log=True), Integer("depth", (1, 3)))
    space.add(Categorical("op", ["conv", "skip", "pool"]), Categorical("norm", [True, False]), OrdinalHyperparameter("size", [1, 2, 5]))
    space.add(Constant("version", 3))
    space.add(EqualsCondition(space["units"], space["op"], "conv"))
    space.add(ForbiddenAndConjunction(ForbiddenEqualsClause(space["op"], "pool"), ForbiddenEqualsClause(space["norm"], True)))
    return space


MIXED_PRIOR = {
    "lr": {"default": 1e-2, "confidence": "high"},
    "units": {"default": 32},
    "size": {"default": 2, "confidence": "low"},
    "op": {"probabilities": {"conv": 0.6, "skip": 0.3, "pool": 0.1}},
    "norm": {"default": True},
}


def tiny_space():
    """3 x 2 - 1 configurations."""
    space = ConfigurationSpace()
    space.add(Categorical("op", ["conv", "skip", "pool"]), Categorical("norm", [True, False]))
    space.add(ForbiddenAndConjunction(ForbiddenEqualsClause(space["op"], "pool"), ForbiddenEqualsClause(space["norm"], True)))
    return space


def play(searcher, num, metric, levels=LEVELS, reaches=None, history=None):
    """A history of `num` trials proposed by `searcher`, one after the other; trial i observes `metric(config, r)` up to `reaches(i)`."""
    history = history or History(levels)
    reaches = reaches or (lambda trial_id: levels[trial_id % len(levels)])
    for _ in range(num):
        trial_id = len(history.trials)
        proposal = searcher.suggest(history, slot_of(history))
        if proposal is None:
            break
        add_trial(history, proposal, {r: metric(proposal.config, r) for r in levels if r <= reaches(trial_id)})
    return history


def add_trial(history, proposal, metrics):
    """One trial with the reports `metrics` (resource -> metric), then stopped or completed; without reports it stays running."""
    if isinstance(proposal, dict):
        proposal = Proposal(proposal, "random")
    trial = history.launch(proposal, 0, history.levels[0], history.levels[-1])
    for r, value in metrics.items():
        history.observe(Report(trial.trial_id, r, value))
        if r < history.levels[-1]:
            history.expect(trial.trial_id, min(level for level in history.levels if level > r))
    if metrics:
        history.end(trial.trial_id, State.COMPLETED if trial.r == history.levels[-1] else State.STOPPED)
    return trial


def slot_of(history, bracket=0):
    return Slot(len(history.trials), bracket, history.levels[bracket], history.levels[-1])
