"""`python -m experiments.part -m figure=3 parts=4 'part=range(0,4)'`: the studies of a figure as jobs of one of Hydra's launchers.

Each job computes its part, one study at a time, into the store that all share; `experiments.figures` then finds them there.
"""

from __future__ import annotations

import sys

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf


@hydra.main(version_base="1.3", config_path="../conf/parts", config_name="part")
def part(cfg: DictConfig) -> None:
    from experiments import figures

    if OmegaConf.is_missing(cfg, "figure"):
        print("error: figure is missing: give it as figure=..., as in figure=3", file=sys.stderr)
        raise SystemExit(2)
    given = {name: str(cfg[name]) for name in ("figure", "scale", "store", "seeds", "panels", "tasks")}
    arguments = [f"{name}={value}" for name, value in given.items()]
    GlobalHydra.instance().clear()  # the figure composes its studies with a Hydra of its own
    if figures.main([*arguments, f"part={cfg.part}/{cfg.parts}", "processes=1"]):
        raise SystemExit(2)


if __name__ == "__main__":
    part()
