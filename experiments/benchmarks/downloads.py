"""Fetch a file of an official source once: checked before it counts, and absent rather than half there when anything goes wrong."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.runtime import cache_dir

log = logging.getLogger(__name__)

TIMEOUT = 60.0  # seconds of silence after which a download is given up


def dataset_cache() -> Path:
    """The folder in which converted downloads lie, each beside its checksum."""
    return cache_dir() / "datasets"


def fetch(url: str, path: Path, check: Callable[[Path], None]) -> None:
    """Download `url` to `path`. `check` raises ValueError when the content is wrong, and then nothing is left at `path`."""
    log.info("downloading %s", url)
    with replacing(path) as temporary:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response, temporary.open("wb") as file:
            shutil.copyfileobj(response, file)
        check(temporary)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `path` when the block ends well, and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(descriptor)
    try:
        yield Path(name)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(path: Path) -> None:
    """Write the checksum of a finished file beside it; a file without a valid one does not count (`is_sealed`)."""
    with replacing(_checksum_of(path)) as temporary:
        temporary.write_text(sha256(path) + "\n")


def is_sealed(path: Path) -> bool:
    if not (path.is_file() and _checksum_of(path).is_file()):
        return False
    if sha256(path) == _checksum_of(path).read_text().strip():
        return True
    log.warning("%s does not have the checksum in %s: it is damaged and will be made anew", path, _checksum_of(path))
    return False


def unreachable(name: str, source: str, megabytes: int, error: Exception, files: str, data_dir: str | None) -> ValueError:
    """The one sentence for data that is neither here nor to be had: where it comes from, its size, and where to put it."""
    folder = Path(data_dir or "<data_dir>") / name
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ValueError(
        f"dataset={name!r} is not here and could not be fetched from {source} (about {megabytes} MB, {reason}); "
        f"go online once so that it is cached in {dataset_cache()}, or put {files} into {folder} and set data_dir"
    )


def _checksum_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
