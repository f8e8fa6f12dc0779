"""The connection to a Ray cluster, of which Ray allows one per process. Ray itself is imported here only, when it is asked for."""

from __future__ import annotations

import os
import socket
from typing import Any

CONNECT_SECONDS = 5.0
_is_ours = False  # whether `connect` made the connection


def library() -> Any:
    try:
        import ray
    except ModuleNotFoundError:
        raise ValueError("backend=ray needs the package ray: install what requirements-ray.txt names") from None
    return ray


def connect(address: str | None) -> Any:
    """The library, connected. Raises ValueError with one sentence if no cluster answers."""
    global _is_ours
    ray = library()
    if ray.is_initialized():
        return ray
    if address is not None and ":" in address:
        _check_answers(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    settings = {"include_dashboard": False} if address is None else {}
    try:
        ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **settings)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        said = " ".join(str(error).split())[:300]
        raise ValueError(f"backend.address={address}: no Ray cluster can be used there ({said})") from error
    _is_ours = True
    return ray


def disconnect() -> None:
    """Leave the cluster that `connect` joined; one that it started ends."""
    global _is_ours
    if _is_ours:
        library().shutdown()
        _is_ours = False


def _check_answers(address: str) -> None:
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"backend.address={address}: nothing answers there ({error}); give host:port of a running cluster, auto for the one on this "
            "machine, or null to start Ray here"
        ) from error
