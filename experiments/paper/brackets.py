"""The bracket distribution, figure 6 of Klein et al. 2020: eq. (1) exactly, and as a simulated study draws it."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from experiments.paper.context import Claim, Context
from experiments.plots import COLOURS, STYLE
from experiments.store import Study
from schedulers.rungs import bracket_weights, rung_levels


def make(spec: Mapping[str, Any], context: Context) -> str:
    """Draw the law and the shares of a simulated study; returns the verdict table."""
    eta, highest = int(spec["eta"]), int(spec["K"])
    paper = np.array(spec["paper"], float)
    law = np.array(bracket_weights(rung_levels(1, eta**highest, eta), highest + 1))
    unnormalised = law * paper[-1] / law[-1]
    trials = int(spec["trials"]) // (100 if context.scale == "smoke" else 1)
    overrides = ["backend=simulated", "searcher=random", f"budget.trials={trials}", "budget.seconds=null", f"brackets={highest + 1}"]
    study = Study((*overrides, "benchmark=curves", f"benchmark.r_max={eta**highest}", f"eta={eta}", "workers=16"), 0)
    table = context.run([study])[study]
    bracket = np.array([b for kind, b in zip(table["kind"].to_pylist(), table["bracket"].to_pylist(), strict=True) if kind == "job"])
    drawn = np.bincount(bracket, minlength=highest + 1) / len(bracket)
    context.save(_draw(spec, unnormalised, drawn * paper[-1] / law[-1]))
    context.write_data(pa.table({"bracket": range(highest + 1), "paper": paper, "ours": unnormalised, "drawn": drawn}), {})
    exact = bool(np.allclose(unnormalised, paper, rtol=1e-12))
    errors = np.abs(drawn - law) / np.sqrt(law * (1 - law) / len(bracket))
    claims = [
        Claim(
            f"P(s) is proportional to {', '.join(f'{p:g}' for p in paper)}",
            "eq. (1) as implemented",
            ", ".join(f"{value:g}" for value in unnormalised),
            "reproduced" if exact else "not reproduced",
        ),
        Claim(
            "brackets are sampled from P(s)",
            f"{len(bracket)} trials of a simulated study",
            f"largest deviation {errors.max():.2f} standard errors",
            "reproduced" if errors.max() < 2 * sqrt(2) else "not reproduced",
        ),
    ]
    return context.write_verdicts(spec["title"], claims, ["No benchmark enters: the law is a formula."])


def _draw(spec: Mapping[str, Any], law: np.ndarray, drawn: np.ndarray) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.4, 2.4), layout="constrained")
        axes = figure.add_subplot()
        axes.bar(np.arange(len(law)), law, color=COLOURS[0], width=0.7, label="eq. (1)")
        axes.plot(np.arange(len(law)), drawn, "o", color=COLOURS[1], markersize=4, label="drawn in a simulated study")
        for s, value in enumerate(law):
            axes.annotate(f"{value:g}", (s, value), ha="center", va="bottom", fontsize=7, xytext=(0, 3), textcoords="offset points")
        axes.set_xlabel("bracket s")
        axes.set_ylabel("P(s), unnormalised")
        axes.set_title(spec["title"], fontsize=8, pad=12)
        axes.legend()
    return figure
