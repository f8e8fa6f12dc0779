"""What must hold for every searcher, with every scheduler, composed as a user composes them."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ConfigSpace import Configuration
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from experiments.build import build
from schedulers.encoding import Encoding
from schedulers.history import ENDED, History, State
from schedulers.journal import replay
from schedulers.run import run
from schedulers.types import Recording
from tests.searchers.spaces import LEVELS, MIXED_PRIOR, add_trial, mixed_space, play, slot_of, tiny_space

CONF = Path(__file__).resolve().parents[2] / "conf"
SEARCHERS = sorted(path.stem for path in (CONF / "searcher").glob("*.yaml"))
SCHEDULERS = sorted(path.stem for path in (CONF / "scheduler").glob("*.yaml"))
# One set of sizes, so that all of them share their compilations.
SMALL_GP = ["searcher.num_init_random=6", "searcher.num_candidates=64", "searcher.num_fantasies=2", "surrogate.max_evaluations=5"]
SMALL = {name: SMALL_GP for name in ("gp", "prior_gp", "hypertune", "dyhpo")}
SMALL["evolution"] = ["searcher.population_size=6", "searcher.sample_size=3"]
SMALL["initial"] = ["searcher.num_sobol=8", "searcher@searcher.inner=kde"]
MODELS = {"gp", "prior_gp", "hypertune", "dyhpo"}


def composed(searcher, *overrides, prior=None):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("main", ["benchmark=curves", "benchmark.r_max=9", f"searcher={searcher}", *SMALL.get(searcher, []), *overrides])
    OmegaConf.update(cfg, "prior", prior or OmegaConf.load(CONF / "prior" / "curves.yaml"), force_add=True)
    return cfg


def make(name, space, prior=MIXED_PRIOR):
    return instantiate(composed(name, prior=prior).searcher, _partial_=True)(space=space)


class Unwritten:
    def append(self, event): ...


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("searcher", SEARCHERS)
def test_every_searcher_composes_with_every_scheduler_and_tries_legal_configurations_once(searcher, scheduler, tmp_path):
    num = 16 if searcher in MODELS else 40
    steps = ["r_min=3"] if scheduler == "stepwise" else []  # three steps a trial
    cfg = composed(searcher, *steps, f"scheduler={scheduler}", "backend=simulated", "budget.seconds=null", f"budget.trials={num}")
    if scheduler == "stepwise" and searcher != "dyhpo":
        with pytest.raises(ValueError, match="scheduler=stepwise needs a searcher that scores paused trials: choose searcher=dyhpo"):
            build(cfg, tmp_path, Recording([]))
        return
    parts = build(cfg, tmp_path, Recording([]))
    for _ in run(parts.scheduler, parts.backend(), Unwritten()):
        pass
    history, space = parts.scheduler.history, parts.benchmark.space
    configs = [trial.proposal.config for trial in history.trials]
    assert len(configs) == num
    for config in configs:
        Configuration(space, values=dict(config))  # raises unless it is legal
    encoding = Encoding(space)
    assert len(set(encoding.keys(np.array([encoding.vector(config) for config in configs])))) == num
    assert not history.pending
    assert all(trial.state in ENDED or trial.state is State.PAUSED for trial in history.trials)
    assert set(history.observed_trials) == set(range(num))
    assert {trial.proposal.source for trial in history.trials} <= {"default", "random", "model", "prior", "incumbent", "initial"}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_surrogate_may_have_one_bandwidth_for_each_hyperparameter(name, tmp_path):
    steps = ["r_min=3", "scheduler=stepwise"] if name == "dyhpo" else ["scheduler=promotion"]
    cfg = composed(name, *steps, "surrogate=exp_decay_shared", "backend=simulated", "budget.seconds=null", "budget.trials=24")
    parts = build(cfg, tmp_path, Recording([]))
    for _ in run(parts.scheduler, parts.backend(), Unwritten()):
        pass
    proposals = [trial.proposal for trial in parts.scheduler.history.trials if trial.proposal.source == "model"]
    found = [p.state["hyperparameters"]["inverse_bandwidth"] for p in proposals if p.state]
    assert proposals and {len(each) for each in found} <= {Encoding(parts.benchmark.space).num_hyperparameters}
    assert found or name == "dyhpo"  # which keeps none


@pytest.mark.parametrize("name", SEARCHERS)
def test_a_replayed_study_decides_the_same_and_goes_on_alike(name, tmp_path):
    """Brackets drawn by a searcher's weights and steps chosen by its scores are computed again, proposals are taken over."""
    scheduler = "stepwise" if name == "dyhpo" else "promotion"
    cfg = composed(name, "r_min=3", "brackets=2", f"scheduler={scheduler}", "backend=simulated", "budget.seconds=null", "budget.trials=30")
    parts = build(cfg, tmp_path, Recording([]))
    events = []
    for event in run(parts.scheduler, parts.backend(), Unwritten()):
        events.append(event)
        if len(parts.scheduler.history.trials) == 16:
            break
    recording = Recording(events)
    again = build(cfg, tmp_path, recording)
    running = replay(again.scheduler, recording)
    assert {job.trial_id for job in running} == {t.trial_id for t in parts.scheduler.history.trials if t.state is State.RUNNING}
    jobs = [each.scheduler.ask() for each in (parts, again)]
    assert jobs[0] == jobs[1] and jobs[0] is not None


