"""`python -m experiments.tabulate benchmark=mlp benchmark.dataset=electricity out=tables/electricity configs=2000`: a benchmark as a table.

Trains a random design of the benchmark's space once, each configuration to r_max, and writes curves and seconds in the
blackbox-repository format. Slices of `slice` configurations are kept in <out>.parts as they are done, so that the same command goes on
where it was; the table is written when all are there. All other arguments are overrides of conf/main.yaml.

out        the table's folder; if it holds a shorter table of the same design, that is made longer
configs    how many configurations; the design is a function of the space and `seed`, and a longer one begins with a shorter one
slice      configurations per file (default 20)
processes  slices at a time, each on one core (default: one per core; on an accelerator one)
together   networks trained in one program (default: 1 on CPUs, where a program of its own size is what a network gains most from, and
           as many as a slice has on an accelerator); for benchmarks that can, as mlp
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.space import plain_values
from experiments.runtime import prepare_environment
from schedulers.backends.process import end_with_parent
from schedulers.types import Benchmark, Config, Job

DEFAULTS = {"configs": "2000", "slice": "20", "processes": "0", "together": "0"}
LEAST = {"configs": 1, "slice": 1, "processes": 0, "together": 0}
OBJECTIVES = ("metric", "elapsed_time")


def main(arguments: list[str] | None = None) -> int:
    prepare_environment()
    settings, overrides = dict(DEFAULTS), []
    for argument in sys.argv[1:] if arguments is None else arguments:
        key, _, value = argument.partition("=")
        if key in {"out", *DEFAULTS}:
            settings[key] = value
        else:
            overrides.append(argument)
    try:
        tabulate(settings, overrides)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def tabulate(settings: dict[str, str], overrides: Sequence[str]) -> None:
    """Train what is missing, then write the table."""
    from experiments.benchmarks import blackbox_format
    from experiments.build import check_complete
    from experiments.overrides import composed

    for key in DEFAULTS:
        if not settings[key].isdigit() or int(settings[key]) < LEAST[key]:
            raise ValueError(f"{key}={settings[key]} must be a whole number of at least {LEAST[key]}")
    if "out" not in settings:
        raise ValueError("out is missing: name the folder of the new table, as in out=tables/electricity")
    out, size, count = Path(settings["out"]), int(settings["slice"]), int(settings["configs"])
    cfg = composed(overrides)
    check_complete(cfg)
    benchmark = make_benchmark(cfg)
    blackbox_format.check_space(benchmark.space)
    configs = design(benchmark, cfg.seed, count)
    of = {"overrides": sorted(overrides), "seed": int(cfg.seed)}
    _finish_writing(out)
    if _longer(out).exists():
        raise ValueError(f"{_longer(out)} is where a longer table would be written before it replaces out={out}: remove it")
    earlier = _earlier(out, of, configs, benchmark.r_max) if out.exists() else np.empty((0, benchmark.r_max, len(OBJECTIVES)), np.float32)
    parts = Path(f"{out}.parts")
    import jax

    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # this process looks at the accelerator only, another one uses it
    on_cpu = jax.default_backend() == "cpu"
    together = int(settings["together"]) or (1 if on_cpu else size)
    processes = int(settings["processes"]) or ((os.cpu_count() or 1) if on_cpu else 1)
    _claim(parts, {"overrides": sorted(overrides), "slice": size})
    slices = {start: configs[start : start + size] for start in range(len(earlier), count, size)}
    starts = [start for start, some in slices.items() if not _part(parts, start, some).is_file()]
    print(f"{count} configurations of {benchmark.r_max} epochs, {len(starts)} of {len(slices)} slices to train", flush=True)
    began = time.perf_counter()
    work = [(cfg, parts, start, slices[start], together) for start in starts]
    # XLA keeps some 8 MB of every program that was ever compiled: where there is one for each network, a process for each slice.
    tasks = 1 if hasattr(benchmark, "train_together") else None
    pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_prepare, initargs=(processes,), max_tasks_per_child=tasks)
    with pool:
        for done, _ in enumerate(pool.map(_train_slice, work), 1):
            elapsed = time.perf_counter() - began
            print(f"{done}/{len(starts)} slices in {elapsed:.0f} s, {elapsed / done * (len(starts) - done):.0f} s to go", flush=True)
    values = np.concatenate([earlier, *(np.load(_part(parts, start, some)) for start, some in slices.items())])
    diverged = _fill(values, benchmark.mode)
    metadata = {
        "objectives_names": list(OBJECTIVES),
        "task_names": [str(getattr(benchmark, "dataset", "task"))],
        "default_metric": OBJECTIVES[0],
        "metric_elapsed_time": OBJECTIVES[1],
        "resource_attr": "hp_epoch",
        "design": {**of, "diverged": diverged},
    }
    _write(out, blackbox_format.Table(benchmark.space, configs, values[None, :, None], metadata))
    print(
        f"{out}: {count} configurations x {benchmark.r_max} epochs; {len(diverged)} curves diverged and hold the worst value from there on"
    )


def _earlier(out: Path, of: dict[str, Any], configs: Sequence[Config], r_max: int) -> np.ndarray:
    """[n, r_max, 2] what the table in `out` holds of the first n < N configurations of this design; nan again where they had diverged."""
    from experiments.benchmarks import blackbox_format

    try:
        table = blackbox_format.read(out)
    except ValueError as error:
        raise ValueError(f"out={out} exists already and is no table that could be made longer ({error}): choose another folder") from error
    its, num = table.metadata.get("design", {}), len(table.configs)
    is_of_design = {name: its.get(name) for name in of} == of and table.values.shape == (1, num, 1, r_max, len(OBJECTIVES))
    if not is_of_design or table.configs[: len(configs)] != list(configs[:num]):
        raise ValueError(f"out={out} exists already and is no shorter table of this design: choose another folder")
    if num >= len(configs):
        raise ValueError(f"out={out} has {num} configurations already: ask for more than that, or choose another folder")
    diverged = [] if its.get("diverged") == 0 else its.get("diverged")  # older tables hold a number
    if not isinstance(diverged, list):
        raise ValueError(f"out={out} does not say which of its curves diverged where, so it cannot be made longer: choose another folder")
    values = np.array(table.values[0, :, 0])
    for row, r in diverged:
        values[row, r - 1 :, 0] = np.nan
    return values


def _write(out: Path, table: Any) -> None:
    """Write the table, in place of a shorter one if there is one."""
    from experiments.benchmarks import blackbox_format

    if not out.exists():
        return blackbox_format.write(out, table)
    blackbox_format.write(_longer(out), table)
    aside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f"{out.name}.shorter"))
    os.rename(out, aside / out.name)
    _finish_writing(out)
    shutil.rmtree(aside)


def _finish_writing(out: Path) -> None:
    """Put a longer table, which is whole if it is there at all, where the shorter one was: now, or after an interruption."""
    if not out.exists() and _longer(out).exists():
        os.rename(_longer(out), out)


def _longer(out: Path) -> Path:
    return Path(f"{out}.longer")


def make_benchmark(cfg: Any) -> Benchmark:
    """Raises ValueError in one sentence if its settings are wrong."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        benchmark: Benchmark = instantiate(cfg.benchmark)
    except InstantiationException as error:
        raise ValueError(f"benchmark: {error.__cause__ or error}") from error
    return benchmark


