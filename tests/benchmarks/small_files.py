"""Small data sets in the published file formats, for the tests of the networks."""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

import numpy as np

SIDE = 32


def images(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose class is the brightness of a quarter and a tint: easy, but not at once."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(num) % 10)
    x = rng.integers(0, 120, (num, SIDE, SIDE, 3))
    for image, label in zip(x, labels, strict=True):
        row, col = divmod(label % 4, 2)
        image[16 * row : 16 * row + 16, 16 * col : 16 * col + 16] += 100
        image[..., label % 3] += 30
    return x.astype(np.uint8), labels.astype(np.uint8)


def encode(x: np.ndarray) -> np.ndarray:
    """Residuals [3, N, S, S] of the median edge detector, pixel by pixel as its definition reads (Weinberger et al. 2000)."""
    wide = x.astype(int)
    planes = np.stack([wide[..., 1], wide[..., 0] - wide[..., 1], wide[..., 2] - wide[..., 1]])
    residuals = np.zeros_like(planes)
    for index in np.ndindex(planes.shape):
        plane, image, i, j = index
        at = planes[plane, image]
        if i == 0 or j == 0:
            guess = at[i, j - 1] if j else at[i - 1, j] if i else 0
        else:
            a, b, c = at[i, j - 1], at[i - 1, j], at[i - 1, j - 1]
            guess = min(a, b) if c >= max(a, b) else max(a, b) if c <= min(a, b) else a + b - c
        residuals[index] = (at[i, j] - guess) % 256
    return residuals.astype(np.uint8)


def write_cifar_chunks(data_dir: Path, num_train: int = 60, num_test: int = 20) -> None:
    folder = data_dir / "cifar10"
    folder.mkdir(parents=True, exist_ok=True)
    for name, num, seed in (("train_0", num_train // 2, 0), ("train_1", num_train - num_train // 2, 1), ("test", num_test, 2)):
        x, y = images(num, seed)
        packed = np.frombuffer(lzma.compress(encode(x).tobytes()), np.uint8)
        np.savez(folder / f"cifar10_{name}.npz", xz=packed, labels=y, names=np.array([f"{i}.png" for i in range(num)]))


def write_cifar_archive(path: Path, num: int = 10) -> None:
    """As the official cifar-10-binary.tar.gz, with `num` images a batch; batch i has the images of seed i."""
    with tarfile.open(path, "w:gz") as archive:
        for seed, name in enumerate([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]):
            x, y = images(num, seed)
            content = np.concatenate([y[:, None], x.transpose(0, 3, 1, 2).reshape(num, -1)], axis=1).astype(np.uint8).tobytes()
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def words(num_lines: int, seed: int) -> list[str]:
    """Lines of a language whose next word is one of two: its perplexity is far below its 20 words."""
    rng = np.random.default_rng(seed)
    lines, word = [], 0
    for number in range(num_lines):
        line = []
        for _ in range(0 if number % 5 == 4 else int(rng.integers(5, 15))):  # some lines are empty, as in WikiText
            word = (word * 3 + int(rng.integers(1, 3))) % 20
            line.append(f"w{word}")
        lines.append(" ".join(line))
    return lines


def write_wikitext(data_dir: Path, num_lines: int = 60) -> None:
    folder = data_dir / "wikitext2"
    folder.mkdir(parents=True, exist_ok=True)
    for seed, part in enumerate(("train", "valid", "test")):
        text = "\n".join([" ".join(f"w{i}" for i in range(20)), *words(num_lines if part == "train" else num_lines // 4, seed)]) + "\n"
        (folder / f"{part}.txt.xz").write_bytes(lzma.compress(text.encode()))
