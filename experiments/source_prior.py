"""A prior for one task from another: where the best of many random configurations lie on a related task, whose results are at hand.

    python -m experiments.source_prior benchmark=yahpo benchmark.task=168331 > conf/prior/mine.yaml
    python -m experiments.main benchmark=yahpo benchmark.task=168329 backend=simulated searcher=priorband scheduler=hyperband +prior=mine

A number gets the chosen configurations' median as default, and the confidence (NePS 0.11's) whose truncated normal at that default has the
standard deviation nearest to theirs, on the number's own scale; a category how often each choice occurs, with one added to every count, so
that none is ruled out.
A conditional hyperparameter is described by those in which it is active. All other arguments are overrides of conf/main.yaml, the source.

take       best (default), half: the better half, which makes a weak prior, or worst: one that misleads
number     how many the best or worst are (default 100); configs: of how many random ones (default 2000)
names      which hyperparameters, with commas between them (default: all)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from ConfigSpace import CategoricalHyperparameter, ConfigurationSpace
from scipy.stats import truncnorm

from experiments.cell_prior import probabilities
from experiments.runtime import prepare_environment
from schedulers.encoding import Encoding
from schedulers.searchers.user_prior import STD
from schedulers.types import Benchmark, Config

DEFAULTS = {"take": "best", "number": "100", "configs": "2000", "names": ""}
DIGITS = 4  # of a default; what they cut off is far below any width


def main(arguments: list[str] | None = None) -> int:
    prepare_environment()
    settings, overrides = dict(DEFAULTS), []
    for argument in sys.argv[1:] if arguments is None else arguments:
        key, _, value = argument.partition("=")
        if key in DEFAULTS:
            settings[key] = value
        else:
            overrides.append(argument)
    try:
        print(made(settings, overrides))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def made(settings: Mapping[str, str], overrides: Sequence[str]) -> str:
    """The prior as YAML, with a line about where it comes from."""
    from experiments.build import check_complete
    from experiments.overrides import composed
    from experiments.tabulate import make_benchmark

    if settings["take"] not in ("best", "half", "worst"):
        raise ValueError(f"take={settings['take']} is unknown: choose best, half or worst")
    for key, least in (("number", 1), ("configs", 2)):
        if not settings[key].isdecimal() or int(settings[key]) < least:
            raise ValueError(f"{key}={settings[key]} must be a whole number of at least {least}")
    number, count = int(settings["number"]), int(settings["configs"])
    if settings["take"] != "half" and number > count:
        raise ValueError(f"number={number} must be from 1 to configs={count}")
    cfg = composed(list(overrides))
    check_complete(cfg)
    benchmark = make_benchmark(cfg)
    names = settings["names"].split(",") if settings["names"] else list(benchmark.space)
    if unknown := set(names) - set(benchmark.space):
        raise ValueError(f"names={settings['names']}: the space has no {min(unknown)}; it has {', '.join(benchmark.space)}")
    configs = chosen(benchmark, int(cfg.seed), count, settings["take"], number)
    entries = described(benchmark.space, configs, names)
    if not entries:
        raise ValueError(f"names={settings['names']}: none of them varies among the chosen configurations, so there is no prior to make")
    which = "better half" if settings["take"] == "half" else f"{number} {settings['take']}"
    command = " ".join([*(f"{key}={value}" for key, value in settings.items() if value != DEFAULTS[key]), *overrides])
    about = f"# Where the {which} of {count:,} random configurations lie:\n# python -m experiments.source_prior {command}"
    return "\n".join([about, *(f"{name}: {entry}" for name, entry in entries.items())])


def chosen(benchmark: Benchmark, seed: int, count: int, take: str, number: int) -> list[Config]:
    """Of `count` random configurations, those with the best or worst last values, best first; one that diverged is the worst."""
    from experiments.tabulate import design, train

    configs = design(benchmark, seed, count)
    last = np.array([train(benchmark, config)[-1, 0] for config in configs])
    ranked = np.argsort(np.where(np.isnan(last), np.inf, -last if benchmark.mode == "max" else last), kind="stable")
    picked = {"best": ranked[:number], "half": ranked[: count // 2], "worst": ranked[len(ranked) - number :]}[take]
    return [configs[i] for i in picked]


def described(space: ConfigurationSpace, configs: Sequence[Config], names: Sequence[str]) -> dict[str, str]:
    """An entry of a prior, in YAML, for each of these hyperparameters that has more than one value."""
    entries = {}
    for column in Encoding(space).columns:
        name, values = column.hp.name, [config[column.hp.name] for config in configs if column.hp.name in config]
        if name not in names or column.num_categories == 1 or not values:
            continue
        if isinstance(column.hp, CategoricalHyperparameter):
            choices = column.hp.choices
            counts = np.array([sum(value == choice for value in values) for choice in choices]) + 1
            entries[name] = f"{{{probabilities(counts / counts.sum(), choices)}}}"
            continue
        vectors = np.array([float(column.hp.to_vector(value)) for value in values])
        middle = values[np.argsort(vectors, kind="stable")[(len(values) - 1) // 2]]
        short = float(f"{middle:.{DIGITS}g}") if isinstance(middle, float) else middle
        default = short if column.hp.legal_value(short) else middle
        units, at = column.encode(vectors)[:, 0], float(column.encode(np.array([float(column.hp.to_vector(default))]))[0, 0])
        entries[name] = f"{{default: {json.dumps(default)}, confidence: {_confidence(float(np.std(units)), at)}}}"
    return entries


def _confidence(std: float, at: float) -> str:
    """The word whose normal, with its mean at `at` and truncated to [0, 1], has the standard deviation nearest to `std`, in ratio."""
    widths = {word: truncnorm((0 - at) / wide, (1 - at) / wide, at, wide).std() for word, wide in STD["neps11"].items()}
    return min(widths, key=lambda word: abs(np.log(widths[word] / max(std, 1e-9))))


if __name__ == "__main__":
    sys.exit(main())
