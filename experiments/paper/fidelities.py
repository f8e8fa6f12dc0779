"""How well ranks at a lower fidelity agree with those at the full one: epochs, and the share of the records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pyarrow as pa
from jaxtyping import Float64
from matplotlib.figure import Figure
from scipy.stats import rankdata

from experiments.benchmarks.blackbox import Blackbox
from experiments.overrides import made
from experiments.paper.context import Claim, Context, heading
from experiments.plots import COLOURS, STYLE
from schedulers.encoding import Encoding
from schedulers.types import Benchmark, Job

DRAWS = 1000
ETA = 3
ENDS = ("first", "second")


class Agreement(NamedTuple):
    """Of the metric at `share` of the full fidelity: Spearman's correlation with the full one, its 95 % bootstrap interval over
    configurations, and the correlation among the better half of them."""

    share: float
    rho: float
    low: float
    high: float
    better_half: float


def make(spec: Mapping[str, Any], context: Context) -> str:
    """Correlate, draw, judge; returns the table. The smoke scale takes what is bundled."""
    is_smoke = context.scale == "smoke"
    lines = [line for line in spec["lines"] if not is_smoke or "mlp_digits" in str(line)]
    found: list[tuple[Mapping[str, Any], list[Agreement], int]] = []
    measured: dict[tuple[str, str], tuple[list[float], Float64[np.ndarray, "N F"]]] = {}
    for line in lines:
        shares, values = _values(line, 100 if is_smoke else spec["configs"], context)
        measured[line["name"], line["fidelity"]] = shares, values
        found.append((line, [agreement(share, values[:, i], values[:, -1]) for i, share in enumerate(shares[:-1])], len(values)))
        context.say(f"{line['name']}, {line['fidelity']}: {len(values)} configurations")
    title = f"{spec['title']}{_stand_ins(lines)}"
    context.save(_draw(title, found))
    context.write_data(_data(found), {"title": title})
    claims = [_claim(line, points, num, float(spec["expected"])) for line, points, num in found]
    claims += [_comparison(each, measured) for each in spec["comparisons"] if all((each["name"], each[end]) in measured for end in ENDS)]
    return context.write_verdicts(title, claims, ["In brackets: among the better half of the configurations, by the full fidelity."])


def _values(line: Mapping[str, Any], num: int, context: Context) -> tuple[list[float], Float64[np.ndarray, "N F"]]:
    """Shares of the full fidelity, the last one 1, and the minimised metric of each configuration there."""
    if "full" in line:
        total, full = line["full"]
        tables = {total: Blackbox(full), **{part: Blackbox(folder) for part, folder in line["parts"].items()}}
        shared = min(table.pool_size for table in tables.values())  # a longer design begins with a shorter one
        columns = [[tables[n].curve(row)[0][-1] for row in range(shared)] for n in sorted(tables)]
        return [n / total for n in sorted(tables)], np.array(columns).T
    benchmark = made(context.compose(line["overrides"]).benchmark)
    resources = [r for r in (ETA**k for k in range(12)) if r < benchmark.r_max] + [benchmark.r_max]
    return [r / benchmark.r_max for r in resources], _curves(benchmark, num)[:, np.array(resources) - 1]


def _curves(benchmark: Benchmark, num: int) -> Float64[np.ndarray, "N R"]:
    """All rows of a table; of another benchmark, `num` configurations at random."""
    if isinstance(benchmark, Blackbox):
        return np.array([benchmark.curve(row)[0] for row in range(benchmark.pool_size)])
    encoding = Encoding(benchmark.space)
    configs = encoding.configs(encoding.sample(num, np.random.default_rng(0)))
    sign = 1.0 if benchmark.mode == "min" else -1.0
    return np.array([[sign * p.metric for p in benchmark.train(Job(0, config, 0, benchmark.r_max), None)] for config in configs])


def agreement(share: float, low: Float64[np.ndarray, " N"], full: Float64[np.ndarray, " N"]) -> Agreement:
    rng = np.random.default_rng(0)
    again = rng.integers(len(full), size=(DRAWS, len(full)))
    bottom, top = np.nanquantile([spearman(low[rows], full[rows]) for rows in again], [0.025, 0.975])
    best = np.argsort(full, kind="stable")[: len(full) // 2]
    return Agreement(share, spearman(low, full), float(bottom), float(top), spearman(low[best], full[best]))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """nan where either is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def _claim(line: Mapping[str, Any], points: list[Agreement], num: int, expected: float) -> Claim:
    """The fidelity nearest to a ninth, on a log scale, decides."""
    decisive = min(points, key=lambda point: abs(math.log(point.share * ETA**2)))
    holds, fails = decisive.low > expected, decisive.high < expected
    verdict = "undecided" if holds == fails else ("agrees" if holds else "disagrees")
    verdict = f"stand-in {verdict}" if line.get("stand_in") and verdict != "undecided" else verdict
    said = "; ".join(f"{p.share:.2g}: {p.rho:.2f} [{p.low:.2f}, {p.high:.2f}] ({p.better_half:.2f})" for p in points)
    text = f"(our expectation) {line['fidelity']}: at the share nearest to a ninth the correlation is above {expected:g}"
    return Claim(text, f"{_name(line)}, n = {num}", said, verdict)


