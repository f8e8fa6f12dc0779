"""Many simulated studies: a grid of settings x seeds, over processes or in lock step, each stored once and never computed again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa

from experiments.code import commit
from experiments.simulation import has_model, simulate
from experiments.store import Study, check, is_stored, keep, load, made_by
from schedulers.backends.process import end_with_parent


def run_grid(
    studies: Iterable[Study],
    store: Path,
    compose: Callable[[Sequence[str]], Any],
    processes: int = 1,
    say: Callable[[str], None] = print,
    together: int = 1,
) -> dict[Study, pa.Table]:
    """The events of every study, from the store where they are there already. `compose` makes a configuration of overrides.

    Studies of one set of overrides are handed out together, so that a process compiles its programs once. Of those with a model, as many
    seeds as `together` says advance in lock step in this process (see `experiments.lockstep`), for accelerators.
    """
    wanted = list(dict.fromkeys(studies))
    stored = {study: load(study, store) for study in wanted if is_stored(study, store)}
    todo = [study for study in wanted if study not in stored]
    say(f"{len(wanted)} studies, {len(stored)} of them stored in {store}")
    check(stored, store, compose)
    configs = {overrides: compose(overrides) for overrides in dict.fromkeys(study.overrides for study in todo)}
    began = time.perf_counter()
    if together > 1:
        groups = _groups(todo, configs, together)
        for number, group in enumerate(groups, 1):
            _simulate_group(group, store, configs[group[0].overrides])
            _progress(say, number, len(groups), began)
    elif processes == 1:
        for number, study in enumerate(todo, 1):
            _simulate_and_store(study, store, configs[study.overrides])
            _progress(say, number, len(todo), began)
    else:
        with ProcessPoolExecutor(processes, get_context("spawn"), initializer=prepare_worker) as pool:
            futures = [pool.submit(_simulate_and_store, study, store, configs[study.overrides]) for study in todo]
            for number, future in enumerate(as_completed(futures), 1):
                future.result()
                _progress(say, number, len(todo), began)
    tables = {study: stored[study] if study in stored else load(study, store) for study in wanted}
    others = sorted({made_by(table) for table in tables.values()} - {commit()})
    if others:
        say(f"some of these studies were made by other code ({', '.join(others)}; this is {commit()}): remove {store} to compute them anew")
    return tables


def _groups(todo: Sequence[Study], configs: Mapping[tuple[str, ...], Any], size: int) -> list[list[Study]]:
    """Studies of one configuration, `size` at a time where they have a model."""
    groups = []
    for overrides, cfg in configs.items():
        mine = [study for study in todo if study.overrides == overrides]
        width = size if has_model(cfg) else 1
        groups += [mine[start : start + width] for start in range(0, len(mine), width)]
    return groups


def _simulate_group(group: Sequence[Study], store: Path, cfg: Any) -> None:
    from experiments.lockstep import simulate_together

    if len(group) == 1:
        return _simulate_and_store(group[0], store, cfg)
    tables = simulate_together(cfg, [study.seed for study in group], len(group))
    for study, table in zip(group, tables, strict=True):
        keep(study, store, table)


def prepare_worker() -> None:
    """What a process that computes studies, or fits, beside others begins with."""
    from experiments.runtime import keep_freed_memory, prepare_environment

    end_with_parent()
    prepare_environment()
    keep_freed_memory()
    # One process per core: threads of its own would only wait for each other, and a study's bits depend on their number.
    os.environ["NPROC"] = "1"
    os.environ["JAX_PLATFORMS"] = "cpu"


def _simulate_and_store(study: Study, store: Path, cfg: Any) -> None:
    from experiments.runtime import limit_mappings

    if not is_stored(study, store):  # another command may have got there first
        limit_mappings()
        keep(study, store, simulate(cfg, study.seed))


def _progress(say: Callable[[str], None], done: int, total: int, began: float) -> None:
    elapsed = time.perf_counter() - began
    if done == total or done % max(1, total // 20) == 0:
        say(f"{done}/{total} studies in {elapsed:.0f} s, {elapsed / done * (total - done):.0f} s to go")
