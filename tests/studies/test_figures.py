"""Each figure's command leaves a picture, the data behind it and a table of verdicts; what is wrong is said in one sentence."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from experiments import figures
from experiments.overrides import composed, made
from experiments.paper import regret
from experiments.paper.context import Context, Scale, heading
from experiments.paper.lines import overrides_of
from experiments.statistics import log_regret

DATA = os.environ.get("MFGP_DATA_DIR")
NEEDS_NO_DATA = ("1", "2", "3", "6", "7", "8", "9", "asha", "asha20", "asha500", "fidelities", "laboratory")
CURVES = {"overrides": ["benchmark=curves"], "seconds": 60, "floor": 1e-4}
METHODS = {"random": ["searcher=random"], "halving": ["searcher=random", "brackets=1"]}
MODEL = {"model": ["searcher=gp", "searcher.refit_period=10"]}
SPEC = {
    "title": "Two methods",
    "panels": [{"name": "curves", "task": "curves", "workers": 4, "methods": ["random", "halving"]}],
    "claims": [{"text": "they differ", "relation": "better", "first": "halving", "second": "random"}],
}


def context(tmp_path: Path, scale: Scale = "paper", **task: object) -> Context:
    return Context(
        name="test",
        scale=scale,
        seeds=5,
        panels=None,
        earlier=None,
        part=None,
        out=tmp_path / "out",
        store=tmp_path / "store",
        processes=1,
        compose=composed,
        tasks={"curves": CURVES | task},
        methods=METHODS,
        say=lambda _: None,
    )


def test_the_verdict_is_that_of_the_stored_numbers(tmp_path: Path) -> None:
    said = regret.make(SPEC, context(tmp_path))
    for name in ("figures/figure_test.png", "figures/figure_test.pdf", "data/figure_test.parquet", "data/figure_test.md"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    data = pq.read_table(tmp_path / "out" / "data" / "figure_test.parquet")
    optimum = min(data["best"].to_pylist())
    assert json.loads(data.schema.metadata[b"figure"])["optimum"] == {"curves": optimum}
    final: dict[tuple[str, int], float] = {}
    for method, seed, best in zip(data["method"].to_pylist(), data["seed"].to_pylist(), data["best"].to_pylist(), strict=True):
        final[method, seed] = min(best, final.get((method, seed), np.inf))
    logs = {m: log_regret(np.array([final[m, seed] for seed in range(5)]), optimum, 1e-4) for m in METHODS}
    found = f"{np.median(logs['halving'] - logs['random']):+.2f} ["
    assert f"at 1 of the time: {found}" in said
    (row,) = [line for line in said.splitlines() if line.startswith("| curves: halving against random")]
    assert row.split(" | ")[3].startswith(found)


def test_panels_of_one_task_share_their_axis_and_a_claim_may_speak_of_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(Context, "save", lambda self, figure: drawn.append(figure))
    panels = [SPEC["panels"][0] | {"name": f"{workers} workers", "workers": workers} for workers in (1, 4)]
    claims = [SPEC["claims"][0] | {"panel": [0, 1]}, SPEC["claims"][0] | {"panel": 1}]
    said = regret.make({"title": "Two methods", "panels": panels, "claims": claims}, context(tmp_path))
    first, second = drawn[0].axes
    assert first.get_ylim() == second.get_ylim()
    # Each panel once for every claim, and once in the table of all times.
    assert [said.count(f"| {workers} workers: halving against random |") for workers in (1, 4)] == [2, 3]


def test_a_claim_may_go_across_panels_of_one_task(tmp_path: Path) -> None:
    panels = [SPEC["panels"][0] | {"name": method, "methods": [method]} for method in METHODS]
    spec = {"title": "Two methods", "panels": panels, "claims": [SPEC["claims"][0] | {"across": [0, 1]}]}
    said = regret.make(spec, context(tmp_path))
    within = regret.make(SPEC, context(tmp_path))
    rows = [next(line for line in text.splitlines() if line.startswith("| they differ")) for text in (said, within)]
    assert rows[0].split(" | ")[1] == "random and halving: halving against random" and rows[0].split(" | ")[2:] == rows[1].split(" | ")[2:]
    assert "| they differ" not in regret.make(spec, replace(context(tmp_path), panels=(0,)))
    other = {"curves": CURVES, "others": CURVES | {"seconds": 50}}
    panels[1]["task"] = "others"
    with pytest.raises(ValueError, match="figure test: 'they differ' goes across panels of different tasks"):
        regret.make(spec, replace(context(tmp_path), tasks=other))


def test_each_end_of_a_claim_across_panels_is_of_its_own(tmp_path: Path) -> None:
    panels = [SPEC["panels"][0] | {"name": f"w{workers}", "workers": workers} for workers in (1, 4)]
    spec = {"title": "Two methods", "panels": panels, "claims": [SPEC["claims"][0] | {"across": [0, 1]}]}
    said = regret.make(spec, context(tmp_path))
    assert "| they differ | w1 and w4: halving with 1 against random with 4 |" in said


def test_a_published_accuracy_stands_beside_ours(tmp_path: Path) -> None:
    said = regret.make(SPEC | {"published": [{"panel": "curves", "method": "random", "accuracy": "99"}]}, context(tmp_path))
    data = pq.read_table(tmp_path / "out" / "data" / "figure_test.parquet").to_pylist()
    best = [min(row["best"] for row in data if (row["method"], row["seed"]) == ("random", seed)) for seed in range(5)]
    ours = f"{100 * (1 - np.mean(best)):.2f} ± {100 * np.std(best, ddof=1):.2f} %"
    assert f"- curves, validation accuracy of random at the end: {ours} (the paper: 99)." in said


def kept(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pq.read_schema(folder / "data" / "figure_test.parquet").metadata[b"figure"])
    return found


def test_panels_that_are_not_asked_for_come_from_an_earlier_run(tmp_path: Path) -> None:
    panels = [SPEC["panels"][0] | {"name": f"{workers} workers", "workers": workers} for workers in (1, 4)]
    spec = {"title": "Two methods", "panels": panels, "claims": [SPEC["claims"][0] | {"panel": [0, 1]}]}
    whole = regret.make(spec, context(tmp_path))
    data = pq.read_table(tmp_path / "out" / "data" / "figure_test.parquet")
    first, second = (replace(context(tmp_path), panels=(number,), out=tmp_path / f"out{number}") for number in (0, 1))
    assert "- Not run: 4 workers." in regret.make(spec, first)
    second = replace(second, earlier=first.out / "data", made_by=set())
    assert regret.make(spec, second) == whole
    assert kept(tmp_path / "out") == kept(second.out)
    spent = sum(line["spent"] for lines in kept(second.out)["lines"].values() for line in lines.values())
    assert sum(second.spent.values()) + second.spent_earlier["1 workers"] == pytest.approx(spent) and spent > 0
    assert second.said_of_time().startswith(f"its studies took {spent / 60:.1f} minutes by their own records")
    older = replace(second, spent_earlier={"1 workers": None})
    assert older.said_of_time().endswith("; without the panels 1 workers, of which an earlier run kept no record")
    assert pq.read_table(second.out / "data" / "figure_test.parquet").drop("test").equals(data.drop("test"))  # which is nan
    again = replace(second, panels=(), earlier=tmp_path / "out" / "data", out=tmp_path / "again", made_by=set())
    assert regret.make(spec, again) == whole
    where = r"has panel 0 \(1 workers\), random with 1, "
    with pytest.raises(ValueError, match=f"{where}without seed 5: compute it anew"):
        regret.make(spec, replace(second, seeds=6))
    with pytest.raises(ValueError, match=f"{where}with other overrides: compute it anew"):
        regret.make(spec, replace(second, tasks={"curves": CURVES | {"seconds": 61}}))
    with pytest.raises(ValueError, match=f"{where}of eta=3, which the same overrides now make 2: compute it anew"):
        regret.make(spec, replace(second, compose=another_eta))
    with pytest.raises(ValueError, match="has no figure_test.parquet: name the folder"):
        regret.make(spec, replace(second, earlier=tmp_path))
    with pytest.raises(ValueError, match="has none of the panels of figure test"):
        regret.make({**spec, "panels": [panels[0] | {"name": "new"}], "claims": []}, again)


def another_eta(overrides: Sequence[str]) -> Any:
    """As if conf/main.yaml had been edited."""
    cfg = composed(overrides)
    cfg.eta = 2
    return cfg


def test_data_of_an_older_form_are_refused(tmp_path: Path) -> None:
    regret.make(SPEC, context(tmp_path))
    path = tmp_path / "out" / "data" / "figure_test.parquet"
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"figure"])
    pq.write_table(table.replace_schema_metadata({"figure": json.dumps({**about, "lines": {}, "settings": {"curves": "abc"}})}), path)
    for more in ({"panels": ()}, {"only_missing": True}):
        with pytest.raises(ValueError, match=r"has panel 0 \(curves\) in the form of an older version: compute it anew"):
            regret.make(SPEC, replace(context(tmp_path), earlier=path.parent, **more))


def test_lines_that_an_earlier_run_lacks_or_has_with_other_settings_are_all_that_is_run(tmp_path: Path) -> None:
    spec = {**SPEC, "panels": [SPEC["panels"][0] | {"workers": [2, 4]}]}
    changed = METHODS | {"halving": [*METHODS["halving"], "eta=4"]}
    whole = regret.make(spec, replace(context(tmp_path), methods=changed))
    fewer = {**spec, "panels": [SPEC["panels"][0] | {"workers": [2]}]}
    regret.make(fewer, replace(context(tmp_path), out=tmp_path / "before"))
    later = replace(context(tmp_path), methods=changed, earlier=tmp_path / "before" / "data", only_missing=True, out=tmp_path / "later")
    assert regret.make(spec, later) == whole
    lines = {(next(o for o in study.overrides if "workers" in o), "eta=4" in study.overrides) for study in later.spent}
    assert lines == {("workers=2", True), ("workers=4", True), ("workers=4", False)} and len(later.spent) == 15
    data, again = (pq.read_table(folder / "data" / "figure_test.parquet") for folder in (tmp_path / "out", later.out))
    assert again.drop("test").equals(data.drop("test"))
    assert kept(tmp_path / "out") == kept(later.out)
    nothing = replace(later, earlier=later.out / "data", out=tmp_path / "nothing", made_by=set(), spent={}, spent_earlier={})
    assert regret.make(spec, nothing) == whole and not nothing.spent
    on_gpu = replace(nothing, device="gpu", methods={**changed, "model": ["searcher=gp"]})
    assert overrides_of(on_gpu.study("curves", "model", 2, 0, seconds=9)) == overrides_of(
        replace(on_gpu, device="cpu").study("curves", "model", 2, 0, seconds=9)
    )


def test_only_lines_with_every_seed_are_taken_and_notes_are_of_the_seeds_that_are_shown(tmp_path: Path) -> None:
    spec = {**SPEC, "counted": [{"text": "many", "method": "halving", "at": 0.5, "more_than": 3}]}
    whole = regret.make(spec, context(tmp_path))
    earlier = {"earlier": tmp_path / "out" / "data", "only_missing": True, "out": tmp_path / "later"}
    more = replace(context(tmp_path), seeds=6, **earlier)
    said = regret.make(spec, more)
    assert len(more.spent) == 12 and said == regret.make(spec, replace(context(tmp_path), seeds=6, out=tmp_path / "six"))
    fewer = replace(context(tmp_path), seeds=2, **earlier)
    two = regret.make(spec, replace(context(tmp_path), seeds=2, out=tmp_path / "two"))
    found = regret.make(spec, fewer)
    assert not fewer.spent and "started/trained" in two and "started/trained" not in found
    assert [line for line in found.splitlines() if line.startswith("|")] == [line for line in two.splitlines() if line.startswith("|")]
    assert found != whole and fewer.spent_earlier == {"curves": None}


def test_the_smoke_scale_also_computes_what_is_missing(tmp_path: Path) -> None:
    panels = [SPEC["panels"][0] | {"name": name} for name in ("one", "two")]
    spec = {**SPEC, "panels": panels, "published": [{"panel": "two", "method": "halving", "accuracy": "99"}]}
    regret.make({**spec, "panels": [panel | {"methods": ["random"]} for panel in panels], "claims": [], "published": []}, smoke(tmp_path))
    later = replace(smoke(tmp_path), earlier=tmp_path / "out" / "data", only_missing=True, out=tmp_path / "later")
    assert "validation accuracy of halving at the end" in regret.make(spec, later)


def smoke(tmp_path: Path) -> Context:
    return replace(context(tmp_path, "smoke"), panels=(0, 1), seeds=2)


def test_what_a_method_started_is_counted_and_kept_with_the_data(tmp_path: Path) -> None:
    spec = SPEC | {"counted": [{"text": "many", "method": "halving", "at": 0.5, "more_than": 3}]}
    first = context(tmp_path)
    said = regret.make(spec, first)
    counts = json.loads(pq.read_schema(tmp_path / "out" / "data" / "figure_test.parquet").metadata[b"figure"])["counted"][
        "curves: halving at 0.5"
    ]
    later = regret.make(spec | {"counted": [spec["counted"][0] | {"at": 1.0}]}, replace(first, out=tmp_path / "later"))
    assert len(counts) == 5 and min(counts) > 3 and later != said
    assert f"| many | curves: halving against 3 | configurations started at 0.5 of the time: {np.median(counts):g} [" in said
    again = replace(first, panels=(), earlier=tmp_path / "out" / "data", out=tmp_path / "again", made_by=set())
    assert regret.make(spec, again) == said
    moved = regret.make(spec | {"counted": [spec["counted"][0] | {"at": 0.25}]}, replace(again, made_by=set()))
    assert "| many | curves: halving against 3 | not counted in the earlier run | **undecided** |" in moved


def test_parts_of_a_figure_fill_the_store_through_a_launcher(tmp_path: Path) -> None:
    settings = ["figure=asha", "scale=smoke", f"store={tmp_path / 'store'}"]
    command = [sys.executable, "-m", "experiments.part", "-m", *settings, "hydra/launcher=joblib", "parts=2", "part=0,1"]
    done = subprocess.run([*command, f"hydra.sweep.dir={tmp_path / 'jobs'}"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for part in (0, 1):
        assert f"part {part} of 2 of figure asha's studies is in {tmp_path / 'store'}" in done.stdout
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*/*.parquet")}
    assert figures.main([*settings, f"out={tmp_path / 'out'}", "processes=1"]) == 0
    assert len(stored) > 1 and stored == {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*/*.parquet")}


def test_a_part_of_no_figure_is_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.part", f"hydra.run.dir={tmp_path}"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2 and done.stderr == "error: figure is missing: give it as figure=..., as in figure=3\n"


def test_a_figure_of_a_table_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.yaml"
    table = "[benchmark=blackbox, benchmark.folder=mlp_digits, benchmark.off_grid=pool]"
    own.write_text(f"costly: {{overrides: {table}, seconds: 0.2, floor: 0.001}}\n")
    command = ["figure=asha20", "scale=smoke", f"tasks={own}", f"out={tmp_path}", f"store={tmp_path / 'store'}", "processes=1"]
    assert figures.main(command) == 0
    said = capsys.readouterr().out
    assert "## ASHA with 20 workers, bracket by bracket\n" in said and "0.01 s against 0." in said  # of digits that are nearly all right
    for text, message in (
        ("digits: {}", "digits is no task; valid are electricity, helena"),
        ("costly: {overrides: [], floor: 1}", "costly lacks seconds (see conf/figure/tasks.yaml)"),
        (f"costly: {{overrides: {table}, seconds: soon, floor: 1}}", "costly has seconds: soon, which must be a positive number"),
        (f"costly: {{overrides: {table}, seconds: 1, floor: 1, pol: 3}}", "costly has pol, which is no setting of a task"),
        (f"large: {{overrides: {table}, seconds: 1, floor: 1}}", "has large, and figure asha20 uses costly"),
        ("- costly", "must hold tasks by their names"),
        ("{", "cannot be read"),
    ):
        own.write_text(text)
        assert figures.main(command) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "examples").glob("*cells.yaml")))
def test_the_example_of_own_tasks_is_one(path: Path) -> None:
    own = figures._own_tasks(path)
    for name, task in own.items():
        assert task["seconds"] == figures._read("tasks")[name]["seconds"] and "stand_in" not in task
        composed(["backend=simulated", *task["overrides"], "searcher=gp", *task["model"]])


def test_the_bundled_trainings_of_electricity_are_a_task() -> None:
    task = figures._read("tasks")["electricity"]
    table = made(composed(["backend=simulated", *task["overrides"]]).benchmark)
    assert task["pool"] == f"electricity: a pool of {table.pool_size:,} real trainings" and "stand_in" not in task


def test_another_data_set_takes_the_place_of_electricity() -> None:
    (name, task), *others = figures._own_tasks(Path(__file__).parents[2] / "examples" / "helena.yaml").items()
    assert name == "electricity" and not others
    helena = figures._read("tasks")["helena"]
    assert task == helena | {"trace_seconds": 600}


def test_on_a_table_more_workers_have_less_time(tmp_path: Path) -> None:
    panels = [SPEC["panels"][0] | {"workers": [1, 2, 4]}]
    ends = [{"first": [a, v], "second": [b, w]} for (a, v), (b, w) in ((("random", 4), ("halving", 4)), (("random", 1), ("halving", 2)))]
    claims = [{"text": "they differ", "relation": "better", **pair} for pair in ends]
    of_table = context(tmp_path, pool="a table", worker_seconds=60)
    said = regret.make({"title": "Two methods", "panels": panels, "claims": claims}, of_table)
    assert said.startswith("## Two methods — a table")
    assert "median regret after 60 s" in said and said.count("(after 30 s)") == said.count("(after 15 s)") == 2
    data = pq.read_table(tmp_path / "out" / "data" / "figure_test.parquet").to_pylist()
    assert {w: max(row["time"] for row in data if row["workers"] == w) <= 60 / w for w in (1, 2, 4)} == {1: True, 2: True, 4: True}
    optimum = min(row["best"] for row in data)

    def at(method: str, workers: int, when: float) -> np.ndarray:
        mine = [row for row in data if (row["method"], row["workers"]) == (method, workers) and row["time"] <= when]
        return log_regret(np.array([min(row["best"] for row in mine if row["seed"] == seed) for seed in range(5)]), optimum, 1e-4)

    assert f"best that any found: random with 1 {np.sum(at('random', 1, 60) <= -4)} of 5, random with 2" in said

    for (first, v), (second, w) in ((("random", 4), ("halving", 4)), (("random", 1), ("halving", 2))):
        found = np.median(at(first, v, 60 / max(v, w)) - at(second, w, 60 / max(v, w)))
        within = f" ({60 / max(v, w):g} s)" if max(v, w) > 1 else ""
        assert f"{first} with {v} against {second} with {w} | log10 regret at 1 of the time{within}: {found:+.2f} [" in said


def test_methods_that_found_everything_are_not_compared(tmp_path: Path) -> None:
    claims = [SPEC["claims"][0] | {"relation": relation, "pooled": pooled} for relation in ("better", "alike") for pooled in (True, False)]
    claims = [claim | {"panel": [0]} for claim in claims]
    said = regret.make(SPEC | {"claims": claims}, context(tmp_path, floor=10.0))  # more than any regret
    assert said.count("most pairs found the best there is | **undecided** |") == 4
    said = regret.make(SPEC | {"claims": claims}, context(tmp_path, floor=1e-4))
    assert "most pairs" not in said


def test_a_stand_in_is_named_in_title_and_verdict(tmp_path: Path) -> None:
    said = regret.make(SPEC, context(tmp_path, stand_in="synthetic curves"))
    assert said.startswith("## Two methods — stand-in: synthetic curves")
    assert "reproduced" not in said.replace("not reproduced", "")


def test_the_smoke_scale_judges_nothing(tmp_path: Path) -> None:
    assert "**not judged at smoke scale**" in regret.make(SPEC, context(tmp_path, "smoke"))


def test_later_overrides_win_whatever_their_place_in_the_alphabet(tmp_path: Path) -> None:
    study = context(tmp_path).study("curves", "halving", 4, 0, seconds=None, more=["brackets=3", "budget.trials=7"])
    assert "brackets=3" in study.overrides and "brackets=1" not in study.overrides
    assert {"budget.trials=7", "budget.seconds=null"} <= set(study.overrides)


def test_what_a_task_asks_of_models_reaches_only_them(tmp_path: Path) -> None:
    of_task = replace(context(tmp_path, model=["searcher.refit_period=1", "searcher.refit_on=r_max"]), methods=METHODS | MODEL)
    model, halving = (of_task.study("curves", method, 4, 0, seconds=None).overrides for method in ("model", "halving"))
    assert {"searcher.refit_period=1", "searcher.refit_on=r_max"} <= set(model) and "searcher.refit_period=10" not in model
    assert not any(override.startswith("searcher.refit") for override in halving)


def test_a_long_title_is_wrapped() -> None:
    assert max(map(len, heading("word " * 60 + "— stand-in: " + "x " * 80, 3.0).splitlines())) <= 48


@pytest.mark.parametrize("name", figures.figure_names())
def test_every_claim_speaks_of_lines_that_are_drawn(name: str) -> None:
    spec, tasks, methods = (figures._read(one) for one in (name, "tasks", "methods"))
    if spec["kind"] != "regret":
        return
    for panel in spec["panels"]:
        assert panel["task"] in tasks and set(panel["methods"]) <= set(methods)
    for claim in spec["claims"]:
        ends = (claim["first"], claim["second"])
        across = claim.get("across")  # one end in each
        where = zip(across, ends, strict=True) if across else product(regret.panels_of(claim), ends)
        assert not across or len({spec["panels"][number]["task"] for number in across}) == 1
        for number, end in where:
            panel, (method, workers) = spec["panels"][number], (end, None) if isinstance(end, str) else end
            assert method in panel["methods"]
            assert workers is None or workers in panel["workers"]
    for each in spec.get("published", []):
        assert any(panel["name"] == each["panel"] and each["method"] in panel["methods"] for panel in spec["panels"])
    for claim in spec.get("counted", []):
        assert claim["method"] in spec["panels"][claim.get("panel", 0)]["methods"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["figure=99"], "figure=99 does not exist; choose 1, 2, 3"),
        ([], "figure= does not exist"),
        (["figure=6", "scale=huge"], "scale=huge is unknown: choose smoke or paper"),
        (["figure=6", "processes=two"], "processes=two must be a whole number"),
        (["figure=2", "panels=0,x"], "panels=0,x must be whole numbers"),
        (["figure=pasha", "panels=0"], "panels=0: figure pasha has no panels to choose from"),
        (["figure=laboratory", "panels=0", "earlier=docs/data"], "earlier=docs/data is for figures of regret over time"),
        (["figure=2", "earlier=docs/data"], "earlier=docs/data goes with panels=...: which panels are to be computed now?"),
        (["figure=2", "panels=none"], "panels=none goes with earlier=...: a folder with the figure's data of an earlier run"),
        (["figure=2", "panels=missing"], "panels=missing goes with earlier=...: a folder with the figure's data of an earlier run"),
        (["figure=fidelities", "part=0/2"], "part=0/2: figure fidelities is not made of studies"),
        (["figure=2", "part=2/2"], "part=2/2 must be k/n, as in part=0/4 to part=3/4"),
        (["figure=2", "panels=7"], "panels=7 does not exist: figure 2 has the panels 0 to 1"),
        (["figure=6", "speed=1"], "'speed=1' is no setting; valid are figure=..., scale=paper"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert figures.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.smoke
@pytest.mark.parametrize("name", figures.figure_names())
def test_every_figure_is_made_at_smoke_scale(name: str, tmp_path: Path) -> None:
    if name not in NEEDS_NO_DATA and DATA is None:
        pytest.skip("needs MFGP_DATA_DIR")
    began = time.perf_counter()
    assert figures.main([f"figure={name}", "scale=smoke", f"out={tmp_path}", f"store={tmp_path / 'store'}"]) == 0
    assert time.perf_counter() - began < 60
    assert (tmp_path / "figures" / f"figure_{name}_smoke.png").stat().st_size > 10_000
    assert "not judged at smoke scale" in (tmp_path / "data" / f"figure_{name}_smoke.md").read_text()
