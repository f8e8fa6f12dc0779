"""What happens to the command line before Hydra sees it: `resume=` is resolved, and mistakes become one sentence."""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.standing import SETTINGS
from schedulers.journal import FILE_NAME

CONFIG_DIR = Path(__file__).resolve().parent.parent / "conf"
MAY_CHANGE = ("workers", "budget.", "backend.", "retries", "suggest_timeout", "suggest_ahead", "surrogate_device", "hydra.")


class UserError(Exception):
    """A mistake of the user's; its text is the one sentence to show."""


def prepare(argv: list[str]) -> list[str]:
    """The arguments for Hydra. Raises UserError on a bad override, group or key, and on an output folder that cannot be written."""
    if any(argument.startswith("resume=") and argument != "resume=null" for argument in argv):
        return _resume_arguments(argv)
    if any(argument in ("-m", "--multirun", "-h", "--help", "--hydra-help", "--info", "-i") for argument in argv):
        return argv
    overrides = [argument for argument in argv if "=" in argument or argument.startswith("~")]
    cfg = _compose([argument for argument in overrides if not argument.startswith("-")])
    if not any(argument in ("--cfg", "-c") for argument in argv):
        _check_writable(Path(cfg.hydra.run.dir))
    return argv


def to_explain(argv: list[str]) -> tuple[DictConfig, float | None] | None:
    """What `--explain` or `--explain=SECONDS` (of one resource) asks about: the composed settings; None without such an argument."""
    asked = [argument for argument in argv if argument == "--explain" or argument.startswith("--explain=")]
    if not asked:
        return None
    text = asked[-1].removeprefix("--explain").removeprefix("=")
    try:
        seconds = float(text) if text else None
    except ValueError:
        seconds = -1.0
    if seconds is not None and not 0 < seconds < float("inf"):
        raise UserError(f"--explain={text} must be the seconds that one resource (an epoch, say) takes, such as --explain=2.5")
    return _compose([argument for argument in argv if argument not in asked]), seconds


def merged(cfg: DictConfig, overrides: list[str]) -> tuple[DictConfig, Path | None]:
    """The configuration of the study to run, and its folder if it goes on with an earlier one."""
    if cfg.resume is None:
        return cfg, None
    folder = Path(cfg.resume)
    changed = [text.lstrip("+") for text in overrides if text.lstrip("+").startswith(MAY_CHANGE[:-1])]
    result = OmegaConf.merge(earlier_settings(folder), OmegaConf.from_dotlist(changed))
    assert isinstance(result, DictConfig)
    return result, folder


def earlier_settings(folder: Path) -> Any:
    """Those of the study in `folder`; Hydra's own copy is that of the last launch there, which may have been another."""
    kept = folder / SETTINGS
    return OmegaConf.load(kept if kept.exists() else folder / ".hydra" / "config.yaml")


def _known(override: str, settings: Any) -> str:
    """`override`, if the study has such a setting."""
    name = override.partition("=")[0]
    names = _flatten(OmegaConf.to_container(settings), "")
    if not name.startswith("backend."):
        names += _known_keys()  # a study of an earlier version may lack some
    if name not in names:
        close = get_close_matches(name, names, 1)
        raise UserError(f"{override}: this study has no setting {name}" + (f"; did you mean {close[0]}?" if close else ""))
    return override


def _resume_arguments(argv: list[str]) -> list[str]:
    text = next(argument for argument in argv if argument.startswith("resume="))
    folder = Path(text.removeprefix("resume=")).resolve()
    for path in (folder / FILE_NAME, folder / ".hydra" / "config.yaml"):
        if not path.exists():
            raise UserError(f"resume={folder} is not the folder of a study: {path} does not exist")
    for argument in argv:
        if "=" in argument and argument != text and not argument.lstrip("+").startswith(MAY_CHANGE):
            raise UserError(
                f"{argument} cannot change while a study is resumed: only workers, budget.*, backend.*, retries, suggest_* and "
                "surrogate_device can; start a new study for the rest"
            )
    rest = [argument for argument in argv if argument != text]
    _compose([argument for argument in rest if argument.startswith("hydra.")])
    changed = [_known(argument.lstrip("+"), earlier_settings(folder)) for argument in rest if not argument.startswith(("hydra.", "-"))]
    rest = [argument for argument in rest if argument.startswith(("hydra.", "-"))]
    # Hydra composes them with the default choices, which need not have these settings; `merged` has the study's own.
    return [*rest, *(f"++{argument}" for argument in changed), f"resume={folder}", f"hydra.run.dir={folder}", "hydra.output_subdir=null"]


def _compose(overrides: list[str]) -> DictConfig:
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            cfg = compose("main", overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_sentence(error, overrides)) from error
    return cfg


def _sentence(error: Exception, overrides: list[str]) -> str:
    """Hydra's message on one line, with the nearest valid name where one can be guessed."""
    message = " ".join(str(error).split())
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        group = CONFIG_DIR / key
        if group.is_dir() and not (group / f"{value}.yaml").exists():
            options = sorted(path.stem for path in group.glob("*.yaml"))
            return f"{override}: there is no such {key}; choose {', '.join(options)}"
        if f"Key '{key.rpartition('.')[2]}'" in message or f"'{key}'" in message:
            names = _known_keys()
            close = get_close_matches(key, names, 1)
            hint = f"did you mean {close[0]}?" if close else f"top-level settings are {', '.join(n for n in names if '.' not in n)}"
            return f"{override}: there is no setting {key}; {hint} (all of them: python -m experiments.main --cfg job)"
    return message


def _known_keys() -> list[str]:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("main")
    return _flatten(OmegaConf.to_container(cfg), "")


def _flatten(node: object, prefix: str) -> list[str]:
    if not isinstance(node, dict):
        return []
    return [name for key, value in node.items() for name in (f"{prefix}{key}", *_flatten(value, f"{prefix}{key}."))]


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"hydra.run.dir={folder} cannot be written ({error.strerror}): choose a folder that you may write") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"hydra.run.dir={folder} cannot be written: choose a folder that you may write")


def fail(error: Exception) -> None:
    """Say what is wrong in one sentence and exit with status 2."""
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)
