"""What the runs of a panel say about a claim, and the same comparison at other times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.paper.context import Claim
from experiments.paper.panel import Line, Panel
from experiments.statistics import (
    Interval,
    excess_difference,
    is_exhausted,
    log_regret,
    pooled_difference,
    regret_difference,
    spread_ratio,
    time_ratio,
    verdict,
)

SHARES = (0.25, 0.5, 1.0)  # of the time that both lines have (algorithms.md section 5.1)


def judge(claim: Mapping[str, Any], panel: Panel) -> Claim:
    """A claim is a relation between two lines: `first` is better than, no worse than or like `second` at a share `at` of the time that both
    have, or no slower, or steadier. With `beyond`, a baseline for each, it is about what they lose to these; with `final`, about what their
    incumbents' configurations reach at r_max.
    """
    first, second = panel.line(claim["first"]), panel.line(claim["second"])
    baselines = [panel.line(end) for end in claim.get("beyond", [])]
    if any(line not in panel.runs for line in (first, second, *baselines)):
        return Claim(claim["text"], f"{panel.name}: {first.method} and {second.method}", "not run at this scale", "undecided")
    is_final, has_no_regret_left = claim.get("final", False), False
    a, b = ((panel.finals if is_final else panel.runs)[line] for line in (first, second))
    relation, when, seconds = claim["relation"], claim.get("at", 1.0), panel.until(first, second, *baselines)
    at = panel.when(when, first, second, *baselines)
    names = [panel.name_of(first), panel.name_of(second)]
    if baselines:
        without_a, without_b = (panel.runs[line] for line in baselines)
        found = excess_difference(a, without_a, b, without_b, when * seconds, panel.optimum, panel.floor)
        said = f"log10 regret beyond the baselines' at {at}: {_interval(found)}"
        names = [f"{name} beyond {panel.name_of(line)}" for name, line in zip(names, baselines, strict=True)]
    elif relation == "no slower":
        found, regret = time_ratio(a, b, seconds, panel.optimum, panel.floor)
        said = f"log10 of the times' ratio to a regret of {regret:.3g}: {_interval(found)}"
    elif relation == "steadier":
        found = spread_ratio(a, b, when * seconds)
        said = f"log10 of the spreads' ratio at {at}: {_interval(found)}"
    else:
        optimum = final_optimum(panel) if is_final else panel.optimum
        found = regret_difference(a, b, when * seconds, optimum, panel.floor)
        said = f"log10 regret{', final epochs,' if is_final else ''} at {at}: {_interval(found)}"
        has_no_regret_left = is_exhausted(a, b, when * seconds, optimum, panel.floor)
    compared = f"{panel.name}: {names[0]} against {names[1]}"
    if has_no_regret_left:
        return Claim(claim["text"], compared, f"{said}, n = {found.n}; most pairs found the best there is", "undecided")
    return Claim(claim["text"], compared, f"{said}, n = {found.n}", verdict(relation, found, panel.stand_in is not None))


def judge_pooled(claim: Mapping[str, Any], panels: Sequence[Panel]) -> Claim:
    """A claim about several panels at once: the mean over them of the difference, seed by seed, and in how many it lies on either side."""
    when = claim.get("at", 1.0)
    lines = [(panel.line(claim["first"]), panel.line(claim["second"])) for panel in panels]
    sides = [
        (panel.runs[a], panel.runs[b], when * panel.until(a, b), panel.optimum, panel.floor)
        for panel, (a, b) in zip(panels, lines, strict=True)
    ]
    each, found = [regret_difference(*side) for side in sides], pooled_difference(sides)
    exhausted = sum(is_exhausted(*side) for side in sides)
    below, above = sum(one.high < 0 for one in each), sum(one.low > 0 for one in each)
    compared = f"all {len(panels)} panels ({'; '.join(panel.name for panel in panels)}): {lines[0][0].method} against {lines[0][1].method}"
    said = f"mean log10 regret at {when:g} of the time: {_interval(found)}, n = {found.n}; interval below 0 in {below}, above in {above}"
    if 2 * exhausted > len(panels):
        return Claim(claim["text"], compared, f"{said}; in {exhausted} most pairs found the best there is", "undecided")
    return Claim(claim["text"], compared, said, verdict(claim["relation"], found, any(panel.stand_in for panel in panels)))


def at_all_times(claims: Sequence[tuple[Mapping[str, Any], Panel]]) -> str:
    """A table of the claims' comparisons, each once: log10 regret at SHARES of the time, of the times, and of the final epochs.

    The last is of what the incumbents' configurations reach at r_max, which a metric that is noisy over epochs does not favour.
    """
    heads = [f"at {share:g} of the time" for share in SHARES]
    rows = [f"| compared | {' | '.join(heads)} | log10 ratio of times | at 1, final epochs |", "|---|" + "---|" * (len(heads) + 2)]
    pairs = dict.fromkeys(
        (panel.name, panel.line(claim["first"]), panel.line(claim["second"]))
        for claim, panel in claims
        if not {"beyond", "final"} & set(claim)
    )
    panels = {panel.name: panel for _, panel in claims}
    for name, first, second in pairs:
        panel = panels[name]
        if first not in panel.runs or second not in panel.runs:
            continue
        a, b, seconds = panel.runs[first], panel.runs[second], panel.until(first, second)
        found = [regret_difference(a, b, share * seconds, panel.optimum, panel.floor) for share in SHARES]
        optimum = min(final_optimum(other) for other in panels.values() if other.task == panel.task)
        found.append(time_ratio(a, b, seconds, panel.optimum, panel.floor)[0])
        found.append(regret_difference(panel.finals[first], panel.finals[second], seconds, optimum, panel.floor))
        within = f", in {seconds:g} s" if seconds < panel.seconds else ""
        rows.append(f"| {name}: {panel.name_of(first)} against {panel.name_of(second)}{within} | {' | '.join(map(_interval, found))} |")
    return "\n".join(rows) if len(rows) > 2 else ""


def medians(panel: Panel) -> str:
    """A sentence: every line's median regret at the end."""
    at_end = [
        f"{panel.name_of(line)} {10 ** np.median(_regrets_at_end(panel, line)):.3g}"
        + (f" (after {panel.ends[line]:g} s)" if panel.ends[line] < panel.seconds else "")
        for line in panel.lines
    ]
    return f"{panel.name}, median regret after {panel.seconds:g} s against {panel.optimum:.5g}: {', '.join(at_end)}."


