"""Surrogate models are read from their published files: operators agree with the definition, values with another runtime's."""

import json
import os
import pickle
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from ConfigSpace import Configuration

from experiments.benchmarks.onnx_model import Network
from experiments.benchmarks.yahpo import CELL, Yahpo
from experiments.overrides import composed
from experiments.simulation import simulate
from schedulers.encoding import Encoding
from schedulers.types import Benchmark, Job

DATA = os.environ.get("MFGP_DATA_DIR")
real_files = pytest.mark.skipif(DATA is None or not Path(DATA, "yahpo").is_dir(), reason="needs MFGP_DATA_DIR/yahpo")


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def message(number: int, content: bytes | str | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    body = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(body)) + body


def tensor(array: np.ndarray, name: str = "") -> bytes:
    kinds = {np.dtype(np.float32): 1, np.dtype(np.int64): 7, np.dtype(np.float64): 11}
    dims = b"".join(message(1, size) for size in array.shape)
    return dims + message(2, kinds[array.dtype]) + message(8, name) + message(9, array.tobytes())


def node(op: str, inputs: Sequence[str], output: str, **attributes: int | np.ndarray) -> bytes:
    body = b"".join(message(1, name) for name in inputs) + message(2, output) + message(4, op)
    for name, value in attributes.items():
        content = message(3, value) if isinstance(value, int) else message(5, tensor(value))
        body += message(5, message(1, name) + content)
    return message(1, body)


def model(path: Path, nodes: Sequence[bytes], tensors: dict[str, np.ndarray]) -> Path:
    stored = b"".join(message(5, tensor(array, name)) for name, array in tensors.items())
    graph = b"".join(nodes) + stored + message(11, message(1, "x")) + message(12, message(1, "y"))
    path.write_bytes(message(1, 8) + message(7, graph))
    return path


def test_a_layer_is_computed_as_its_formula_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    w, b, scale, shift, mean = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 4), (3,), (3,), (3,), (3,)))
    variance = rng.random(3).astype(np.float32)
    path = model(
        tmp_path / "layer.onnx",
        [
            node("Gemm", ["x", "w", "b"], "a", transB=1),
            node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], "n"),
            node("Relu", ["n"], "r"),
            node("Constant", [], "column", value=np.array([2, 0])),
            node("Gather", ["r", "column"], "g", axis=1),
            node("Sigmoid", ["g"], "y"),
        ],
        {"w": w, "b": b, "scale": scale, "shift": shift, "mean": mean, "variance": variance},
    )
    x = rng.normal(size=(5, 4)).astype(np.float32)
    normal = (x.astype(float) @ w.T + b - mean) / np.sqrt(variance + 1e-5) * scale + shift
    expected = 1 / (1 + np.exp(-np.maximum(normal, 0)[:, [2, 0]]))
    np.testing.assert_allclose(Network(path)({"x": x}), expected, rtol=1e-5)


def scaled(column: int, constants: Sequence[str], is_first: bool, result: str, x: str = "x") -> list[bytes]:
    """log(x[:, column] + constants[0]) - constants[1], or constants[0] - x[:, column], as a column."""
    taken = [
        node("Constant", [], f"{result} index", value=np.array(column)),
        node("Gather", [x, f"{result} index"], f"{result} 0", axis=1),
    ]
    if is_first:
        arithmetic = [node("Sub", [constants[0], f"{result} 0"], f"{result} 3")]
    else:
        arithmetic = [
            node("Add", [f"{result} 0", constants[0]], f"{result} 1"),
            node("Log", [f"{result} 1"], f"{result} 2"),
            node("Sub", [f"{result} 2", constants[1]], f"{result} 3"),
        ]
    return [*taken, *arithmetic, node("Unsqueeze", [f"{result} 3", "one"], result)]


def test_columns_that_are_scaled_one_by_one_are_scaled_together(tmp_path: Path) -> None:
    kinds = [(2, ("a", "b"), False), (0, ("b",), True), (1, ("b", "a"), False), (2, ("a",), True)]
    nodes = [part for i, kind in enumerate(kinds) for part in scaled(*kind, f"c{i}")]
    names = [f"c{i}" for i in range(len(kinds))]
    stored = {"a": np.array(1.5, np.float32), "b": np.array(0.25, np.float32), "one": np.array([1])}
    network = Network(model(tmp_path / "net.onnx", [*nodes, node("Concat", names, "y", axis=1)], stored))
    x = np.random.default_rng(0).random((5, 3)).astype(np.float32)
    expected = np.stack([np.log(x[:, 2] + 1.5) - 0.25, 0.25 - x[:, 0], np.log(x[:, 1] + 0.25) - 1.5, 1.5 - x[:, 2]], axis=1)
    np.testing.assert_allclose(network({"x": x}), expected, rtol=1e-6)
    np.testing.assert_array_equal(network({"x": x}), network.interpret({"x": x})["y"])
    assert network._plan is not None and len(network._plan.steps) == 1


