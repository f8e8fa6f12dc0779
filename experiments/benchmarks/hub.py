"""Tables from a dataset repository on the Hugging Face Hub, kept in huggingface_hub's own cache and checked against the Hub's checksums.

huggingface_hub (an optional dependency) downloads each file under a temporary name and renames it, so nothing is ever half cached; it
compares sizes only, so that content is compared here. $HF_ENDPOINT names another server, $HF_HUB_OFFLINE=1 forbids the network.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from experiments.runtime import cache_dir


class Missing(ValueError):
    """The repository does not have the file."""


def fetch(repository: str, folder: str, files: Sequence[str], revision: str = "main") -> Path:
    """The local copy of `folder` of the dataset repository, downloaded file by file where it is not cached.

    Raises ValueError with one sentence if it cannot be had (Missing if it is not there), and removes a file whose content is not what the
    Hub says.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ValueError(f"benchmark.repository={repository!r} needs the package huggingface_hub: pip install huggingface_hub") from error
    paths = []
    for name in files:
        try:
            path = hf_hub_download(
                repository,
                f"{folder}/{name}",
                repo_type="dataset",
                revision=revision,
                cache_dir=cache_dir() / "hub",
                endpoint=os.environ.get("HF_ENDPOINT"),
            )
        except Exception as error:  # the network's, the server's, huggingface_hub's own: the way out is the same
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            is_missing = type(error).__name__ in ("EntryNotFoundError", "RemoteEntryNotFoundError")  # there is a local one, of the cache
            kind = Missing if is_missing else ValueError
            raise kind(
                f"benchmark.folder={folder!r}: {name} is not cached and could not be fetched from the dataset {repository!r} "
                f"({reason[:200]}); put the folder's files below data_dir, or go online once"
            ) from error
        paths.append(Path(path))
        _verify(paths[-1])
    return paths[0].parent


def _verify(path: Path) -> None:
    """Compare content with the checksum under which the cache keeps it: sha256 of large files, git's own of the others.

    A file that was found intact is remembered by size and time of its last change.
    """
    blob = path.resolve()
    expected = blob.name
    stamp = blob.with_name(f"{expected}.checked")
    known = f"{blob.stat().st_size} {blob.stat().st_mtime_ns}"
    if stamp.is_file() and stamp.read_text() == known:
        return
    if len(expected) == 64:
        with blob.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    else:
        content = blob.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if found != expected:
        path.unlink()
        blob.unlink(missing_ok=True)
        raise ValueError(f"{path.name} was damaged on its way (checksum {found[:12]}, expected {expected[:12]}) and is removed: try again")
    stamp.write_text(known)
