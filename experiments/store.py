"""Where simulated studies are kept: one parquet file of events each, named after the overrides that describe it, so that figures which
share a study share its file; and what such a file says.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from experiments.resolved import changed, resolved
from experiments.simulation import EVENTS


class Study(NamedTuple):
    """A study of the grid: the overrides of conf/main.yaml that describe it, and its seed."""

    overrides: tuple[str, ...]
    seed: int

    @property
    def path(self) -> Path:
        digest = hashlib.blake2b(json.dumps(sorted(self.overrides)).encode(), digest_size=10).hexdigest()
        return Path(digest, f"seed-{self.seed}.parquet")


def is_stored(study: Study, store: Path) -> bool:
    return (store / study.path).is_file()


def load(study: Study, store: Path) -> pa.Table:
    path = store / study.path
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())}): remove it, and the study is computed again") from error
    for name in EVENTS.names:
        if name not in table.column_names:  # stored by code that did not know of it
            table = table.append_column(EVENTS.field(name), pa.nulls(len(table), EVENTS.field(name).type))
    return table


def keep(study: Study, store: Path, table: pa.Table) -> None:
    """Whole or not at all."""
    path = store / study.path
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "overrides.json").write_text(json.dumps(sorted(study.overrides)))
    temporary = path.with_suffix(f".{os.getpid()}.part")
    pq.write_table(table, temporary, compression="zstd")
    os.replace(temporary, path)


def metadata(table: pa.Table) -> dict[str, Any]:
    """What `simulate` noted about the study."""
    found: dict[str, Any] = json.loads(table.schema.metadata[b"study"])
    return found


def made_by(table: pa.Table) -> str:
    """The commit that a stored study was computed by (see `code.commit`)."""
    return str(metadata(table).get("commit", "unknown"))


def taken(table: pa.Table) -> float:
    """The seconds that a process spent on the stored study, by the clock, compiling included; its share, if others went along."""
    about = metadata(table)
    return float(sum(about["host_seconds"].values())) / float(about.get("together", 1))


class Meant:
    """What overrides come to now, each computed once."""

    def __init__(self, compose: Callable[[Sequence[str]], Any]) -> None:
        self._config = cache(compose)
        self.values = cache(lambda overrides: resolved(self._config(overrides)))
        self.digest = cache(self._digest)

    def _digest(self, overrides: tuple[str, ...]) -> str | None:
        """Of the benchmark's data."""
        from experiments.overrides import made

        found: str | None = getattr(made(self._config(overrides).benchmark), "digest", None)
        return found

    def change(self, kept: Mapping[str, Any], overrides: tuple[str, ...]) -> str:
        """What is other than a study's metadata `kept`, in words; empty if nothing is. What was not kept is taken as it is."""
        if kept.get("digest") is not None and kept["digest"] != self.digest(overrides):
            return "other data than the benchmark has now"
        return changed(kept["settings"], self.values(overrides)) if kept.get("settings") else ""


def check(stored: Mapping[Study, pa.Table], store: Path, compose: Callable[[Sequence[str]], Any]) -> None:
    """Raise ValueError for a stored study whose overrides mean something else by now: other data, or files of settings that were edited."""
    meant = Meant(compose)
    for study, table in stored.items():
        if change := meant.change(metadata(table), study.overrides):
            folder = (store / study.path).parent
            raise ValueError(f"{folder} holds studies of {change}: remove it, and they are computed again")


class Incumbents(NamedTuple):
    """One entry per new incumbent of a study.

    `best`: its metric, minimised; `final`: what its configuration reaches at r_max; `test`: its test metric, nan where there is none.
    """

    time: np.ndarray
    best: np.ndarray
    final: np.ndarray
    test: np.ndarray


def incumbents(table: pa.Table) -> Incumbents:
    rows = table.filter(pc.is_valid(table["final"]))
    return Incumbents(*(rows[name].to_numpy() for name in ("time", "metric", "final", "test")))