def metric(config, r):
    return config.get("drop", 0.5) + (config["op"] != "skip") + 1 / r


@pytest.mark.parametrize("name", SEARCHERS)
def test_a_searcher_that_recalls_proposals_goes_on_as_the_one_that_made_them(name):
    first, second = make(name, mixed_space()), make(name, mixed_space())
    history = History(LEVELS)
    for trial_id in range(14):
        slot = slot_of(history, bracket=trial_id % 2)
        proposal = first.suggest(history, slot)
        second.recall(history, slot, proposal)
        add_trial(history, proposal, {r: metric(proposal.config, r) for r in LEVELS[: trial_id % 4]})
    for bracket in (0, 1):
        slot = slot_of(history, bracket)
        one, other = first.suggest(history, slot), second.suggest(history, slot)
        assert (one.config, one.source, one.r_acq, one.note) == (other.config, other.source, other.r_acq, other.note)
        first.recall(history, slot, one)
        second.recall(history, slot, one)
    weights = [searcher.bracket_weights(history) for searcher in (first, second)]
    assert weights[0] == weights[1]
    assert first.score(history, [(1, 3), (14, 1)]) == second.score(history, [(1, 3), (14, 1)])


@pytest.mark.parametrize("name", SEARCHERS)
def test_asking_again_gives_the_same_configuration(name):
    searcher = make(name, mixed_space())
    history = play(searcher, 12, metric)
    slot = slot_of(history)
    one, other = searcher.suggest(history, slot), searcher.suggest(history, slot)
    assert one.source == other.source
    np.testing.assert_allclose(*(Encoding(mixed_space()).vector(p.config) for p in (one, other)), atol=1e-6)


@pytest.mark.parametrize("name", SEARCHERS)
def test_conditions_and_forbidden_clauses_hold_and_nothing_is_tried_twice(name):
    space, num = mixed_space(), 18 if name in MODELS else 50
    history = play(make(name, space), num, metric)
    encoding = Encoding(space)
    for trial in history.trials:
        Configuration(space, values=dict(trial.proposal.config))
    assert len(set(encoding.keys(np.array([encoding.vector(t.proposal.config) for t in history.trials])))) == num


@pytest.mark.parametrize("name", SEARCHERS)
def test_a_finite_space_is_exhausted_and_then_nothing_is_proposed(name):
    prior = {"op": {"probabilities": {"conv": 0.9, "skip": 0.1, "pool": 0.0}}, "norm": {"default": True}}
    searcher = make(name, tiny_space(), prior)
    history = play(searcher, 9, metric)
    assert len({str(sorted(t.proposal.config.items())) for t in history.trials}) == len(history.trials) == 5
    assert searcher.suggest(history, slot_of(history)) is None


@pytest.mark.parametrize("name", ["prior", "priorband", "prior_gp"])
def test_a_searcher_that_needs_a_prior_asks_for_one(name, tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("main", ["benchmark=curves", "backend=simulated", f"searcher={name}"])
    with pytest.raises(ValueError, match="prior=.* says nothing: give"):
        build(cfg, tmp_path, Recording([]))


def test_the_priors_that_come_along_fit_their_benchmarks(tmp_path):
    for benchmark in ("curves", "mlp"):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("main", [f"benchmark={benchmark}", "backend=simulated", "searcher=prior", f"+prior={benchmark}"])
        parts = build(cfg, tmp_path, Recording([]))
        assert parts.scheduler.ask().config


def test_a_wrapped_searcher_keeps_its_own_settings():
    cfg = composed("initial", "searcher@searcher.inner=evolution", "searcher.inner.population_size=3")
    assert isinstance(instantiate(cfg.searcher, _partial_=True), partial)
    assert cfg.searcher.inner.population_size == 3 and cfg.searcher.num_sobol == 8
