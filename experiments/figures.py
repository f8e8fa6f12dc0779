"""`python -m experiments.figures figure=2`: a figure of the papers, the data behind it, and the verdict on the paper's claims.

figure     which one (conf/figure/<figure>.yaml)
scale      paper (default): 30 seeds over the figure's whole time; smoke: minutes of simulated time, two seeds, nothing is judged
out        where figures/, and data/ with parquet and verdicts, are written (default outputs/figures)
store      where finished studies are kept, to be shared by figures and not computed again (default outputs/studies)
processes  how many studies at a time (default: one per core); seeds: another number of seeds
panels     which panels of a figure that has several, from 0, as in panels=0,2 (default: all; smoke: the first); none: all from earlier;
           missing: of all panels the lines that earlier does not have, or has with other settings
earlier    a folder with the figure's parquet of an earlier run at this scale, from which the panels (with missing: the lines) that are
           not computed are taken
tasks      a YAML file with tasks of your own, in the form of conf/figure/tasks.yaml, in place of those of the same names: other tables
together   how many seeds advance in lock step, their models' suggestions in one call (default 1); device=gpu: on the accelerator
part       k/n: compute only the k-th of the figure's studies, from 0, and every n-th after it; draw nothing (see experiments.part)
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.runtime import prepare_environment

WORDS = ("none", "missing")  # of panels=
NUMBERS = ("seconds", "worker_seconds", "trace_seconds", "floor")  # of a task
DEFAULTS = {
    "scale": "paper",
    "out": "outputs/figures",
    "store": "outputs/studies",
    "processes": "0",
    "seeds": "0",
    "panels": "",
    "earlier": "",
    "part": "",
    "tasks": "",
    "together": "1",
    "device": "cpu",
}


def main(arguments: list[str] | None = None) -> int:
    prepare_environment()
    os.environ["NPROC"] = "1"  # also where studies run in this process: their bits depend on the number of threads
    try:
        settings = _settings(sys.argv[1:] if arguments is None else arguments)
        if settings["device"] == "cpu":
            os.environ["JAX_PLATFORMS"] = "cpu"
        print(make(settings))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def make(settings: dict[str, str]) -> str:
    """Make the figure; returns its verdict table."""
    from experiments.overrides import composed
    from experiments.paper import asha_counts, brackets, fidelities, laboratory, pasha, regret, trace
    from experiments.paper.context import Context, PartDone

    kinds = {"regret": regret, "trace": trace, "brackets": brackets, "asha_counts": asha_counts, "pasha": pasha}
    kinds |= {"laboratory": laboratory, "fidelities": fidelities}
    name, scale = settings["figure"], settings["scale"]
    spec = _read(name)
    if settings["part"] and spec["kind"] in ("laboratory", "fidelities", "brackets"):
        raise ValueError(f"part={settings['part']}: figure {name} is not made of studies")
    if settings["panels"] and spec["kind"] not in ("regret", "laboratory"):
        raise ValueError(f"panels={settings['panels']}: figure {name} has no panels to choose from")
    if settings["earlier"] and spec["kind"] != "regret":
        raise ValueError(f"earlier={settings['earlier']} is for figures of regret over time")
    own = _own_tasks(Path(settings["tasks"])) if settings["tasks"] else {}
    if own and not set(own) & (used := _used_tasks(spec)):
        raise ValueError(f"tasks={settings['tasks']} has {', '.join(own)}, and figure {name} uses {', '.join(sorted(used)) or 'none'}")
    context = Context(
        name=name,
        scale=scale,  # type: ignore[arg-type]
        seeds=int(settings["seeds"]) or None,
        panels=_panels(settings["panels"]),
        only_missing=settings["panels"] == "missing",
        earlier=Path(settings["earlier"]) if settings["earlier"] else None,
        part=_part(settings["part"]) if settings["part"] else None,
        out=Path(settings["out"]),
        store=Path(settings["store"]),
        processes=1 if settings["device"] == "gpu" else int(settings["processes"]) or os.cpu_count() or 1,
        compose=composed,
        together=int(settings["together"]),
        device=settings["device"],
        tasks=_read("tasks") | own,
        methods=_read("methods"),
    )
    began = time.perf_counter()
    try:
        verdicts: str = kinds[spec["kind"]].make(spec, context)
    except PartDone as done:
        return str(done)
    context.say(f"figure {name}, scale {scale}: {time.perf_counter() - began:.0f} s; written to {context.out}")
    if context.spent or context.spent_earlier:
        context.say(context.said_of_time())
    return verdicts


def figure_names() -> list[str]:
    from experiments.cli import CONFIG_DIR

    return sorted(path.stem for path in (CONFIG_DIR / "figure").glob("*.yaml") if path.stem not in ("tasks", "methods"))


def _settings(arguments: list[str]) -> dict[str, str]:
    given = {}
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if not separator or key not in {"figure", *DEFAULTS}:
            raise ValueError(f"{argument!r} is no setting; valid are figure=..., {', '.join(f'{k}={v}' for k, v in DEFAULTS.items())}")
        given[key] = value
    settings = DEFAULTS | given
    if settings.get("figure") not in figure_names():
        raise ValueError(f"figure={settings.get('figure', '')} does not exist; choose {', '.join(figure_names())}")
    if settings["scale"] not in ("smoke", "paper"):
        raise ValueError(f"scale={settings['scale']} is unknown: choose smoke or paper")
    for key in ("processes", "seeds", "together"):
        if not settings[key].isdigit() or (key == "together" and settings[key] == "0"):
            raise ValueError(f"{key}={settings[key]} must be a whole number")
    if settings["device"] not in ("cpu", "gpu"):
        raise ValueError(f"device={settings['device']} is unknown: choose cpu or gpu")
    if settings["panels"] in WORDS and not settings["earlier"]:
        raise ValueError(f"panels={settings['panels']} goes with earlier=...: a folder with the figure's data of an earlier run")
    if settings["panels"] not in ("", *WORDS) and not all(part.isdigit() for part in settings["panels"].split(",")):
        raise ValueError(f"panels={settings['panels']} must be whole numbers with commas between them, or {' or '.join(WORDS)}")
    if settings["earlier"] and not settings["panels"]:
        raise ValueError(f"earlier={settings['earlier']} goes with panels=...: which panels are to be computed now?")
    return settings


def _panels(text: str) -> tuple[int, ...] | None:
    if text in ("", *WORDS):
        return () if text == "none" else None
    return tuple(map(int, text.split(",")))


def _part(text: str) -> tuple[int, int]:
    number, _, total = text.partition("/")
    if not (number.isdigit() and total.isdigit() and int(number) < int(total)):
        raise ValueError(f"part={text} must be k/n, as in part=0/4 to part=3/4")
    return int(number), int(total)


def _used_tasks(spec: Mapping[str, Any]) -> set[str]:
    panels = [panel["task"] for panel in spec.get("panels", []) if "task" in panel]
    return {*panels, *spec.get("tasks", []), *([spec["task"]] if "task" in spec else [])}


def _own_tasks(path: Path) -> dict[Any, Any]:
    """The tasks in a user's file. Raises ValueError in one sentence for what none of the figures could use."""
    from omegaconf import OmegaConf

    try:
        own: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except Exception as error:  # of the file system, the text's encoding, YAML or OmegaConf: the way out is the same
        raise ValueError(f"tasks={path} cannot be read: {' '.join(str(error).split())}") from error
    known = _read("tasks")
    if not isinstance(own, dict):
        raise ValueError(f"tasks={path} must hold tasks by their names, as conf/figure/tasks.yaml does")
    for name, task in own.items():
        if name not in known:
            raise ValueError(f"tasks={path}: {name} is no task; valid are {', '.join(known)}")
        lacking = [key for key in ("overrides", "seconds", "floor") if not isinstance(task, dict) or key not in task]
        if lacking:
            raise ValueError(f"tasks={path}: {name} lacks {', '.join(lacking)} (see conf/figure/tasks.yaml)")
        for key, value in task.items():
            if key not in (*NUMBERS, "overrides", "model", "stand_in", "pool"):
                raise ValueError(f"tasks={path}: {name} has {key}, which is no setting of a task (see conf/figure/tasks.yaml)")
            if key in NUMBERS and not (isinstance(value, (int, float)) and value > 0):
                raise ValueError(f"tasks={path}: {name} has {key}: {value}, which must be a positive number")
    return dict(own)


def _read(name: str) -> Any:
    from omegaconf import OmegaConf

    from experiments.cli import CONFIG_DIR

    return OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "figure" / f"{name}.yaml"), resolve=True)


if __name__ == "__main__":
    sys.exit(main())
