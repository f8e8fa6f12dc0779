"""WikiText-2 and CIFAR-10 are read from data_dir, the cache or a server, checked, and missing in one sentence."""

import functools
import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.benchmarks import cifar, wikitext
from tests.benchmarks import small_files


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("MFGP_CACHE_DIR", str(tmp_path / "cache"))
    for module in (cifar, wikitext):
        module.load.cache_clear()
    yield
    for module in (cifar, wikitext):
        module.load.cache_clear()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is served, in the place of the official sources; what it holds counts as published."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        base = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setattr(wikitext, "URL", base)
        monkeypatch.setattr(cifar, "URL", f"{base}/{cifar.ARCHIVE}")
        yield folder
        running.shutdown()
        thread.join()


def serve_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Rows as Hugging Face has them: each line with its end, an empty line as the empty string."""
    lines = {part: small_files.words(30, seed) for part, seed in (("train", 0), ("valid", 0), ("test", 0))}
    for part, rows in lines.items():
        pq.write_table(pa.table({"text": [f" {row} \n" if row else "" for row in rows]}), folder / wikitext.FILES[part])
    words = {part: " ".join(word for row in rows for word in [*row.split(), "<eos>"]) for part, rows in lines.items()}
    monkeypatch.setattr(wikitext, "WORDS_SHA256", {part: hashlib.sha256(text.encode()).hexdigest() for part, text in words.items()})
    return lines


def test_the_text_is_downloaded_once_and_checked(server: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = serve_text(server, monkeypatch)
    first = wikitext.load()
    num_tokens = sum(len(row.split()) + 1 for row in lines["train"])
    assert len(first.train) == num_tokens and first.num_words == len({w for row in lines["train"] for w in row.split()}) + 1
    for path in server.iterdir():
        path.unlink()
    wikitext.load.cache_clear()
    again = wikitext.load()
    np.testing.assert_array_equal(first.train, again.train)
    assert sorted(p.name for p in (tmp_path / "cache" / "datasets" / "wikitext2").iterdir()) == sorted(
        name for part in wikitext.PARTS for name in (f"{part}.txt", f"{part}.txt.sha256")
    )


def test_another_text_than_the_published_is_refused(server: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve_text(server, monkeypatch)
    pq.write_table(pa.table({"text": ["something else"]}), server / wikitext.FILES["train"])
    with pytest.raises(ValueError, match="does not hold the published text"):
        wikitext.load()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_missing_text_is_one_sentence(server: Path) -> None:
    with pytest.raises(ValueError, match=r"huggingface\.co \(Salesforce/wikitext, wikitext-2-v1\) \(about 8 MB, HTTPError") as caught:
        wikitext.load("/nowhere")
    assert "put train.txt, valid.txt and test.txt into /nowhere/wikitext2" in str(caught.value) and "\n" not in str(caught.value)


def test_a_word_that_the_training_text_lacks_is_one_sentence(tmp_path: Path) -> None:
    small_files.write_wikitext(tmp_path)
    (tmp_path / "wikitext2" / "valid.txt").write_text("w1 w2\nw77 w1\n")
    with pytest.raises(ValueError, match="the word 'w77' of its part 'valid' does not occur in the training text"):
        wikitext.load(str(tmp_path))


def test_chunks_are_decoded_to_the_images_that_were_encoded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small_files.write_cifar_chunks(tmp_path)
    loaded = cifar.load(str(tmp_path))
    expected = [np.concatenate(arrays) for arrays in zip(small_files.images(30, 0), small_files.images(30, 1), strict=True)]
    np.testing.assert_array_equal(loaded.x_train, expected[0])
    np.testing.assert_array_equal(loaded.y_train, expected[1])
    np.testing.assert_array_equal(loaded.x_test, small_files.images(20, 2)[0])
    assert "holds 60 of the 50000 training images" in caplog.text


def test_any_image_survives_the_predictor() -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    np.testing.assert_array_equal(cifar.decode(small_files.encode(x)), x)


def test_the_archive_is_downloaded_once_and_read_in_its_order(server: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    archive = server / cifar.ARCHIVE
    small_files.write_cifar_archive(archive)
    monkeypatch.setattr(cifar, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    first = cifar.load()
    np.testing.assert_array_equal(first.x_train[10:20], small_files.images(10, 1)[0])
    np.testing.assert_array_equal(first.y_test, small_files.images(10, 5)[1])
    archive.rename(tmp_path / "moved")
    cifar.load.cache_clear()
    np.testing.assert_array_equal(first.x_train, cifar.load().x_train)
    cached = tmp_path / "cache" / "datasets"
    assert sorted(path.name for path in cached.iterdir()) == ["cifar10.npz", "cifar10.npz.sha256"]
    (cached / "cifar10.npz").write_bytes(b"damaged")
    cifar.load.cache_clear()
    with pytest.raises(
        ValueError, match=r"could not be fetched from cs\.toronto\.edu/~kriz \(cifar-10-binary\.tar\.gz\) \(about 163 MB, HTTPError"
    ):
        cifar.load()


def test_an_archive_with_another_checksum_is_refused(server: Path, tmp_path: Path) -> None:
    small_files.write_cifar_archive(server / cifar.ARCHIVE)
    with pytest.raises(ValueError, match="is not the official archive"):
        cifar.load()
    assert not list((tmp_path / "cache").rglob("*.npz")) and not list((tmp_path / "cache").rglob("*.part"))
    (tmp_path / "cifar10").mkdir()
    (server / cifar.ARCHIVE).rename(tmp_path / "cifar10" / cifar.ARCHIVE)
    with pytest.raises(ValueError, match="is not the official archive"):
        cifar.load(str(tmp_path))


def test_a_damaged_chunk_is_one_sentence(tmp_path: Path) -> None:
    small_files.write_cifar_chunks(tmp_path)
    path = tmp_path / "cifar10" / "cifar10_train_1.npz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"cifar10_train_1\.npz is damaged"):
        cifar.load(str(tmp_path))


@pytest.mark.skipif("MFGP_DATA_DIR" not in os.environ, reason="MFGP_DATA_DIR names no folder with the real files")
def test_the_real_images_have_their_published_moments() -> None:
    images = cifar.load(os.environ["MFGP_DATA_DIR"])
    assert images.x_test.shape == (10_000, 32, 32, 3) and np.bincount(images.y_test).tolist() == [1000] * 10
    np.testing.assert_allclose(images.x_train.mean((0, 1, 2)) / 255, [0.4914, 0.4822, 0.4465], atol=0.01)