def test_columns_of_two_matrices_are_left_as_they_are(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], "r"), *scaled(0, "aa", False, "c0"), *scaled(1, "a", True, "c1", "r")]
    stored = {"a": np.array(2.0, np.float32), "one": np.array([1])}
    network = Network(model(tmp_path / "net.onnx", [*nodes, node("Concat", ["c0", "c1"], "y", axis=1)], stored))
    x = np.array([[0.5, -1.0], [3.0, 0.25]], np.float32)
    expected = np.stack([np.log(x[:, 0] + 2) - 2, 2 - np.maximum(x[:, 1], 0)], axis=1)
    np.testing.assert_allclose(network({"x": x}), expected, rtol=1e-6)


def looked_up(names: Sequence[str], columns: Sequence[int], x: str = "x") -> list[bytes]:
    """The rows of the tables of these names at the codes in these columns."""
    nodes = []
    for name, column in zip(names, columns, strict=True):
        nodes += [
            node("Constant", [], f"{name} index", value=np.array(column)),
            node("Gather", [x, f"{name} index"], f"{name} codes", axis=1),
            node("Gather", [name, f"{name} codes"], f"{name} rows"),
        ]
    return nodes


def test_embeddings_are_looked_up_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = {"a": (3, 2), "b": (5, 4), "c": (2, 1), "d": (4, 3)}
    tables = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [*looked_up("abcd", [1, 0, 2, 0]), node("Concat", ["a rows", "b rows", "z", "c rows", "d rows"], "y", axis=1)]
    network = Network(model(tmp_path / "net.onnx", nodes, tables))
    x, z = np.array([[4, 2, 1], [0, 0, 0], [3, 1, 1]], np.int32), rng.normal(size=(3, 2)).astype(np.float32)
    x[0, 0] = 3
    expected = np.hstack([tables["a"][x[:, 1]], tables["b"][x[:, 0]], z, tables["c"][x[:, 2]], tables["d"][x[:, 0]]])
    np.testing.assert_array_equal(network({"x": x, "z": z}), expected)
    assert network._plan is not None and len(network._plan.steps) == 3
    x[1, 1] = -1  # counts from the end
    np.testing.assert_array_equal(network({"x": x, "z": z})[1, :2], tables["a"][2])
    x[1, 1] = 3
    with pytest.raises(IndexError, match="index 3 is out of bounds"):
        network({"x": x, "z": z})


def test_an_embedding_may_be_looked_up_twice(tmp_path: Path) -> None:
    tables = {name: np.arange(6, dtype=np.float32).reshape(3, 2) + 10 * i for i, name in enumerate("abc")}
    names = ["a rows", "b rows", "z", "a rows", "c rows"]
    nodes = [*looked_up("abc", [0, 1, 1]), node("Concat", names, "y", axis=1)]
    network = Network(model(tmp_path / "net.onnx", nodes, tables))
    arguments = {"x": np.array([[0, 2], [1, 1]], np.int32), "z": np.ones((2, 1), np.float32)}
    np.testing.assert_array_equal(network(arguments), network.interpret(arguments)["y"])


@pytest.mark.parametrize("changed", ["two matrices", "two types", "rows below"])
def test_what_only_looks_like_embeddings_of_one_matrix_is_left_as_it_is(tmp_path: Path, changed: str) -> None:
    tables = {"a": np.arange(6, dtype=np.float32).reshape(3, 2), "b": np.arange(6, 12, dtype=np.float32).reshape(3, 2)}
    if changed == "two types":
        tables["b"] = tables["b"].astype(np.float64)
    second = looked_up("b", [1], "z" if changed == "two matrices" else "x")
    nodes = [*looked_up("a", [0]), *second, node("Concat", ["a rows", "b rows"], "y", axis=0 if changed == "rows below" else 1)]
    network = Network(model(tmp_path / "net.onnx", nodes, tables))
    arguments = {"x": np.array([[0, 2], [1, 1]], np.int32), "z": np.array([[1, 0], [2, 0]], np.int32)}
    expected, found = network.interpret(arguments)["y"], network(arguments)
    assert found.dtype == expected.dtype and network._plan is not None and len(network._plan.steps) == 5
    np.testing.assert_array_equal(found, expected)


