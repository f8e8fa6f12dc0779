"""Means and standard errors over runs whose incumbents are given by hand."""

import math

import numpy as np
import pytest

from experiments import compare
from experiments.compare import Run, curves, find_runs, group, statistics
from experiments.records import write
from schedulers.types import Decision, Event, Job, Proposal, Report, Verdict
from tests.fake_study import fake_study

META = {"r_max": 27, "workers": 1, "metric": "validation error"}


def study(values, *, sign=1.0):
    """One trial that reports `values` at 1, 2, ... seconds."""
    job = Job(0, {"x": 0.5}, 0, 27)
    yield Event("job", job, 0.0, Proposal({"x": 0.5}, "random"), worker=0)
    for r, value in enumerate(values, start=1):
        report = Report(0, r, sign * value, float(r), 1.0)
        yield Event("report", job, float(r), report=report, verdict=Verdict(Decision.CONTINUE), worker=0)


def save(folder, values, *, overrides=(), choices=None, mode="min", meta=META):
    (folder / ".hydra").mkdir(parents=True)
    write(folder, study(values, sign=1.0 if mode == "min" else -1.0), mode, meta)
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {item}\n" for item in overrides))
    (folder / ".hydra" / "config.yaml").write_text("workers: 2\nsearcher:\n  num_fantasies: 20\n")
    if choices:
        lines = "".join(f"      {name}: {choice}\n" for name, choice in choices.items())
        (folder / ".hydra" / "hydra.yaml").write_text(f"hydra:\n  runtime:\n    choices:\n{lines}")


@pytest.fixture
def sweep(tmp_path):
    for i, values in enumerate(([0.8, 0.4, 0.4, 0.2], [0.6, 0.6, 0.3, 0.3], [0.7, 0.5, 0.5, 0.1])):
        save(tmp_path / str(i), values, overrides=["searcher=gp", f"seed={i}", "workers=2"])
    for i, values in enumerate(([0.9, 0.8], [0.7, 0.6])):
        save(tmp_path / str(3 + i), values, overrides=["searcher=random", f"seed={i}", "workers=2"])
    return tmp_path


def row_of(text, method):
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [method])


def test_the_table_holds_mean_standard_error_median_and_best_per_method(sweep):
    text = compare.compare([sweep])
    # final .2 .3 .1: mean .2, std .1, / sqrt(3); the shortest run lasts 2 s, at which gp's incumbents are .4 .6 .5
    assert row_of(text, "searcher=gp") == ["searcher=gp", "3", "0.2", "0.05774", "0.2", "0.1", "1", "-", "0.7", "0.5"]
    assert row_of(text, "searcher=random") == ["searcher=random", "2", "0.7", "0.1", "0.7", "0.6", "1", "-", "0.8", "0.7"]
    assert "at 0.5 s" in text and "at 1.0 s" in text and "at 2.0 s" in text
    assert (sweep / "compare.png").stat().st_size > 1000 and (sweep / "compare.pdf").exists()


def test_the_best_of_a_metric_that_is_maximised_is_the_largest(tmp_path):
    for seed, values in enumerate(([0.5, 0.9], [0.6, 0.7])):
        save(tmp_path / str(seed), values, overrides=[f"seed={seed}", "searcher=gp"], mode="max")
    assert row_of(compare.compare([tmp_path]), "searcher=gp")[2:6] == ["0.8", "0.1", "0.8", "0.9"]


def test_one_run_has_a_mean_but_no_standard_error(tmp_path):
    save(tmp_path / "0", [0.5, 0.4], overrides=["searcher=gp"])
    assert row_of(compare.compare([tmp_path / "0"]), "searcher=gp")[1:4] == ["1", "0.4", "-"]


def test_curves_are_carried_forward_and_begin_when_every_run_has_a_result():
    def run(name, times, values, seconds):
        return Run(name, {}, {}, {}, "min", "error", 1, seconds, np.array(times), np.array(values))

    methods = {"a": [run("0", [1, 4], [0.8, 0.4], 4.0), run("1", [2], [0.6], 10.0)], "b": [run("2", [3], [0.5], 5.0)]}
    drawn = curves(methods)
    times, mean, error = drawn["a"]
    assert times[0] == 3.0 and times[-1] == 10.0
    np.testing.assert_allclose(mean, np.where(times < 4, 0.7, 0.5))
    np.testing.assert_allclose(error, 0.1)  # |difference| / 2, for two runs
    assert drawn["b"][0][-1] <= 5.0
    assert np.isnan(drawn["b"][2]).all()
    row = statistics(methods["a"], shared_seconds=4.0)
    assert (row["at 0.5"], row["at 1"]) == pytest.approx((0.7, 0.5))
    assert math.isnan(row["at 0.25"])  # at 1 s, one of the two has no result yet


def test_methods_are_told_apart_by_all_that_differs_but_the_seed(sweep):
    save(sweep / "5", [0.5], overrides=["searcher=random", "seed=7", "workers=4"])
    save(sweep / "6", [0.5], choices={"searcher": "gp"})  # the defaults: gp by Hydra's choice, 2 workers by the configuration
    runs, _ = find_runs([sweep])
    methods = group(runs)
    assert {method: len(members) for method, members in methods.items()} == {
        "searcher=gp, workers=2": 4,
        "searcher=random, workers=2": 2,
        "searcher=random, workers=4": 1,
    }


def test_a_run_is_counted_once_however_often_its_folder_is_given(sweep):
    assert len(find_runs([sweep, sweep / "0", sweep])[0]) == 5


def test_unfinished_and_empty_runs_are_mentioned_and_not_averaged(sweep):
    (sweep / "5" / ".hydra").mkdir(parents=True)
    save(sweep / "6", [math.nan], overrides=["searcher=gp", "seed=9", "workers=2"])
    text = compare.compare([sweep])
    assert f"1 runs have no summary and are left out: {sweep / '5'}" in text
    assert f"1 runs have no result and do not count in mean, median and figure: {sweep / '6'}" in text
    assert row_of(text, "searcher=gp")[1:3] == ["4", "0.2"]


def test_runs_that_cannot_be_compared_are_refused_in_a_sentence(sweep, capsys):
    (sweep / "void").mkdir()
    assert compare.main([str(sweep / "void")]) == 2
    assert capsys.readouterr().err.startswith(f"error: no runs found below {sweep / 'void'}: a run is a folder with")
    assert compare.main([str(sweep / "nowhere")]) == 2
    assert "is no folder" in capsys.readouterr().err
    save(sweep / "5", [0.5], meta=META | {"metric": "loss"})
    assert compare.main([str(sweep)]) == 2
    assert "the runs have different values of metric (loss, validation error)" in capsys.readouterr().err


def test_a_sweep_of_whole_studies_is_compared(tmp_path, capsys):
    for i, (method, skill, seed) in enumerate([(m, s, seed) for m, s in (("gp", 1.0), ("random", 0.0)) for seed in range(3)]):
        folder = tmp_path / str(i)
        (folder / ".hydra").mkdir(parents=True)
        write(folder, fake_study(40, seed=seed, skill=skill), "min", META | {"workers": 4})
        (folder / ".hydra" / "overrides.yaml").write_text(f"- searcher={method}\n- seed={seed}\n")
    assert compare.main([str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert float(row_of(text, "searcher=gp")[2]) < float(row_of(text, "searcher=random")[2])
