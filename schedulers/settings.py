"""Checks of settings that several schedulers share; each names the setting, its value and what would be valid."""

from __future__ import annotations

from typing import Any, get_args


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raises ValueError unless `value` is one of the strings of the Literal `choices`."""
    valid = get_args(choices)
    if value not in valid:
        raise ValueError(f"scheduler.{name}={value} is unknown: choose {' or '.join(valid)}")


def check_whole(name: str, value: object, least: int = 1) -> None:
    """Raises ValueError unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"scheduler.{name}={value} must be a whole number of at least {least}")