HALF = np.array(0.5, np.float32)


@pytest.mark.parametrize(
    ("changed", "stored"),
    [
        ({}, {"a": np.full((1, 1), 0.5, np.float32)}),  # the size of a number, the shape of a matrix
        ({}, {"a": np.array(1 / 3)}),  # float64 makes the result float64
        ({}, {"a": np.array(16_777_217)}),
        ({"axes": np.array([0])}, {"a": HALF}),  # rows, side by side
        ({"op": "Max", "more": ["b"]}, {"a": HALF, "b": HALF + 1}),
        ({"op": "Div", "taken": np.array(-1)}, {"a": HALF}),
        ({"also": True}, {"a": HALF}),
    ],
)
def test_a_plan_does_what_the_nodes_say_where_columns_are_nearly_scaled_one_by_one(tmp_path: Path, changed: dict, stored: dict) -> None:
    nodes = []
    for name, column in (("p", 0), ("q", 1)):
        nodes += [
            node("Constant", [], f"{name} index", value=changed.get("taken", np.array(column))),
            node("Gather", ["x", f"{name} index"], f"{name} 0", axis=1),
            node(changed.get("op", "Sub"), ["a", f"{name} 0", *changed.get("more", [])], f"{name} 1"),
            node("Unsqueeze", [f"{name} 1", "axes"], name),
        ]
    more = [node("Relu", ["p"], "r")] if changed.get("also") else []
    last = node("Concat", ["p", "q", *["r"] * len(more)], "y", axis=1)
    network = Network(model(tmp_path / "net.onnx", [*nodes, *more, last], stored | {"axes": changed.get("axes", np.array([1]))}))
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    expected, found = network.interpret({"x": x})["y"], network({"x": x})
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(found, expected)


def test_a_damaged_file_and_an_unknown_operator_are_named(tmp_path: Path) -> None:
    path = model(tmp_path / "net.onnx", [node("Relu", ["x"], "y")], {"w": np.ones(100, np.float32)})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="net.onnx is damaged or no ONNX model"):
        Network(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="net.onnx is damaged or no ONNX model"):
        Network(path)
    with pytest.raises(ValueError, match="the operators LSTM are not supported"):
        Network(model(tmp_path / "net.onnx", [node("LSTM", ["x"], "y")], {}))


LAYERS = {"batch_size": 91, "learning_rate": 0.003, "momentum": 0.545, "weight_decay": 0.05, "num_layers": 3, "max_units": 256}


@real_files
@pytest.mark.parametrize(
    ("task", "seconds", "accuracies"),  # at resources 1, 9 and 50, as ONNX Runtime computes them
    [
        (168329, [14.729935, 52.058515, 197.88667], [2.8304827, 3.9149604, 4.5171065]),
        (3945, [23.126041, 68.260872, 163.12112], [76.259842, 90.699783, 93.398094]),
    ],
)
def test_lcbench_agrees_with_onnx_runtime(task: int, seconds: list[float], accuracies: list[float]) -> None:
    errors, elapsed = Yahpo(task=task, data_dir=DATA).curve(LAYERS | {"max_dropout": 0.5})
    np.testing.assert_allclose(elapsed[[0, 8, 49]], seconds, rtol=1e-4)
    np.testing.assert_allclose(errors[[0, 8, 49]], 1 - np.array(accuracies) / 100, atol=1e-5)
    raw, _ = Yahpo(task=task, metric="val_accuracy", data_dir=DATA).curve(LAYERS | {"max_dropout": 0.5})
    np.testing.assert_allclose(raw, 100 * (1 - errors), rtol=1e-9)


