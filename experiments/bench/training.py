"""What training costs: epochs a second of the perceptron beside the same network in PyTorch, and how soon a second trial starts.

The perceptron is the A-BOHB paper's on electricity (`--data-dir`, the cache, or a download), two layers of `--units`, batches of
`--batch`, Adam, dropout 0. The two libraries take turns, so that what else the machine does falls on both; of each the fastest epoch
counts. PyTorch is measured where it is installed, in this Python or in the one that `--torch-python` names.

The second trial has another configuration of the same bucket of sizes; the time from its start to the end of its first epoch is
compared with the epochs that follow: the difference is what the start costs. `taskset -c 0` before the command keeps both on one core.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.runtime import prepare_environment

NUM_SECOND = 5

# Runs where PyTorch is: reads the arrays, then trains one epoch for each line on its standard input and answers with its seconds.
TORCH = """
import sys, time
import numpy as np
try:
    import torch
except ImportError:
    sys.exit("no torch")
with np.load(sys.argv[1]) as file:
    arrays = {name: torch.from_numpy(file[name]) for name in file.files}
units, batch, classes = map(int, sys.argv[2:5])
x, y, x_valid, y_valid = arrays["x_train"], arrays["y_train"].long(), arrays["x_valid"], arrays["y_valid"].long()
layer = torch.nn.Linear
net = torch.nn.Sequential(layer(x.shape[1], units), torch.nn.ReLU(), layer(units, units), torch.nn.ReLU(), layer(units, classes))
optimiser, loss_of = torch.optim.Adam(net.parameters(), 1e-3), torch.nn.CrossEntropyLoss()
print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    order = torch.randperm(len(x))
    for rows in order.split(batch):
        optimiser.zero_grad()
        loss_of(net(x[rows]), y[rows]).backward()
        optimiser.step()
    with torch.no_grad():
        error = (net(x_valid).argmax(1) != y_valid).float().mean().item()
    print(time.perf_counter() - start, error, flush=True)
"""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench training", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--dataset", default="electricity", help="as benchmark.dataset of benchmark=mlp")
    parser.add_argument("--data-dir", help="a folder with data sets that need not be downloaded")
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has PyTorch")
    options = parser.parse_args(argv)
    prepare_environment()
    measure(options)


def measure(options: argparse.Namespace) -> None:
    from experiments.benchmarks import datasets
    from experiments.benchmarks.mlp import DOMAINS, MLP
    from schedulers.types import Job

    data = datasets.load(options.dataset, options.data_dir)
    config: dict[str, Any] = dict.fromkeys(["init_scale_1", "init_scale_2"], 0.1) | dict.fromkeys(["dropout_1", "dropout_2"], 0.0)
    config |= {"units_1": options.units, "units_2": options.units, "batch_size": options.batch, "learning_rate": 1e-3}
    space = {"hyperparameters": {name: {"type": "uniform_float", "lower": 0.0, "upper": 0.9} for name in ("dropout_1", "dropout_2")}}
    space["hyperparameters"] |= {name: {"type": "constant", "value": config[name]} for name in DOMAINS if not name.startswith("dropout")}
    benchmark = MLP(space, options.dataset, options.epochs + 1, options.data_dir)

    with tempfile.TemporaryDirectory() as folder:
        torch = _start_torch(Path(folder), data, options)
        trial = benchmark.train(Job(0, config, 0, options.epochs + 1), None)
        first = next(trial).seconds  # compiles
        ours, theirs = [], []
        for _ in range(options.epochs):
            if torch is not None:
                theirs.append(_torch_epoch(torch))
            step = next(trial)
            ours.append((step.seconds, step.metric))
        if torch is not None:
            torch.communicate()
    _report("JAX", ours)
    print(f"  first epoch of the first trial of its shape, compiling or loading included: {first:.2f} s")
    if theirs:
        _report("PyTorch", theirs)
        print(f"JAX is {min(theirs)[0] / min(ours)[0]:.2f} times as fast")
    else:
        print("PyTorch is not installed here: name a Python that has it with --torch-python")
    _second_trial(benchmark, config)


def _second_trial(benchmark: Any, config: dict[str, Any]) -> None:
    from schedulers.types import Job

    firsts, others = [], []
    for number in range(NUM_SECOND):
        start = time.perf_counter()
        trial = benchmark.train(Job(1, {**config, "dropout_1": 0.1 + number / 100}, 0, 3), None)
        next(trial)
        firsts.append(time.perf_counter() - start)
        others += [step.seconds for step in trial]
    first, other = min(firsts), min(others)
    print(f"second trial of the shape ({NUM_SECOND} times, the fastest counts): first epoch after {first:.3f} s, later ones {other:.3f} s")
    print(f"  so its first step starts after {max(0.0, first - other):.3f} s")


def _start_torch(folder: Path, data: Any, options: argparse.Namespace) -> subprocess.Popen[str] | None:
    arrays, script = folder / "data.npz", folder / "side.py"
    np.savez(arrays, **{name: getattr(data, name) for name in ("x_train", "y_train", "x_valid", "y_valid")})
    script.write_text(TORCH)
    sizes = [str(options.units), str(options.batch), str(data.num_classes)]
    command = [options.torch_python, str(script), str(arrays), *sizes]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    greeting = process.stdout.readline()
    if not greeting:
        _, said = process.communicate()
        if said.strip() != "no torch":
            raise RuntimeError(f"the PyTorch side failed: {said.strip().splitlines()[-1] if said.strip() else 'it said nothing'}")
        return None
    print(greeting.strip())
    return process


def _torch_epoch(process: subprocess.Popen[str]) -> tuple[float, float]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("epoch\n")
    process.stdin.flush()
    seconds, error = process.stdout.readline().split()
    return float(seconds), float(error)


def _report(name: str, epochs: list[tuple[float, float]]) -> None:
    seconds = sorted(seconds for seconds, _ in epochs)
    median, error = seconds[len(seconds) // 2], epochs[-1][1]
    print(f"{name}: {1 / seconds[0]:.2f} epochs/s (fastest), {1 / median:.2f} (median); validation error at last {error:.4f}")
