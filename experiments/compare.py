"""Mean and standard error of the incumbent per method, over the runs of a multirun: `python -m experiments.compare multirun/...`.

A run is a folder with summary.json and reports.parquet. Runs whose overrides differ in nothing but the seed are one method.
Standard errors are std / sqrt(n) with ddof=1; incumbents are carried forward to the end of the longest run.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from omegaconf import OmegaConf

from experiments.display import number, span
from experiments.plots import comparison

FRACTIONS = (0.25, 0.5, 1.0)  # of the shortest run's time, at which all runs are compared
GRID = 400  # points of the common time grid
Curve = tuple[np.ndarray, np.ndarray, np.ndarray]  # time in seconds, mean, standard error
# What tells runs apart, but no methods.
IGNORED = ("seed", "resume")


@dataclass(frozen=True, slots=True)
class Run:
    """One finished study. `incumbent` holds the best metric so far (user's sign) from each of `times` (seconds) on."""

    folder: Path
    overrides: dict[str, str]
    config: Any
    choices: dict[str, str]
    mode: str
    metric: str
    trials: int
    seconds: float
    times: np.ndarray
    incumbent: np.ndarray

    def at(self, times: np.ndarray) -> np.ndarray:
        """The incumbent at each of `times`, nan before the first result."""
        index = np.searchsorted(self.times, times, side="right") - 1
        return np.where(index >= 0, self.incumbent[np.maximum(index, 0)], np.nan) if self.times.size else np.full(len(times), np.nan)


def find_runs(folders: Iterable[Path]) -> tuple[list[Run], list[Path]]:
    """All runs at or below `folders`, and those folders in which Hydra started a run that left no summary."""
    roots = list(folders)
    for root in roots:
        if not root.is_dir():
            raise ValueError(f"{root} is no folder; give the output folder of one or several runs, such as multirun/<date>/<time>")
    found = sorted({path.parent.resolve() for root in roots for path in root.rglob("summary.json") if _is_run(path.parent)})
    started = sorted({path.parent.resolve() for root in roots for path in root.rglob(".hydra")})
    if not found:
        where = ", ".join(map(str, roots))
        raise ValueError(
            f"no runs found below {where}: a run is a folder with summary.json and reports.parquet ({len(started)} unfinished)"
        )
    return [read_run(folder) for folder in found], [folder for folder in started if folder not in found]


def read_run(folder: Path) -> Run:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    columns = pq.read_table(folder / "reports.parquet", columns=["time", "incumbent"]).to_pydict()
    times, incumbent = (np.array(columns[name], dtype=float) for name in ("time", "incumbent"))
    known = np.isfinite(incumbent)
    hydra = folder / ".hydra"
    overrides = _read_yaml(hydra / "overrides.yaml") or []
    return Run(
        folder=folder,
        overrides=dict(str(item).lstrip("+~").partition("=")[::2] for item in overrides),
        config=_read_yaml(hydra / "config.yaml") or summary["run"],
        choices=((_read_yaml(hydra / "hydra.yaml") or {}).get("hydra") or {}).get("runtime", {}).get("choices", {}),
        mode=summary["mode"],
        metric=str(summary["run"].get("metric", "metric")),
        trials=summary["trials"],
        seconds=summary["wall_clock_seconds"],
        times=times[known],
        incumbent=incumbent[known],
    )


def group(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Method -> its runs. A method's name is made of the settings in which the runs differ, the seed apart."""
    names = sorted({name for run in runs for name in [*run.overrides, "searcher"] if name not in IGNORED})
    settings = {name: [_setting(run, name) for run in runs] for name in names}
    differing = [name for name in names if len(set(settings[name])) > 1]
    shown = differing or ["searcher"]
    methods: dict[str, list[Run]] = {}
    for i, run in enumerate(runs):
        methods.setdefault(", ".join(f"{name}={settings[name][i]}" for name in shown), []).append(run)
    return dict(sorted(methods.items()))


def statistics(runs: Sequence[Run], shared_seconds: float) -> dict[str, float]:
    """The row of one method; `shared_seconds` is the time that every run of every method lasted."""
    final = np.array([run.incumbent[-1] for run in runs if run.incumbent.size])
    row = {"runs": len(runs), "trials": float(np.mean([run.trials for run in runs]))}
    row |= {name: math.nan for name in ("mean", "stderr", "median", "best")}
    if final.size:
        best = final.min() if runs[0].mode == "min" else final.max()
        row |= {"mean": float(final.mean()), "stderr": _standard_error(final), "median": float(np.median(final)), "best": float(best)}
    for fraction in FRACTIONS:
        row[f"at {fraction:g}"] = float(np.mean([run.at(np.array([fraction * shared_seconds]))[0] for run in runs]))
    return row


def curves(methods: dict[str, list[Run]]) -> dict[str, Curve]:
    """Mean and standard error per method on one time grid, from the first time at which all runs have an incumbent.

    Each method ends with its own longest run. Runs without any result are left out: they would leave nothing to draw.
    """
    used = {method: [run for run in runs if run.times.size] for method, runs in methods.items()}
    used = {method: runs for method, runs in used.items() if runs}
    if not used:
        return {}
    every = [run for runs in used.values() for run in runs]
    grid = np.linspace(max(run.times[0] for run in every), max(max(run.seconds, run.times[-1]) for run in every), GRID)
    result = {}
    for method, runs in used.items():
        times = grid[grid <= max([grid[0], *(run.seconds for run in runs)])]
        values = np.stack([run.at(times) for run in runs])
        result[method] = times, values.mean(axis=0), np.array([_standard_error(column) for column in values.T])
    return result


def table(methods: dict[str, list[Run]]) -> str:
    shared = min(run.seconds for runs in methods.values() for run in runs)
    rows = [(method, statistics(runs, shared)) for method, runs in methods.items()]
    head = ["method", "runs", "mean", "std. err.", "median", "best", "trials", *(f"at {span(f * shared)}" for f in FRACTIONS)]
    keys = ["runs", "mean", "stderr", "median", "best", "trials", *(f"at {f:g}" for f in FRACTIONS)]
    cells = [head, *([method, *(_cell(row[key]) for key in keys)] for method, row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join(lines)


def compare(folders: Sequence[Path]) -> str:
    """The table as text, with what a reader must know about it; draws compare.png and compare.pdf in the first folder."""
    runs, unfinished = find_runs(folders)
    for name in ("mode", "metric"):
        values = sorted({getattr(run, name) for run in runs})
        if len(values) > 1:
            raise ValueError(f"the runs have different values of {name} ({', '.join(values)}): compare folders that share one")
    methods = group(runs)
    lines = [f"{runs[0].metric} ({runs[0].mode}) of the incumbent, {len(runs)} runs", "", table(methods), ""]
    empty = [run.folder for run in runs if not run.times.size]
    if empty:
        lines.append(f"{len(empty)} runs have no result and do not count in mean, median and figure: {_listed(empty)}")
    if unfinished:
        lines.append(f"{len(unfinished)} runs have no summary and are left out: {_listed(unfinished)}")
    drawn = curves(methods)
    if drawn:
        comparison(drawn, folders[0] / "compare", metric=runs[0].metric, mode=runs[0].mode)
        lines.append(f"figure: {folders[0] / 'compare.png'}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.compare", description="Mean and standard error per method of a multirun.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="output folder of a multirun, or of single runs")
    folders = parser.parse_args(arguments).folders
    try:
        print(compare(folders))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _setting(run: Run, name: str) -> str:
    """What a run has for an override that perhaps only other runs were given: its override, its choice of the group, its config."""
    if name in run.overrides:
        return run.overrides[name]
    if name in run.choices:
        return str(run.choices[name])
    value: Any = run.config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "default" if value is None else str(value)


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _is_run(folder: Path) -> bool:
    return (folder / "reports.parquet").is_file()


def _read_yaml(path: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False) if path.is_file() else None


def _cell(value: float) -> str:
    return "-" if math.isnan(value) else number(value)


def _listed(folders: Sequence[Path]) -> str:
    shown = ", ".join(str(folder) for folder in folders[:3])
    return shown + (" ..." if len(folders) > 3 else "")


if __name__ == "__main__":
    sys.exit(main())
