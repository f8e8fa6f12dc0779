"""WikiText-2 as word numbers (Merity et al. 2016): from `data_dir`, the cache, or the official files, whichever comes first.

The text is split at white space and each line ends with <eos>; the vocabulary is the training text's, in the order of first use. Files
of `data_dir`/wikitext2 are read as they are (train, valid, test as .txt or .txt.xz); what is downloaded must be the published text.
"""

from __future__ import annotations

import hashlib
import lzma
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Int32

from experiments.benchmarks.downloads import dataset_cache, fetch, is_sealed, replacing, seal, unreachable

NAME, MEGABYTES = "wikitext2", 8
PARTS = ("train", "valid", "test")
SOURCE = "huggingface.co (Salesforce/wikitext, wikitext-2-v1)"
URL = "https://huggingface.co/datasets/Salesforce/wikitext/resolve/b08601e04326c79dfdd32d625aee71d232d685c3/wikitext-2-v1"
FILES = {"train": "train-00000-of-00001.parquet", "valid": "validation-00000-of-00001.parquet", "test": "test-00000-of-00001.parquet"}
# SHA-256 of the words, <eos> included, joined by single blanks: the same whatever file format they come in.
WORDS_SHA256 = {
    "train": "44cf9c78d1150937ab6c1341689cbd0443784f2182766d24e559359a6b45d58f",
    "valid": "e163383e62f6a4d2fb0b7266edfc5938d2f99ab74a335dc2049e68560ac9e30b",
    "test": "61455d0fbed012535f9f6c2342e3f86f931c7e96ad7b888486acb21c6a19ff18",
}
EOS = "<eos>"


class Text(NamedTuple):
    """Word numbers below `num_words`, in the order of the text."""

    train: Int32[np.ndarray, " N"]
    valid: Int32[np.ndarray, " V"]
    test: Int32[np.ndarray, " T"]
    num_words: int


@lru_cache(maxsize=2)
def load(data_dir: str | None = None) -> Text:
    """The text; the same arrays again within a process. Raises ValueError when it cannot be had, or a part is empty or does not fit."""
    words = {part: _words(_part_of(part, data_dir).splitlines()) for part in PARTS}
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words["train"]))}
    for part in PARTS:
        if len(words[part]) < 2:
            raise ValueError(f"dataset={NAME!r}: its part {part!r} is empty")
        for word in words[part]:
            if word not in vocabulary:
                raise ValueError(f"dataset={NAME!r}: the word {word!r} of its part {part!r} does not occur in the training text")
    train, valid, test = (np.array([vocabulary[word] for word in words[part]], np.int32) for part in PARTS)
    return Text(train, valid, test, len(vocabulary))


def _words(lines: list[str]) -> list[str]:
    return [word for line in lines for word in [*line.split(), EOS]]


def _part_of(part: str, data_dir: str | None) -> str:
    if data_dir is not None:
        for path in (Path(data_dir) / NAME / f"{part}{ending}" for ending in (".txt", ".txt.xz")):
            if path.is_file():
                return _read(path)
    cached = dataset_cache() / NAME / f"{part}.txt"
    if not is_sealed(cached):
        try:
            _download(part, cached)
        except Exception as error:  # URLError, HTTPError, a wrong checksum, a file that is no parquet: the way out is the same
            raise unreachable(NAME, SOURCE, MEGABYTES, error, "train.txt, valid.txt and test.txt", data_dir) from error
    return _read(cached)


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
        return (lzma.decompress(content) if path.suffix == ".xz" else content).decode("utf-8")
    except (lzma.LZMAError, UnicodeDecodeError) as error:
        raise ValueError(f"dataset={NAME!r}: {path} is damaged: {error}") from error


def _download(part: str, cached: Path) -> None:
    def check(path: Path) -> None:
        words = " ".join(_words(_lines(path)))
        if hashlib.sha256(words.encode()).hexdigest() != WORDS_SHA256[part]:
            raise ValueError(f"{URL}/{FILES[part]} does not hold the published text")

    parquet = cached.with_suffix(".parquet")
    fetch(f"{URL}/{FILES[part]}", parquet, check)
    with replacing(cached) as temporary:
        temporary.write_text("\n".join(_lines(parquet)) + "\n", encoding="utf-8")
    parquet.unlink()
    seal(cached)


def _lines(path: Path) -> list[str]:
    return [line.removesuffix("\n") for line in pq.read_table(path, columns=["text"])["text"].to_pylist()]
