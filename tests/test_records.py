"""Tables and summary of a study: small hand-made event sequences, and an invented study of 80 trials."""

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from experiments import records
from experiments.records import reports_table, summary, trials_table, write
from schedulers.backends import failures
from schedulers.types import Decision, Event, Job, Proposal, Report, Verdict
from tests.fake_study import fake_study

META = {"r_max": 27, "workers": 4, "seed": 3, "versions": {"jax": "1.2"}, "threads": 2, "metric": "error", "compile_seconds": 1.5}
NAN = float("nan")


def started(trial_id, time, *, r_from=0, r_to=27, config=None, source="random", worker=0, decide=0.0, first=True, kind="job"):
    config = {"x": 0.5} if config is None else config
    proposal = Proposal(config, source, 9 if source == "model" else None) if first else None
    return Event(kind, Job(trial_id, config, r_from, r_to), time, proposal, worker=worker, decide_seconds=decide)


def reported(trial_id, r, metric, time, decision=Decision.CONTINUE, *, seconds=1.0, error="", why="", worker=0, decide=0.0):
    report = Report(trial_id, r, metric, time, seconds, error)
    verdict = Verdict(decision, why)
    return Event("report", Job(trial_id, {"x": 0.5}, 0, 27), time, None, report, verdict, worker, decide)


def test_each_way_a_trial_can_end_has_its_state():
    events = [started(i, 0.0) for i in range(7)] + [
        reported(0, 1, 0.5, 1.0),
        reported(1, 1, 0.5, 1.0, Decision.PAUSE),
        reported(2, 1, 0.5, 1.0, Decision.STOP),
        reported(3, 27, 0.5, 1.0, Decision.STOP),
        reported(4, 2, NAN, 1.0, Decision.STOP, error="diverged"),
        reported(5, None, NAN, 1.0, Decision.STOP, error="Killed"),
    ]
    table = trials_table(events, "min", 27).to_pydict()
    assert table["state"] == ["running", "paused", "stopped", "completed", "failed", "failed", "running"]
    assert table["ended"] == [None, None, 1.0, 1.0, 1.0, 1.0, None]
    assert table["r"] == [1, 1, 1, 27, 2, 0, 0]
    assert table["error"] == ["", "", "", "", "diverged", "Killed", ""]


def test_a_failed_trial_keeps_its_last_finite_metric_and_its_reports_show_no_number():
    events = [started(0, 0.0), reported(0, 1, 0.4, 1.0), reported(0, 2, NAN, 2.0, Decision.STOP, error="nan")]
    trial = trials_table(events, "min", 27).to_pylist()[0]
    assert (trial["metric"], trial["best_metric"], trial["best_r"], trial["r"]) == (0.4, 0.4, 1, 2)
    assert reports_table(events, "min", 27)["metric"].to_pylist() == [0.4, None]
    crashed = [started(0, 0.0), reported(0, None, NAN, 2.0, Decision.STOP, error="killed")]
    assert reports_table(crashed, "min", 27).to_pylist()[0]["r"] is None


def test_a_restart_from_scratch_repeats_no_row_but_costs_its_time():
    events = [
        started(0, 0.0, r_to=1),
        reported(0, 1, 0.5, 1.0, Decision.PAUSE),
        started(0, 5.0, r_to=3, first=False),
        reported(0, 1, 0.1, 6.0),  # a repeat: its number does not count either
        reported(0, 2, 0.4, 7.0),
        reported(0, 3, 0.3, 8.0, Decision.PAUSE),
    ]
    assert reports_table(events, "min", 27)["r"].to_pylist() == [1, 2, 3]
    trial = trials_table(events, "min", 27).to_pylist()
    assert len(trial) == 1
    assert (trial[0]["seconds"], trial[0]["best_metric"], trial[0]["state"]) == (4.0, 0.3, "paused")
    assert summary(events, "min", META)["worker_seconds"]["training"] == 4.0


def test_a_trial_restarted_after_an_interruption_is_one_trial():
    events = [started(0, 0.0), reported(0, 1, 0.5, 1.0), started(0, 9.0, first=False, kind="restart"), reported(0, 2, 0.4, 10.0)]
    assert summary(events, "min", META)["trials_by_state"]["running"] == 1
    assert reports_table(events, "min", 27)["r"].to_pylist() == [1, 2]


def test_a_study_whose_beginning_is_missing_is_refused():
    with pytest.raises(ValueError, match="first job of trial 4 has no proposal"):
        trials_table([started(4, 0.0, first=False)], "min", 27)


@pytest.mark.parametrize("mode, accumulate", [("min", np.minimum.accumulate), ("max", np.maximum.accumulate)])
def test_the_incumbent_is_the_best_metric_so_far_in_the_users_sign(mode, accumulate):
    table = reports_table(fake_study(fail=0), mode, 27)
    metric = table["metric"].to_numpy()
    assert (metric > 0).any() == (mode == "min")
    np.testing.assert_array_equal(table["incumbent"].to_numpy(), accumulate(metric))


def test_best_metric_of_each_trial_is_the_best_of_its_reports():
    events = list(fake_study(promotion=True))
    reports = reports_table(events, "max", 27).to_pylist()
    for trial in trials_table(events, "max", 27).to_pylist():
        mine = {row["r"]: row["metric"] for row in reports if row["trial_id"] == trial["trial_id"] and row["metric"] is not None}
        if mine:
            assert trial["best_metric"] == max(mine.values()) == mine[trial["best_r"]]
            assert trial["metric"] == mine[max(mine)]


