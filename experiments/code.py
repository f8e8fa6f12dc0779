"""Which code a result comes from."""

import subprocess
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMPUTES = ("mfgp", "schedulers", "experiments", "conf")


@lru_cache(maxsize=1)
def commit() -> str:
    """The last commit of what computes (docs do not), with a + behind it if that has changed since; "unknown" outside a checkout."""
    last = _git("log", "-1", "--format=%h", "--abbrev=12", "--", *COMPUTES)
    if not last:
        return "unknown"
    return last + "+" * bool(_git("status", "--porcelain", "--", *COMPUTES))


def _git(*arguments: str) -> str:
    try:
        found = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
