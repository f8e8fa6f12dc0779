"""Data sets arrive split and standardised; a download is cached once, checked, and fails in one sentence."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest

from experiments.benchmarks import datasets

ROWS, FEATURES = datasets.OPENML["electricity"].num_rows, datasets.OPENML["electricity"].num_features


class Openml:
    """Stands for openml.org: counts downloads, and refuses them while `offline`."""

    def __init__(self) -> None:
        self.downloads, self.offline = 0, False
        rng = np.random.default_rng(0)
        self.data, self.target = rng.normal(size=(ROWS, FEATURES)), np.where(rng.random(ROWS) < 0.4, "UP", "DOWN")

    def __call__(self, *, data_id: int, **_: Any) -> SimpleNamespace:
        assert data_id == 151
        if self.offline:
            raise URLError("Network is unreachable")
        self.downloads += 1
        return SimpleNamespace(data=self.data, target=self.target)


@pytest.fixture
def openml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Openml]:
    fake = Openml()
    monkeypatch.setenv("MFGP_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("sklearn.datasets.fetch_openml", fake)
    datasets.load.cache_clear()
    yield fake
    datasets.load.cache_clear()


def load_afresh(data_dir: str | None = None) -> datasets.Dataset:
    datasets.load.cache_clear()
    return datasets.load("electricity", data_dir)


@pytest.mark.parametrize(("name", "num_rows", "num_classes"), [("digits", 1797, 10), ("wine", 178, 3), ("breast_cancer", 569, 2)])
def test_a_bundled_data_set_is_split_stratified_and_standardised(name: str, num_rows: int, num_classes: int) -> None:
    data = datasets.load(name)
    assert (len(data.x_train) + len(data.x_valid), data.num_classes) == (num_rows, num_classes)
    assert {a.dtype for a in (data.x_train, data.x_valid)} == {np.dtype(np.float32)}
    assert {a.dtype for a in (data.y_train, data.y_valid)} == {np.dtype(np.int32)}
    np.testing.assert_allclose(data.x_train.mean(0), 0, atol=1e-5)
    spread = data.x_train.std(0, dtype=np.float64)
    assert np.all((np.abs(spread - 1) < 1e-5) | (spread == 0))
    shares = [np.bincount(y, minlength=num_classes) / len(y) for y in (data.y_train, data.y_valid)]
    np.testing.assert_allclose(shares[0], shares[1], atol=1 / 40)


def test_an_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="'mnist' is unknown; valid are digits, wine, breast_cancer, electricity"):
        datasets.load("mnist")


def test_a_download_happens_once_and_the_cache_returns_what_was_downloaded(openml: Openml) -> None:
    first = load_afresh()
    openml.offline = True
    again = load_afresh()
    assert openml.downloads == 1
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    # standardised values do not depend on the affine map; labels are in sorted order, DOWN before UP
    assert np.bincount(np.concatenate([again.y_train, again.y_valid])).tolist() == [
        np.sum(openml.target == label) for label in ("DOWN", "UP")
    ]


def test_a_damaged_cache_file_is_downloaded_anew_with_a_warning(openml: Openml, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = load_afresh()
    path = tmp_path / "datasets" / "electricity.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    again = load_afresh()
    assert openml.downloads == 2
    assert "is damaged" in caplog.text
    np.testing.assert_array_equal(first.x_train, again.x_train)


def test_a_cache_file_without_its_checksum_does_not_count(openml: Openml, tmp_path: Path) -> None:
    load_afresh()
    (tmp_path / "datasets" / "electricity.sha256").unlink()
    load_afresh()
    assert openml.downloads == 2


def test_without_network_one_sentence_names_source_size_and_folder_and_nothing_is_left(openml: Openml, tmp_path: Path) -> None:
    openml.offline = True
    with pytest.raises(ValueError, match=r"openml\.org \(data set 151, about 3 MB, URLError") as caught:
        load_afresh()
    assert str(tmp_path / "datasets") in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.*"))


def test_a_download_of_the_wrong_shape_is_refused_and_not_cached(openml: Openml, tmp_path: Path) -> None:
    openml.data, openml.target = openml.data[:100], openml.target[:100]
    with pytest.raises(ValueError, match=r"shapes \(100, 8\) and \(100,\); expected \(45312, 8\)"):
        load_afresh()
    assert not list(tmp_path.rglob("*.*"))


def test_missing_values_are_refused(openml: Openml) -> None:
    openml.data[7, 3] = np.nan
    with pytest.raises(ValueError, match="missing or infinite"):
        load_afresh()


def test_files_in_data_dir_come_before_a_download(openml: Openml, tmp_path: Path) -> None:
    (tmp_path / "electricity").mkdir()
    np.savez(tmp_path / "electricity" / "electricity.npz", X=openml.data, y=(openml.target == "UP").astype(np.int8))
    given = load_afresh(str(tmp_path))
    assert openml.downloads == 0
    np.testing.assert_allclose(given.x_train, load_afresh().x_train, atol=1e-6)


@pytest.mark.skipif("MFGP_DATA_DIR" not in os.environ, reason="MFGP_DATA_DIR names no folder with the real file")
def test_the_real_electricity_file_is_read(openml: Openml) -> None:
    openml.offline = True
    data = load_afresh(os.environ["MFGP_DATA_DIR"])
    labels = np.concatenate([data.y_train, data.y_valid])
    assert np.bincount(labels).tolist() == [26075, 19237]  # DOWN, UP as OpenML publishes them
    assert data.x_train.shape == (30208, 8)