def _comparison(each: Mapping[str, Any], measured: Mapping[Any, tuple[list[float], Float64[np.ndarray, "N F"]]]) -> Claim:
    """Whether `first` has the higher correlation than `second`, each at its share nearest to a ninth, over configurations that both have;
    these are resampled."""
    sides = [measured[each["name"], each[end]] for end in ENDS]
    num = min(len(values) for _, values in sides)
    decisive = [min(range(len(shares) - 1), key=lambda i: abs(math.log(shares[i] * ETA**2))) for shares, _ in sides]
    columns = np.stack(
        [values[:num, i] for (_, values), i in zip(sides, decisive, strict=True)] + [values[:num, -1] for _, values in sides]
    )
    rng = np.random.default_rng(0)
    drawn = [_excess(columns[:, rows]) for rows in rng.integers(num, size=(DRAWS, num))]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    verdict = "agrees" if low > 0 else "disagrees" if high < 0 else "undecided"
    at = [f"{shares[i]:.2g}" for (shares, _), i in zip(sides, decisive, strict=True)]
    said = f"correlation at {at[0]} minus that at {at[1]}: {_excess(columns):+.2f} [{low:+.2f}, {high:+.2f}]"
    return Claim(each["text"], f"{each['name']}: {each['first']} against {each['second']}, n = {num}", said, verdict)


def _excess(columns: Float64[np.ndarray, "4 N"]) -> float:
    first, second, first_full, second_full = columns
    return spearman(first, first_full) - spearman(second, second_full)


def _name(line: Mapping[str, Any]) -> str:
    return f"{line['name']}, {line['fidelity']}" + (f" ({line['stand_in']})" if line.get("stand_in") else "")


def _stand_ins(lines: list[Mapping[str, Any]]) -> str:
    named = [f"{line['name']} ({line['stand_in']})" for line in lines if line.get("stand_in")]
    return f" — stand-in: {'; '.join(named)}" if named else ""


def _data(found: list[tuple[Mapping[str, Any], list[Agreement], int]]) -> pa.Table:
    rows = [(line["name"], line["fidelity"], line.get("stand_in", ""), num, *p) for line, points, num in found for p in points]
    names = ("benchmark", "fidelity", "stand_in", "n", *Agreement._fields)
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


def _draw(title: str, found: list[tuple[Mapping[str, Any], list[Agreement], int]]) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.5, 4.3), layout="constrained")
        axes = figure.add_subplot()
        for i, (line, points, _) in enumerate(found):
            shares, rho, low, high = (np.array([getattr(p, name) for p in points]) for name in ("share", "rho", "low", "high"))
            colour, dashed = COLOURS[i % len(COLOURS)], line["fidelity"] != "epochs"
            marker = ("s" if dashed else "o") if i < len(COLOURS) else ("D" if dashed else "^")
            style: Any = {"marker": marker, "markersize": 3, "linestyle": "--" if dashed else "-", "linewidth": 1.1}
            axes.plot(np.append(shares, 1.0), np.append(rho, 1.0), color=colour, label=_name(line), **style)
            axes.fill_between(shares, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_xscale("log")
        axes.set_ylim(None, 1.02)
        axes.set_xlabel("share of the full fidelity")
        axes.set_ylabel("Spearman's correlation")
        axes.set_title(heading(title, 5.5), fontsize=7)
        axes.grid(axis="y")
        figure.legend(loc="outside lower center", ncols=2, fontsize=6)
    return figure
