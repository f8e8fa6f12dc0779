"""Checkpoints of trials that we train: the state and the metrics so far in one file, replaced as a whole or not at all.

A driver that died may not have heard of the last resources its worker reached, so the state may be ahead of what the driver asks for:
the metrics let the trial report again what was lost, and go on from its state.
"""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
from flax import serialization

FILE_NAME = "state.msgpack"


def save(folder: str | Path, state: Any, metrics: list[float], identity: str) -> None:
    """Store the state after resource len(metrics); `identity` says whose it is."""
    content = serialization.to_bytes(
        {"identity": identity, "metrics": {str(i): metric for i, metric in enumerate(metrics)}, "state": state}
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.part"):  # of a worker that was killed while it wrote
        left.unlink()
    descriptor, temporary = tempfile.mkstemp(dir=folder, suffix=".part")
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    os.replace(temporary, folder / FILE_NAME)


def load(folder: str | Path | None, template: Any, r_from: int, identity: str) -> tuple[Any, list[float]]:
    """The state, like `template`, and the metrics of resources 1, 2, ...: at least `r_from` of them.

    Raises ValueError when there is no checkpoint, or it is damaged, too old, or another trial's.
    """
    if folder is None:
        raise ValueError(f"a trial that goes on from resource {r_from} needs the folder of its checkpoint")
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise ValueError(f"the checkpoint {path} does not exist; expected was the state of resource {r_from}")
    try:
        content = serialization.msgpack_restore(path.read_bytes())
        owner, stored, state = content["identity"], content["metrics"], content["state"]
        metrics = [float(stored[str(i)]) for i in range(len(stored))]
    except Exception as error:  # msgpack raises its own family, and KeyError or TypeError for other contents
        raise ValueError(f"the checkpoint {path} is damaged: {type(error).__name__}: {error}") from error
    if owner != identity:
        raise ValueError(f"the checkpoint {path} belongs to another configuration, data set or seed than this trial's")
    if len(metrics) < r_from or not all(map(math.isfinite, metrics)):
        raise ValueError(f"the checkpoint {path} holds resource {len(metrics)}, not {r_from} or a later one")
    return jax.device_put(serialization.from_state_dict(template, state)), metrics