def design(benchmark: Benchmark, seed: int, count: int) -> list[dict[str, Any]]:
    """`count` different configurations at random."""
    from schedulers.encoding import Encoding

    encoding = Encoding(benchmark.space)
    if encoding.size < count:
        raise ValueError(f"configs={count} exceeds the {encoding.size:g} configurations of the space")
    rng, found = np.random.default_rng([seed, *b"tabulate"]), {}  # type: ignore[var-annotated]
    while len(found) < count:
        vectors = encoding.sample(64, rng)
        for key, config in zip(encoding.keys(vectors), encoding.configs(vectors), strict=True):
            found.setdefault(key, plain_values(config))
    return list(found.values())[:count]


def train(benchmark: Benchmark, config: Config) -> np.ndarray:
    """[r_max, 2]: the metric and the elapsed seconds after each epoch; nan metrics where the training diverged or ended early."""
    curve = np.full((benchmark.r_max, len(OBJECTIVES)), np.nan, np.float32)
    elapsed = 0.0
    for r, metric, seconds in benchmark.train(Job(0, config, 0, benchmark.r_max), None):
        elapsed += seconds
        curve[r - 1] = metric, elapsed
    curve[:, 1] = np.maximum.accumulate(np.where(np.isfinite(curve[:, 1]), curve[:, 1], elapsed))
    return curve


def train_together(benchmark: Any, configs: Sequence[Config], together: int) -> np.ndarray:
    """[N, r_max, 2]: as `train`, of a benchmark that can train several networks in one program."""
    curves = benchmark.train_together(configs, together)
    # What diverged would have gone on at its pace.
    pace = np.nanmean(curves[..., 1], axis=1, keepdims=True)
    curves[..., 1] = np.cumsum(np.where(np.isfinite(curves[..., 1]), curves[..., 1], pace), axis=1)
    return np.asarray(curves, np.float32)


def _prepare(processes: int) -> None:
    end_with_parent()
    prepare_environment()
    if processes > 1:
        os.environ["NPROC"] = "1"  # one core each; threads of their own would wait for each other
    # Thousands of programs that nobody will ask for again.
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"


def _train_slice(work: tuple[Any, Path, int, list[dict[str, Any]], int]) -> None:
    cfg, parts, start, configs, together = work
    benchmark = make_benchmark(cfg)
    if hasattr(benchmark, "train_together"):
        values = train_together(benchmark, configs, together)
    else:
        values = np.stack([train(benchmark, config) for config in configs])
    temporary = parts / f"{start}.part"
    with temporary.open("wb") as file:
        np.save(file, values)
    os.replace(temporary, _part(parts, start, configs))


def _part(parts: Path, start: int, configs: Sequence[Config]) -> Path:
    """A slice's file is named after its configurations: one of another design is never taken for it."""
    digest = hashlib.blake2b(json.dumps([sorted(config.items()) for config in configs]).encode(), digest_size=6).hexdigest()
    return parts / f"{start:06d}-{digest}.npy"


def _claim(parts: Path, what: dict[str, Any]) -> None:
    """Slices of other settings must not be mixed with these."""
    parts.mkdir(parents=True, exist_ok=True)
    note = parts / "settings.json"
    if note.is_file() and json.loads(note.read_text()) != what:
        raise ValueError(f"{parts} holds slices of other settings ({note.read_text()}): give those, remove it, or choose another out")
    note.write_text(json.dumps(what))


def _fill(values: np.ndarray, mode: str) -> list[list[int]]:
    """Give a curve, in place, the worst number of the table from its first cell without one on; returns [row, r of that cell] of each."""
    metrics = values[..., 0]
    missing = np.logical_or.accumulate(~np.isfinite(metrics), axis=1)
    if missing.all():
        raise ValueError("every training diverged: there is nothing to write")
    metrics[missing] = (np.nanmax if mode == "min" else np.nanmin)(np.where(missing, np.nan, metrics))
    rows = np.flatnonzero(missing.any(axis=1))
    return np.stack([rows, missing[rows].argmax(axis=1) + 1], axis=1).tolist()


if __name__ == "__main__":
    sys.exit(main())