def test_each_hyperparameter_has_a_column_that_is_null_where_it_is_inactive():
    configs = [
        {"lr": np.float64(0.1), "layers": np.int64(2)},
        {"lr": 1, "act": np.str_("relu")},
        {"lr": 0.2, "bias": True, "k": 3},
        {"k": "auto"},
    ]
    table = trials_table([started(i, 0.0, config=config) for i, config in enumerate(configs)], "min", 27)
    columns = {name.removeprefix("config/"): table[name].to_pylist() for name in table.column_names if name.startswith("config/")}
    assert columns == {
        "act": [None, "relu", None, None],
        "bias": [None, None, True, None],
        "k": [None, None, "3", '"auto"'],  # of two types: as JSON
        "layers": [2, None, None, None],
        "lr": [0.1, 1.0, 0.2, None],
    }


def test_the_summary_of_a_small_study_is_what_one_counts_by_hand():
    events = [
        started(0, 0.5, decide=0.5, source="default"),
        started(1, 1.0, decide=0.5, source="model", worker=1),
        reported(0, 27, 0.5, 4.0, Decision.STOP, seconds=3.0, decide=0.25),
        started(2, 5.0, decide=0.75, source="model", config={"x": np.float64(0.25)}),
        reported(2, 1, 0.2, 9.0, seconds=4.0, decide=0.25),
        reported(1, 1, 0.7, 10.0, Decision.STOP, seconds=8.0, decide=0.25, worker=1),
    ]
    result = summary(events, "max", META | {"workers": 2})
    assert result["best"] == {"trial_id": 2, "metric": -0.2, "r": 1, "time": 9.0, "source": "model", "config": {"x": 0.25}}
    assert result["trials"] == 3 and result["reports"] == 3
    assert result["trials_by_state"] == {"running": 1, "paused": 0, "stopped": 1, "completed": 1, "failed": 0}
    assert result["trials_by_source"] == {"default": 1, "model": 2}
    assert result["model_share"] == pytest.approx(2 / 3)
    # 3 + 4 + 8 reported, and trial 2 runs from 9 to 10 unreported; 2 workers x 10 s in all
    assert result["worker_seconds"] == {"training": 16.0, "deciding": 2.5, "idle": 1.5}
    assert result["worker_shares"] == {"training": 0.8, "deciding": 0.125, "idle": 0.075}
    assert result["suggestion_seconds"]["model"] == pytest.approx({"number": 2, "median": 0.625, "p90": 0.725, "max": 0.75})
    assert result["suggestion_seconds"]["all"]["number"] == 3
    assert result["run"]["compile_seconds"] == 1.5


def test_a_failed_trials_cause_is_told_apart_from_a_bad_configuration(tmp_path):
    """Errors as the backends write them; the table and the summary say in a word what each of them means."""
    errors = {
        "out of memory": failures.describe(MemoryError("8 GB")),
        "disk full": failures.describe(OSError(28, "No space left on device")),
        "hang": failures.of_hang(5.0, 2, tmp_path),
        "worker died": failures.of_process(-11, 2, tmp_path, 0),
        "no number": "the metric at resource 2 is nan",
        "exception": failures.describe(ValueError("units must be positive")),
    }
    events = [started(i, 0.0) for i in range(len(errors) + 1)]
    events += [reported(i, None, NAN, 1.0, Decision.STOP, error=error) for i, error in enumerate(errors.values())]
    assert trials_table(events, "min", 27)["cause"].to_pylist() == [*errors, ""]
    assert summary(events, "min", META)["failures_by_cause"] == dict.fromkeys(errors, 1)


def test_a_study_without_any_result_still_has_tables_and_a_summary(tmp_path):
    for events in ([], [started(0, 0.0)], [started(0, 0.0), reported(0, None, NAN, 1.0, Decision.STOP, error="x")]):
        write(tmp_path, events, "min", META)
        assert json.loads((tmp_path / "summary.json").read_text())["best"] is None
        assert pq.read_table(tmp_path / "trials.parquet").num_rows == min(1, len(events))


def test_the_same_events_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, fake_study(), "min", META)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["reports.parquet", "summary.json", "trials.parquet"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_tables_on_disk_are_those_in_memory_and_say_how_they_were_made_but_not_when(tmp_path):
    events = list(fake_study())
    write(tmp_path, events, "max", META)
    for name, table in (("trials", trials_table(events, "max", 27)), ("reports", reports_table(events, "max", 27))):
        stored = pq.read_table(tmp_path / f"{name}.parquet")
        assert stored.equals(table)
        expected = {b"mode": b"max", b"seed": b"3", b"versions": b'{"jax": "1.2"}', b"threads": b"2", b"metric": b"error", b"r_max": b"27"}
        assert stored.schema.metadata == expected


def test_a_write_that_fails_leaves_the_old_files_and_no_others(tmp_path, monkeypatch):
    write(tmp_path, fake_study(20), "min", META)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fails_half_way(table, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(records.pq, "write_table", fails_half_way)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, fake_study(30), "min", META)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_numbers_that_json_cannot_hold_stay_out_of_the_summary():
    text = json.dumps(summary(fake_study(fail=0.5), "min", META), allow_nan=False)
    assert math.isfinite(json.loads(text)["wall_clock_seconds"])


def test_settings_that_cannot_be_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="mode='least' must be 'min' or 'max'"):
        trials_table([], "least", 27)
    with pytest.raises(ValueError, match="meta lacks 'workers'"):
        summary([], "min", {"r_max": 27})
