"""Classification data for the real benchmarks: what scikit-learn bundles, and the OpenML data sets of the A-BOHB paper.

An OpenML data set is looked for in `data_dir`, then in the user's cache, then downloaded once. The split is fixed (a third for
validation, stratified), so that studies of different seeds tune on the same data.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sklearn.datasets
from jaxtyping import Float32, Int32
from sklearn.model_selection import train_test_split

from experiments.runtime import cache_dir

log = logging.getLogger(__name__)

BUNDLED = {"digits": "load_digits", "wine": "load_wine", "breast_cancer": "load_breast_cancer"}
TIMEOUT = 60.0  # seconds without an answer after which a download is given up


class Source(NamedTuple):
    data_id: int  # of openml.org
    num_rows: int
    num_features: int
    megabytes: int  # what the download weighs, roughly


OPENML = {
    "electricity": Source(151, 45312, 8, 3),
    "helena": Source(41169, 65196, 27, 15),
    "robert": Source(41165, 10000, 7200, 270),
    "dilbert": Source(41163, 10000, 2000, 180),
}


class Dataset(NamedTuple):
    """Features have mean 0 and variance 1 over the training rows; a feature that is constant there is 0 for every training row."""

    x_train: Float32[np.ndarray, "N D"]
    y_train: Int32[np.ndarray, " N"]
    x_valid: Float32[np.ndarray, "V D"]
    y_valid: Int32[np.ndarray, " V"]
    num_classes: int


@lru_cache(maxsize=2)
def load(name: str, data_dir: str | None = None) -> Dataset:
    """The data set `name`, split and standardised; the same arrays again within a process."""
    if name in BUNDLED:
        x, y = getattr(sklearn.datasets, BUNDLED[name])(return_X_y=True)
    elif name in OPENML:
        x, y = _openml(name, data_dir)
    else:
        raise ValueError(f"dataset={name!r} is unknown; valid are {', '.join([*BUNDLED, *OPENML])}")
    return _split(x, y)


def _split(x: Any, y: Any) -> Dataset:
    classes, labels = np.unique(y, return_inverse=True)
    parts = train_test_split(np.asarray(x, np.float64), labels, test_size=1 / 3, random_state=0, stratify=labels)
    x_train, x_valid, y_train, y_valid = parts
    mean, scale = x_train.mean(0), x_train.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    x_train, x_valid = (((part - mean) / scale).astype(np.float32) for part in (x_train, x_valid))
    return Dataset(x_train, y_train.astype(np.int32), x_valid, y_valid.astype(np.int32), len(classes))


def _openml(name: str, data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    source = OPENML[name]
    if data_dir is not None:
        given = Path(data_dir) / name / f"{name}.npz"
        if given.is_file():
            with np.load(given, allow_pickle=False) as file:
                return _checked(name, file["X"], file["y"], str(given))
    cached = cache_dir() / "datasets" / f"{name}.parquet"
    if not _is_intact(cached):
        x, y = _checked(name, *_fetch(name, source, cached, data_dir), f"OpenML data set {source.data_id}")
        _save(cached, x, y)
    table = pq.read_table(cached)
    columns = [column.to_numpy() for column in table.columns]
    return np.stack(columns[:-1], axis=1), columns[-1]


def _checked(name: str, x: np.ndarray, y: np.ndarray, origin: str) -> tuple[np.ndarray, np.ndarray]:
    expected = (OPENML[name].num_rows, OPENML[name].num_features)
    if x.shape != expected or y.shape != expected[:1]:
        raise ValueError(
            f"dataset={name!r}: {origin} holds arrays of shapes {x.shape} and {y.shape}; expected {expected} and {expected[:1]}"
        )
    if not np.isfinite(x).all():
        raise ValueError(f"dataset={name!r}: {origin} holds missing or infinite feature values")
    return x, y


def _fetch(name: str, source: Source, cached: Path, data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    log.info("downloading %s (OpenML data set %d, about %d MB) to %s", name, source.data_id, source.megabytes, cached)
    try:
        with _timeout(TIMEOUT):
            # Without pandas, and without scikit-learn's own cache: ours is checksummed and far smaller.
            bunch = sklearn.datasets.fetch_openml(data_id=source.data_id, as_frame=False, parser="liac-arff", cache=False)
        return np.asarray(bunch.data, np.float32), np.unique(bunch.target, return_inverse=True)[1]
    except Exception as error:  # URLError, HTTPError, OpenMLError, a truncated file: the way out is the same
        given = Path(data_dir or "<data_dir>") / name / f"{name}.npz"
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(
            f"dataset={name!r} is not here and could not be fetched from openml.org (data set {source.data_id}, "
            f"about {source.megabytes} MB, {reason}); go online once so that it is cached in {cached.parent}, "
            f"or put the arrays X and y into {given} and set data_dir"
        ) from error


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """fetch_openml opens its sockets without a timeout: a silent network would hang it for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _is_intact(path: Path) -> bool:
    checksum = path.with_suffix(".sha256")
    if not (path.is_file() and checksum.is_file()):
        return False
    if _sha256(path) == checksum.read_text().strip():
        return True
    log.warning("%s does not have the checksum in %s: it is damaged and will be downloaded anew", path, checksum)
    return False


def _save(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    """The file first, its checksum last: whatever interrupts this, a file without a valid checksum does not count."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {f"x{i}": x[:, i].astype(np.float32) for i in range(x.shape[1])} | {"y": y.astype(np.int32)}
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(descriptor)
    try:
        pq.write_table(pa.table(columns), temporary)
        path.with_suffix(".sha256").unlink(missing_ok=True)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    path.with_suffix(".sha256").write_text(_sha256(path) + "\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
