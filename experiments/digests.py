"""Digests of what a study depends on: short texts that differ if it does."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest_of(content: Any) -> str:
    """Of numbers, texts, lists and dictionaries of them; the order of dictionaries counts."""
    return hashlib.blake2b(json.dumps(content, default=str).encode(), digest_size=10).hexdigest()


def settings(cfg: Any) -> dict[str, str]:
    """Of each part of a composed configuration that a study depends on besides its seed."""
    from omegaconf import OmegaConf

    parts = OmegaConf.to_container(cfg)
    assert isinstance(parts, dict)
    return {name: digest_of(part) for name, part in sorted(parts.items()) if name not in ("seed", "data_dir", "resume")}