def at_floor(panel: Panel) -> str:
    """A sentence: how many of every line's runs can end no better. Where most do, lines look alike since the pool has no more to give."""
    logs = {line: _regrets_at_end(panel, line) for line in panel.lines}
    counts = [f"{panel.name_of(line)} {np.sum(each <= np.log10(panel.floor))} of {len(each)}" for line, each in logs.items()]
    return f"{panel.name}, runs that end within {panel.floor:g} of the best that any found: {', '.join(counts)}."


def accuracy(panel: Panel, method: str) -> str:
    """In words: mean and standard deviation over seeds of the best observed validation accuracy at the end, in percent."""
    line = panel.line(method)
    found = np.array([run.at(np.array([panel.ends[line]]))[0] for run in panel.runs[line].values()])
    return f"validation accuracy of {panel.name_of(line)} at the end: {_mean(100 * (1 - found))} %"


def test_accuracies(panel: Panel, shares: Sequence[float]) -> str:
    """A table: mean and standard deviation over seeds of the incumbent's test accuracy, in percent, after shares of the panel's time.

    Runs that have no result by then are left out, and how many there are is said.
    """
    times = np.array([share * panel.until(*panel.lines) for share in shares])
    heads = [f"after {time / 3600:.3g} h" for time in times]
    rows = [f"| {panel.name}: test accuracy of the incumbent (%) | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for line, runs in panel.tests.items():
        percent = 100 * (1 - np.array([run.at(times) for run in runs.values()]))
        if np.isnan(percent).all():
            raise ValueError(f"test_accuracy_at: the benchmark of {panel.name} has no test metric, or {line.method} no result by then")
        rows.append(f"| {panel.name_of(line)} | {' | '.join(map(_mean, percent.T))} |")
    return "\n".join(rows)


def final_optimum(panel: Panel) -> float:
    """The lowest of the final values, and of all others: a curve may end higher than it was."""
    finals = np.concatenate([run.best for runs in panel.finals.values() for run in runs.values()])
    return min(panel.optimum, float(np.min(finals, where=np.isfinite(finals), initial=np.inf)))


def _regrets_at_end(panel: Panel, line: Line) -> np.ndarray:
    final = np.array([run.at(np.array([panel.ends[line]]))[0] for run in panel.runs[line].values()])
    return log_regret(final[np.isfinite(final)], panel.optimum, panel.floor)


def _interval(found: Interval) -> str:
    return f"{found.median:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _mean(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return "none"
    return f"{known.mean():.2f} ± {known.std(ddof=min(1, len(known) - 1)):.2f}" + (
        f" (n = {len(known)})" if len(known) < len(values) else ""
    )
