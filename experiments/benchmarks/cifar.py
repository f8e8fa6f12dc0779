"""CIFAR-10 (Krizhevsky 2009) as arrays: from `data_dir`, the cache, or the official archive, whichever comes first.

`data_dir`/cifar10 may hold the official cifar-10-binary.tar.gz, or lossless chunks cifar10_train_0.npz, cifar10_train_1.npz, ... and
cifar10_test.npz. Chunks may be fewer than the whole training set: the loader then says how many images there are.
"""

from __future__ import annotations

import logging
import lzma
import tarfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from experiments.benchmarks.downloads import dataset_cache, fetch, is_sealed, replacing, seal, sha256, unreachable

log = logging.getLogger(__name__)

NAME, MEGABYTES, NUM_CLASSES = "cifar10", 163, 10
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
ARCHIVE = "cifar-10-binary.tar.gz"
NUM_TRAIN = 50_000
SIZE = 32  # pixels a side
RECORD = 1 + 3 * SIZE * SIZE  # bytes: a label, then the planes red, green, blue


class Images(NamedTuple):
    x_train: UInt8[np.ndarray, "N S S 3"]
    y_train: Int32[np.ndarray, " N"]
    x_test: UInt8[np.ndarray, "T S S 3"]
    y_test: Int32[np.ndarray, " T"]


@lru_cache(maxsize=1)
def load(data_dir: str | None = None) -> Images:
    """The images; the same arrays again within a process. Raises ValueError when they cannot be had or are damaged."""
    if data_dir is not None:
        folder = Path(data_dir) / NAME
        chunks = sorted(folder.glob("cifar10_train_*.npz"))
        if chunks and (folder / "cifar10_test.npz").is_file():
            return _from_chunks(chunks, folder / "cifar10_test.npz")
        if (folder / ARCHIVE).is_file():
            return _from_archive(folder / ARCHIVE)
    cached = dataset_cache() / f"{NAME}.npz"
    if not is_sealed(cached):
        try:
            _download(cached)
        except Exception as error:  # URLError, HTTPError, a wrong checksum, a truncated archive: the way out is the same
            raise unreachable(NAME, f"cs.toronto.edu/~kriz ({ARCHIVE})", MEGABYTES, error, ARCHIVE, data_dir) from error
    with np.load(cached, allow_pickle=False) as file:
        return Images(**{name: file[name] for name in Images._fields})


def _from_chunks(train: list[Path], test: Path) -> Images:
    parts = [_read_chunk(path) for path in train]
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if len(x) < NUM_TRAIN:
        log.warning("dataset=%r: %s holds %d of the %d training images", NAME, train[0].parent, len(x), NUM_TRAIN)
    return Images(x, y, *_read_chunk(test))


def _read_chunk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            labels = file["labels"].astype(np.int32)
            residuals = np.frombuffer(lzma.decompress(file["xz"].tobytes()), np.uint8)
        return decode(residuals.reshape(3, len(labels), SIZE, SIZE)), labels
    except Exception as error:  # zipfile, lzma and numpy have errors of their own
        raise ValueError(f"dataset={NAME!r}: {path} is damaged: {type(error).__name__}: {error}") from error


def decode(residuals: UInt8[np.ndarray, "3 N S S"]) -> UInt8[np.ndarray, "N S S 3"]:
    """The images whose planes G, R - G and B - G a median edge detector (JPEG-LS) predicts up to `residuals`, modulo 256."""
    # Pixels lead, so that each step of the prediction reads and writes whole rows of memory.
    given = np.ascontiguousarray(residuals.transpose(2, 3, 0, 1)).astype(np.int16)
    planes = np.zeros_like(given)
    for i, j in np.ndindex(planes.shape[:2]):
        left = planes[i, j - 1] if j else None
        above = planes[i - 1, j] if i else None
        near = _predicted(left, above, planes[i - 1, j - 1])
        green = (given[i, j, 0] + near[0]) & 255
        # A difference is known up to 256; that its colour lies in [0, 255] settles it.
        others = (given[i, j, 1:] + near[1:] + green) & 255
        planes[i, j, 0], planes[i, j, 1:] = green, others - green
    green, red, blue = planes.transpose(2, 3, 0, 1)
    return np.stack([red + green, green, blue + green], axis=-1).astype(np.uint8)


def _predicted(left: np.ndarray | None, above: np.ndarray | None, corner: np.ndarray) -> np.ndarray:
    """At the upper and left edges the one neighbour that exists; 0 in the first corner."""
    if left is None:
        return np.zeros_like(corner) if above is None else above
    if above is None:
        return left
    return np.clip(left + above - corner, np.minimum(left, above), np.maximum(left, above))


def _from_archive(path: Path) -> Images:
    """The official binary version: five training batches in their order, and the test batch."""
    _check_archive(path)
    with tarfile.open(path) as archive:
        batches = []
        for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
            member = archive.extractfile(f"cifar-10-batches-bin/{name}")
            if member is None:
                raise ValueError(f"dataset={NAME!r}: {path} has no file {name}")
            batches.append(np.frombuffer(member.read(), np.uint8).reshape(-1, RECORD))
    train, test = np.concatenate(batches[:-1]), batches[-1]
    return Images(*_from_records(train), *_from_records(test))


def _from_records(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pixels = records[:, 1:].reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), records[:, 0].astype(np.int32)


def _check_archive(path: Path) -> None:
    if sha256(path) != SHA256:
        raise ValueError(f"dataset={NAME!r}: {path} is not the official archive, whose SHA-256 is {SHA256}")


def _download(cached: Path) -> None:
    """The archive, kept as plain arrays, which load twenty times faster."""
    archive = cached.with_name(ARCHIVE)
    fetch(URL, archive, _check_archive)
    images = _from_archive(archive)
    with replacing(cached) as temporary, temporary.open("wb") as file:
        np.savez(file, **images._asdict())
    archive.unlink()
    seal(cached)
