"""A grid computes each study once, whole or not at all, and a study does not depend on its company."""

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from omegaconf import OmegaConf, open_dict

from experiments import grid, store
from experiments.benchmarks.blackbox import BUNDLED, Blackbox
from experiments.code import commit
from experiments.grid import run_grid
from experiments.overrides import composed
from experiments.resolved import changed, resolved
from experiments.simulation import simulate
from experiments.store import Study, incumbents, metadata
from schedulers.searchers.random import RandomSearcher

BASE = ("backend=simulated", "benchmark=curves", "budget.trials=20", "budget.seconds=null", "workers=3")
HYPERBAND = (*BASE, "searcher=random")
HALVING = (*BASE, "searcher=random", "brackets=1", "scheduler=promotion")


def test_what_is_stored_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = [Study(HYPERBAND, 0), Study(HALVING, 0)]
    first = run_grid(studies, tmp_path, composed, say=lambda _: None)
    computed: list[int] = []
    monkeypatch.setattr(grid, "simulate", lambda cfg, seed: computed.append(seed) or first[studies[0]])
    again = run_grid([*studies, Study(tuple(reversed(HYPERBAND)), 0)], tmp_path, composed, say=lambda _: None)
    assert computed == []
    assert all(again[study].equals(first[study]) for study in studies)


def test_a_damaged_study_is_named_with_the_way_out(tmp_path: Path) -> None:
    study = Study(HYPERBAND, 0)
    run_grid([study], tmp_path, composed, say=lambda _: None)
    (tmp_path / study.path).write_bytes(b"PAR")
    with pytest.raises(ValueError, match=r"seed-0.parquet is damaged .*: remove it, and the study is computed again"):
        run_grid([study], tmp_path, composed, say=lambda _: None)


def test_a_study_of_other_data_is_refused(tmp_path: Path) -> None:
    table = Path(BUNDLED, "mlp_digits")
    shutil.copytree(table, tmp_path / "table")
    overrides = (
        BASE[0],
        "benchmark=blackbox",
        f"benchmark.folder={tmp_path / 'table'}",
        "benchmark.off_grid=pool",
        *BASE[2:],
        "searcher=random",
    )
    study = Study(overrides, 0)
    first = run_grid([study], tmp_path / "store", composed, say=lambda _: None)[study]
    assert metadata(first)["digest"] == Blackbox("mlp_digits").digest and metadata(first)["pool_size"] == 200
    assert run_grid([study], tmp_path / "store", composed, say=lambda _: None)[study].equals(first)
    values = np.load(table / "objectives_evaluations.npy")
    values[0, 7, 0, 3, 0] += 0.01
    np.save(tmp_path / "table" / "objectives_evaluations.npy", values)
    with pytest.raises(ValueError, match="holds studies of other data than the benchmark has now: remove it, and they are computed again"):
        run_grid([study], tmp_path / "store", composed, say=lambda _: None)


def test_a_study_whose_prior_was_edited_is_refused(tmp_path: Path) -> None:
    study, prior = Study(HYPERBAND, 0), {"level": {"mean": 0.2}}

    def compose(overrides: Sequence[str]) -> Any:
        cfg = composed(overrides)
        with open_dict(cfg):
            cfg.prior = prior
        return cfg

    first = run_grid([study, Study(HYPERBAND, 1)], tmp_path, compose, say=lambda _: None)[study]
    assert run_grid([study], tmp_path, compose, say=lambda _: None)[study].equals(first)
    prior["level"]["mean"] = 0.3
    with pytest.raises(ValueError, match=r"holds studies of prior.level.mean=0.2, which the same overrides now make 0.3: remove it"):
        run_grid([study], tmp_path, compose, say=lambda _: None)
    before = dict(metadata(first))
    del before["settings"]  # as kept by earlier code
    store.keep(study, tmp_path, first.replace_schema_metadata({"study": json.dumps(before)}))
    assert run_grid([study], tmp_path, compose, say=lambda _: None)[study].equals(first)


def test_what_changes_no_result_is_no_other_setting(tmp_path: Path) -> None:
    """Times that only real workers have, a model that random search does not use, a setting that the stored code did not know."""
    edits = [("suggest_timeout", 7), ("surrogate.noise", 0.5), ("scheduler.brand_new", 1), ("acquisition._target_", "none")]
    study = Study(HYPERBAND, 0)
    first = run_grid([study], tmp_path, composed, say=lambda _: None)[study]
    values = metadata(first)["settings"]
    assert values["scheduler.eta"] == "${eta}" and values["eta"] == 3 and not any(name.startswith("surrogate") for name in values)
    assert resolved(composed([*HYPERBAND, "searcher=gp"]))["surrogate._target_"] == "mfgp.exp_decay"

    def compose(overrides: Sequence[str]) -> Any:
        cfg = composed(overrides)
        with open_dict(cfg):
            for name, value in edits:
                OmegaConf.update(cfg, name, value)
        return cfg

    assert run_grid([study], tmp_path, compose, say=lambda _: None)[study].equals(first)
    edits.append(("budget.trials", 19))
    with pytest.raises(ValueError, match="holds studies of budget.trials=20, which the same overrides now make 19"):
        run_grid([study], tmp_path, compose, say=lambda _: None)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"a": 1, "old": 2}, {"a": 1, "new": 3}, ""),
        (
            {"prior.x.default": 1},
            {"prior.x.default": 1, "prior.y.default": 2},
            "prior.y.default=(none), which the same overrides now make 2",
        ),
        ({"a": 1, "prior.x": 1}, {"a": 1}, "prior.x=1, which the same overrides now make (none)"),
        ({"rungs": [1, 3]}, {"rungs": [1, 9]}, "rungs=[1, 3], which the same overrides now make [1, 9]"),
    ],
)
def test_a_name_that_came_or_went_is_a_change_where_users_wrote_it(before: dict[str, Any], now: dict[str, Any], expected: str) -> None:
    assert changed(before, now) == expected


