"""Whether the folder of a study holds one already: a sweep that is launched again goes on with it or leaves it; else it is refused.

Hydra writes the settings of the last launch over those before, so a study keeps its own in settings.yaml.
"""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from schedulers.journal import FILE_NAME, read

SETTINGS = "settings.yaml"


class Standing(Enum):
    NEW = "new"
    UNFINISHED = "unfinished"
    FINISHED = "finished"


def standing_of(cfg: DictConfig, folder: Path, is_sweep: bool) -> Standing:
    """What has become of the study `cfg` in its folder; to be asked under the journal's lock.

    Raises ValueError where that holds a study that it must not touch.
    """
    if not (folder / FILE_NAME).exists() or next(iter(read(folder)), None) is None:
        return Standing.NEW
    if not is_sweep:
        raise ValueError(f"hydra.run.dir={folder} holds a study already: go on with it (resume={folder}), or choose another folder")
    if not (folder / SETTINGS).exists():
        raise ValueError(f"{folder} holds a study of an earlier version, which kept no {SETTINGS}: go on with it by resume={folder}")
    if _settings(OmegaConf.load(folder / SETTINGS)) != _settings(cfg):
        raise ValueError(
            f"{folder} holds a study with other settings: choose another hydra.sweep.dir, or name the folders after the settings, as in "
            "'hydra.sweep.subdir=${hydra.job.override_dirname}'"
        )
    is_over = (folder / "summary.json").exists() and not summary_of(folder)["run"].get("interrupted", True)
    return Standing.FINISHED if is_over else Standing.UNFINISHED


def keep_settings(cfg: DictConfig, folder: Path) -> None:
    """For a later launch, which is to know this study again."""
    OmegaConf.save(cfg, folder / SETTINGS)


def summary_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


def _settings(cfg: Any) -> Any:
    return OmegaConf.to_container(cfg, resolve=True)
