"""Each network at good hyperparameters, of a size for a CPU, beside the level it must reach: `python -m experiments.bench levels lstm`.

    mlp      electricity: validation error no more than one point above scikit-learn's MLPClassifier on the same split
    lstm     WikiText-2: validation perplexity below 200
    resnet   CIFAR-10, of whose training images 10,000 suffice: test error at most 40 %

`--folder` keeps a checkpoint after each epoch, from which a command that is given again goes on.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments.runtime import prepare_environment

CONF = Path(__file__).parents[2] / "conf" / "benchmark"
WINDOW = 20  # words of the LSTM: more steps in an epoch, at hardly more cost, than with the paper's 35
CONFIGS: dict[str, dict[str, Any]] = {
    "mlp": dict(
        learning_rate=1e-3, batch_size=64, dropout_1=0.0, dropout_2=0.0, units_1=256, units_2=256, init_scale_1=0.3, init_scale_2=0.06
    ),
    "lstm": dict(learning_rate=20.0, batch_size=16, dropout=0.0, clip=0.5, decay=4.0),
    "resnet": dict(learning_rate=0.05, batch_size=64, weight_decay=5e-4, momentum=0.9),
}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench levels", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("network", choices=CONFIGS)
    parser.add_argument("--data-dir", help="a folder with data sets that need not be downloaded")
    parser.add_argument("--epochs", type=int, help="mlp 27, lstm 2, resnet 18")
    parser.add_argument("--units", type=int, default=96, help="of the LSTM's layers")
    parser.add_argument("--folder", help="where to keep a checkpoint")
    options = parser.parse_args(argv)
    prepare_environment()
    benchmark, level, shown = {"mlp": _mlp, "lstm": _lstm, "resnet": _resnet}[options.network](options)
    best = math.inf
    for progress in _train(benchmark, CONFIGS[options.network], options.folder):
        value = shown(progress.metric)
        best = min(best, value)
        print(f"epoch {progress.r}: {value:.4f}, {progress.seconds:.1f} s", flush=True)
    print(f"best {best:.4f}, last {value:.4f}; demanded {level:.4f} or less at last: {'reached' if value <= level else 'NOT reached'}")
    raise SystemExit(0 if value <= level else 1)


def _train(benchmark: Any, config: dict[str, Any], folder: str | None) -> Iterator[Any]:
    from flax import serialization

    from experiments.benchmarks.checkpoint import FILE_NAME
    from schedulers.types import Job

    path = Path(folder or ".") / FILE_NAME
    done = len(serialization.msgpack_restore(path.read_bytes())["metrics"]) if folder and path.is_file() else 0
    return benchmark.train(Job(0, config, min(done, benchmark.r_max - 1), benchmark.r_max), folder)


def _space(name: str) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.load(CONF / f"{name}.yaml").space


def _mlp(options: argparse.Namespace) -> tuple[Any, float, Callable[[float], float]]:
    from sklearn.neural_network import MLPClassifier

    from experiments.benchmarks import datasets
    from experiments.benchmarks.mlp import MLP

    data = datasets.load("electricity", options.data_dir)
    reference = MLPClassifier(random_state=0).fit(data.x_train, data.y_train)
    error = 1 - reference.score(data.x_valid, data.y_valid)
    print(f"scikit-learn's MLPClassifier: validation error {error:.4f} after {reference.n_iter_} epochs")
    return MLP(_space("mlp"), "electricity", options.epochs or 27, options.data_dir), error + 0.01, float


def _lstm(options: argparse.Namespace) -> tuple[Any, float, Callable[[float], float]]:
    from experiments.benchmarks.lstm import LSTM

    return LSTM(_space("lstm"), options.epochs or 2, options.units, WINDOW, data_dir=options.data_dir), 200.0, math.exp


def _resnet(options: argparse.Namespace) -> tuple[Any, float, Callable[[float], float]]:
    from experiments.benchmarks.resnet import ResNet

    num = options.epochs or 18
    decay_after = max(1, 3 * num // 4)
    benchmark = ResNet(_space("resnet"), num, (1, 1, 1), 16, decay_after, evaluate="test", data_dir=options.data_dir)
    return benchmark, 0.4, float
