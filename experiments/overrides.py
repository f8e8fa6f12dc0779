"""Compose conf/main.yaml with overrides, as the command line does, for commands that run many studies in one process."""

from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf.errors import OmegaConfBaseException

from experiments.cli import CONFIG_DIR


def composed(overrides: Sequence[str]) -> Any:
    """The configuration of one study. Raises ValueError on an override that does not exist."""
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            return compose("main", list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"{' '.join(overrides)}: {' '.join(str(error).split())}") from error


def made(node: Any) -> Any:
    """The object that a part of a composed configuration describes."""
    return instantiate(node)