def test_a_study_is_the_same_alone_and_among_others(tmp_path: Path) -> None:
    study = Study(HYPERBAND, 1)
    alone = run_grid([study], tmp_path / "alone", composed, say=lambda _: None)[study]
    others = [Study(HYPERBAND, 0), study, Study(HALVING, 1)]
    together = run_grid(others, tmp_path / "together", composed, processes=2, say=lambda _: None)[study]
    assert alone.equals(together)


def test_a_study_does_not_depend_on_the_hosts_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = composed(HYPERBAND)
    usual, suggest, waits = simulate(cfg, 0), RandomSearcher.suggest, np.random.default_rng(0).uniform(0, 0.05, 1000)

    def slow(self: RandomSearcher, history: Any, slot: Any) -> Any:
        time.sleep(waits[slot.trial_id])
        return suggest(self, history, slot)

    monkeypatch.setattr(RandomSearcher, "suggest", slow)
    assert simulate(cfg, 0).equals(usual)
    measured = simulate(composed((*HYPERBAND, "backend.decision_time=measured")), 0)
    assert max(measured["time"].to_pylist()) > max(usual["time"].to_pylist())


def test_seeds_in_lock_step_fill_the_store_with_what_they_find_alone(tmp_path: Path) -> None:
    model = (*BASE[:2], "budget.trials=9", *BASE[3:], "searcher=gp", "searcher.num_init_random=3")
    studies = [Study(overrides, seed) for overrides in (model, HALVING) for seed in (0, 1, 2)]
    alone = run_grid(studies, tmp_path / "alone", composed, say=lambda _: None)
    together = run_grid(studies, tmp_path / "together", composed, say=lambda _: None, together=2)
    assert all(alone[study].equals(together[study]) for study in studies)


def test_a_study_of_other_code_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, said = Study(HALVING, 0), list[str]()
    assert store.made_by(run_grid([study], tmp_path, composed, say=said.append)[study]) == commit()
    assert not any("other code" in line for line in said)
    monkeypatch.setattr(grid, "commit", lambda: "123456789abc")
    run_grid([study], tmp_path, composed, say=said.append)
    assert f"made by other code ({commit()}; this is 123456789abc)" in said[-1]


def test_events_add_up(tmp_path: Path) -> None:
    study = Study(HALVING, 0)
    table = run_grid([study], tmp_path, composed, say=lambda _: None)[study]
    jobs, reports = (table.filter(pc.equal(table["kind"], kind)) for kind in ("job", "report"))
    assert len(set(jobs["trial"].to_pylist())) == 20
    assert np.all(np.diff(table["time"].to_numpy()) >= 0)
    about = metadata(table)
    assert about["threads"]["OPENBLAS_NUM_THREADS"] == os.environ.get("OPENBLAS_NUM_THREADS", "") and about["processor"] and about["cores"]
    assert about["workers"] == 3 and set(jobs["worker"].to_pylist()) == {0, 1, 2}
    times, best, finals, tests = incumbents(table)
    metrics = reports["metric"].to_numpy()
    assert best[-1] == metrics.min() and np.all(np.diff(best) < 0)
    assert len(times) == len(best) == len(finals) and np.isfinite(finals).all()
    assert np.isnan(tests).all() and len(tests) == len(times)  # synthetic curves have no test set
    # No worker is ever idle before the budget of trials is spent: until the last start each is busy all the time.
    last_start = max(time for time, r in zip(jobs["time"].to_pylist(), jobs["r"].to_pylist(), strict=True) if r == 0)
    for worker in range(3):
        mine = reports.filter(pc.and_(pc.equal(reports["worker"], worker), pc.less_equal(reports["time"], last_start)))
        assert sum(mine["seconds"].to_pylist()) == pytest.approx(max(mine["time"].to_pylist()))


def test_an_interrupted_store_leaves_no_file_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(table: pa.Table, path: Path, **_: Any) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(store.pq, "write_table", fails)
    study = Study(HYPERBAND, 0)
    with pytest.raises(KeyboardInterrupt):
        run_grid([study], tmp_path, composed, say=lambda _: None)
    assert not store.is_stored(study, tmp_path)


def test_a_study_that_is_not_simulated_is_refused(tmp_path: Path) -> None:
    overrides: Sequence[str] = ("benchmark=curves", "budget.trials=1", "searcher=random")
    with pytest.raises(ValueError, match="backend must be simulated"):
        run_grid([Study(tuple(overrides), 0)], tmp_path, composed, say=lambda _: None)
