"""A prior over cell architectures: how often each operation stands on each edge of the best cells of NAS-Bench-201, from its table.

    python -m experiments.cell_prior --data-dir ... > conf/prior/my_cells.yaml
    python -m experiments.main benchmark=nas201 searcher=priorband scheduler=hyperband +prior=my_cells

One is added to every count, so that no operation is ruled out. `--names table` writes the edges' names of benchmark=nasbench201 (edge_0_1),
the default those of the networks that train, benchmark=nas201 and jahs (edge_0); the edges are the same.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int

from experiments.benchmarks.nasbench201 import EDGES, TASKS, Cells, best_cells, load_cells, worst_cells

Which = Literal["best", "worst"]
YAML_WORDS = ("true", "false", "yes", "no", "on", "off", "y", "n", "null")


def frequencies(ops: Int[np.ndarray, "N E"], num_operations: int) -> Float64[np.ndarray, "E O"]:
    """[edge, operation] of the cells `ops`, one added to every count; each row sums up to 1."""
    counts = np.array([np.bincount(edge, minlength=num_operations) for edge in ops.T]) + 1
    return np.asarray(counts / counts.sum(1, keepdims=True))


def chosen(cells: Cells, task: str, which: Which, number: int) -> Int[np.ndarray, "N E"]:
    """The operations of the `number` best or worst cells by mean validation accuracy on `task` after 200 epochs."""
    return (best_cells if which == "best" else worst_cells)(cells, task, number)


def as_yaml(table: Float64[np.ndarray, "E O"], operations: tuple[str, ...], names: list[str]) -> str:
    """Entries of a prior."""
    return "\n".join(f"{name}:\n  {probabilities(row, operations)}" for name, row in zip(names, table, strict=True))


def probabilities(row: Float64[np.ndarray, " O"], choices: Sequence[Any]) -> str:
    """A category's entry: four decimals, the last one such that they sum up to 1."""
    shown = [f"{p:.4f}" for p in row[:-1]]
    shown.append(f"{1 - sum(map(float, shown)):.4f}")
    return f"probabilities: {{{', '.join(f'{key(choice)}: {p}' for choice, p in zip(choices, shown, strict=True))}}}"


def key(choice: Any) -> str:
    """The choice as a key in YAML: quoted where it would else be read as something other than that text (0_1, off)."""
    is_plain = isinstance(choice, str) and choice.isidentifier() and choice.lower() not in YAML_WORDS
    return str(choice) if is_plain else json.dumps(choice)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.cell_prior", description="Operation frequencies of good cells, as a prior."
    )
    parser.add_argument("--data-dir", help="the folder that holds nasbench201/nasbench201.npz")
    parser.add_argument(
        "--task", choices=TASKS, default="cifar100", help="the data set that the cells are good on: another than you tune on"
    )
    parser.add_argument("--cells", choices=("best", "worst"), default="best")
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--names", choices=("trained", "table"), default="trained")
    options = parser.parse_args(argv)
    cells = load_cells(data_dir=options.data_dir)
    if not 0 < options.number <= len(cells.ops):
        parser.error(f"--number={options.number} must be from 1 to {len(cells.ops)}, the number of cells")
    table = frequencies(chosen(cells, options.task, options.cells, options.number), len(cells.op_names))
    names = [f"edge_{edge}" if options.names == "table" else f"edge_{i}" for i, edge in enumerate(EDGES)]
    print(f"# How often each operation stands on each edge of the {options.number} {options.cells} cells of NAS-Bench-201")
    print(f"# on {options.task} (validation accuracy at 200 epochs; one added to every count): python -m experiments.cell_prior")
    print(as_yaml(table, cells.op_names, names))


if __name__ == "__main__":
    main()