@real_files
def test_nb301_agrees_with_onnx_runtime_where_edges_are_inactive() -> None:
    benchmark = Yahpo("nb301", data_dir=DATA)
    edges = {f"{CELL}_edge_{cell}_{i}": "sep_conv_3x3" for cell in ("normal", "reduce") for i in (0, 1, 2, 3, 5, 6, 9, 10)}
    config = edges | {f"{CELL}_inputs_node_{cell}_{i}": "0_1" for cell in ("normal", "reduce") for i in (3, 4, 5)}
    # ConfigSpace's conditions leave other edges active than those of the reference; the model takes what it is given.
    errors, elapsed = benchmark.curve(config)
    np.testing.assert_allclose(errors[[0, 9, 97]], 1 - np.array([0.57684106, 0.76831013, 0.93024069]), atol=1e-5)
    np.testing.assert_allclose(elapsed[[0, 9]], [220.38441, 727.85388], rtol=1e-4)
    assert elapsed[97] > 5307.8667  # the model's cumulative time falls towards the end: time stands still instead


@real_files
def test_stretches_of_a_curve_join_to_the_whole() -> None:
    benchmark = Yahpo(task=168331, data_dir=DATA)
    assert isinstance(benchmark, Benchmark)
    benchmark.space.seed(0)
    for config in benchmark.space.sample_configuration(5):
        metrics, elapsed = Yahpo(task=168331, data_dir=DATA).curve(config)
        pieces = [p for start, stop in ((0, 1), (1, 9), (9, 50)) for p in benchmark.train(Job(0, config, start, stop))]
        assert [p.r for p in pieces] == list(range(1, 51))
        assert [p.metric for p in pieces] == list(metrics)
        np.testing.assert_allclose(np.cumsum([p.seconds for p in pieces]), elapsed)
        assert all(p.seconds > 0 for p in pieces)


@real_files
def test_configurations_that_were_expected_have_the_curves_that_they_have_anyway() -> None:
    expecting, alone = Yahpo(task=168331, data_dir=DATA), Yahpo(task=168331, data_dir=DATA)
    expecting.space.seed(0)
    configs = [dict(config) for config in expecting.space.sample_configuration(70)]
    alone.curve(configs[3])
    expecting.expect(configs)
    expecting.expect(configs)
    for config in configs:
        for found, expected in zip(expecting.curve(config), alone.curve(config), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5)


@real_files
def test_it_travels_to_a_worker() -> None:
    benchmark = Yahpo(task=168331, data_dir=DATA)
    again = pickle.loads(pickle.dumps(benchmark))
    config = benchmark.space.get_default_configuration()
    assert np.array_equal(again.curve(config), benchmark.curve(config))


