"""What the overrides of a study came to: the values that its results depend on, kept with them so that a change is noticed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Of conf/main.yaml: the seed is kept apart, and these change no result of a simulated study.
IRRELEVANT = ("seed", "data_dir", "resume", "suggest_timeout", "suggest_ahead", "surrogate_device")
IF_USED = ("surrogate", "acquisition")  # by a searcher that refers to them
EXACT = ("prior.", "benchmark.space.")  # what users write: here a name that came or went is a change


def resolved(cfg: Any) -> dict[str, Any]:
    """The values of a composed configuration by their dotted names, interpolations as they are written."""
    from omegaconf import OmegaConf

    parts = OmegaConf.to_container(cfg)
    assert isinstance(parts, dict)
    values = {name: value for part in parts if part not in IRRELEVANT for name, value in _flat(str(part), parts[part]).items()}
    used = {part for part in IF_USED if f"${{{part}}}" in values.values()}
    return {name: value for name, value in values.items() if name.split(".")[0] not in set(IF_USED) - used}


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {key: leaf for inner, part in value.items() for key, leaf in _flat(f"{name}.{inner}", part).items()}
    return {name: value if isinstance(value, (bool, int, float, str, list, type(None))) else str(value)}


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first value that differs, in words; empty if none does.

    A name that only one of them has is no difference, since new code may have new settings (of which commit a study is, is kept apart);
    but it is one in a prior or a space.
    """
    for name in sorted(before.keys() | now.keys()):
        is_known = name in before and name in now
        if before.get(name) != now.get(name) and (is_known or name.startswith(EXACT)):
            return f"{name}={_said(before, name)}, which the same overrides now make {_said(now, name)}"
    return ""


def _said(values: Mapping[str, Any], name: str) -> str:
    return str(values[name]) if name in values else "(none)"