@real_files
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scenario": "fcnet"}, "benchmark.scenario='fcnet' is unknown; valid are lcbench, nb301"),
        ({"task": 31}, "benchmark.task=31 is no task of lcbench; valid are 3945, 7593"),
        ({}, "benchmark.task is missing; lcbench has 3945, 7593"),
        ({"scenario": "nb301", "task": 1}, "nb301 has one task only"),
        ({"task": 3945, "metric": "time"}, "benchmark.metric='time' is unknown; valid for lcbench are val_error, val_accuracy"),
        ({"task": 3945, "r_max": 51}, "benchmark.r_max=51 must be from 1 to 50"),
        ({"task": 3945, "folder": "nowhere"}, "there is no scenario 'lcbench' in nowhere or .*nowhere; get it from github.com"),
    ],
)
def test_what_does_not_exist_is_said_in_one_sentence(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Yahpo(**settings, data_dir=DATA)  # type: ignore[arg-type]


@real_files
@pytest.mark.parametrize(("content", "said"), [("", "is damaged"), ("[]", "must hold a JSON object, and holds")])
def test_a_damaged_description_is_named(tmp_path: Path, content: str, said: str) -> None:
    shutil.copytree(Path(str(DATA), "yahpo", "lcbench"), tmp_path / "yahpo" / "lcbench", ignore=shutil.ignore_patterns("*.part*"))
    (tmp_path / "yahpo" / "lcbench" / "encoding.json").write_text(content)
    with pytest.raises(ValueError, match=rf"encoding.json .*{said}") as caught:
        Yahpo(data_dir=str(tmp_path), task=3945)
    assert "\n" not in str(caught.value)


@real_files
def test_files_that_are_not_of_one_another_are_said_in_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "yahpo" / "lcbench"
    shutil.copytree(Path(str(DATA), "yahpo", "lcbench"), folder, copy_function=shutil.copyfile)
    space, codes, model = ((folder / name).read_bytes() for name in ("config_space.json", "encoding.json", "model.onnx"))

    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            Yahpo(data_dir=str(tmp_path), task=3945)
        assert "\n" not in str(caught.value)

    fewer = json.loads(codes)
    del fewer["OpenML_task_id"]["3945"]
    (folder / "encoding.json").write_text(json.dumps(fewer))
    refused("encoding.json has no code for OpenML_task_id=3945")
    (folder / "encoding.json").write_text("{}")
    refused("encoding.json has no code for OpenML_task_id=")
    (folder / "encoding.json").write_bytes(codes)
    described = json.loads(space)
    described["hyperparameters"] = [p for p in described["hyperparameters"] if p["name"] != "momentum"]
    (folder / "config_space.json").write_text(json.dumps(described))
    refused("config_space.json has no momentum, which lcbench has")
    (folder / "config_space.json").write_bytes(space)
    shutil.copyfile(Path(str(DATA), "yahpo", "nb301", "model.onnx"), folder / "model.onnx")
    refused("model.onnx (does not take what lcbench has|is of another scenario)")
    (folder / "model.onnx").write_bytes(model)
    Yahpo(data_dir=str(tmp_path), task=3945)


@real_files
@pytest.mark.parametrize("searcher", ["random", "gp"])
def test_searchers_propose_on_the_conditional_space_of_nb301(searcher: str) -> None:
    small = ["searcher.num_init_random=4", "searcher.num_candidates=64", "surrogate.max_evaluations=5"] if searcher == "gp" else []
    limits = ["backend=simulated", "budget.trials=7", "budget.seconds=null", f"data_dir={DATA}"]
    table = simulate(composed(["benchmark=yahpo", "benchmark.scenario=nb301", f"searcher={searcher}", *limits, *small]), 0)
    reports = table.filter(pc.equal(table["kind"], "report"))
    assert pc.count_distinct(reports["trial"]).as_py() == 7 and 0 < pc.min(reports["metric"]).as_py() < 0.5
    space = Yahpo("nb301", data_dir=DATA).space
    encoding = Encoding(space)
    vectors = encoding.sample(100, np.random.default_rng(0))
    configs = encoding.configs(vectors)
    # Two edges into each of the four nodes of both cells, and which: the inputs of the first node are the two before it.
    assert len(space) == 34 and {len(config) for config in configs} == {22} and len({frozenset(config) for config in configs}) > 20
    for config in configs[:20]:
        Configuration(space, values=config)  # raises unless exactly the active ones have values


def test_an_incomplete_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "yahpo" / "lcbench").mkdir(parents=True)
    (tmp_path / "yahpo" / "lcbench" / "model.onnx").write_bytes(struct.pack("<i", 0))
    with pytest.raises(ValueError, match=r"lcbench lacks config_space.json, encoding.json"):
        Yahpo(task=3945, data_dir=str(tmp_path))


@real_files
@pytest.mark.parametrize("scenario", ["lcbench", "nb301"])
def test_the_plan_of_a_network_gives_what_its_nodes_give_one_by_one(scenario: str) -> None:
    network = Network(Path(str(DATA), "yahpo", scenario, "model.onnx"))
    benchmark = Yahpo(scenario, task=168331 if scenario == "lcbench" else None, data_dir=DATA)
    num_categories, num_numbers = len(benchmark._names.categorical), len(benchmark._names.continuous)
    rng = np.random.default_rng(0)
    for rows in (1, 2, 3, 18):
        numbers = rng.uniform(0.1, 1.0, (rows, num_numbers)).astype(np.float32)
        arguments = {"x_cat": rng.integers(0, 3, (rows, num_categories)).astype(np.int32), "x_cont": numbers}
        expected = network.interpret(arguments)[network.outputs[0]]
        np.testing.assert_allclose(network(arguments), expected, rtol=1e-4, atol=1e-6)


@real_files
def test_the_test_error_is_the_balanced_one_of_the_last_epoch() -> None:
    short, whole = (Yahpo(task=168329, r_max=r_max, data_dir=DATA) for r_max in (20, None))
    config = short.space.get_default_configuration()
    for benchmark, epoch in ((short, 21), (whole, 51)):  # the model's first epoch is the untrained network
        outputs = benchmark._evaluate([dict(config)], [epoch])[0, 0]
        assert benchmark.test_metric(dict(config)) == 1 - outputs[-1]
    assert not hasattr(Yahpo(scenario="nb301", data_dir=DATA), "test_metric")
