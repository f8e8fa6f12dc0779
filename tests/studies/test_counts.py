"""What figure 1 counts, by hand."""

import numpy as np
import pyarrow as pa
import pytest

from experiments.paper.panel import Line, Panel
from experiments.paper.pasha import _claims, _equal, _log_ratio_of_means
from experiments.paper.started import judge_started, started
from experiments.paper.trace import _counts, _tables
from experiments.simulation import EVENTS
from experiments.statistics import Interval, bootstrap


def events() -> pa.Table:
    """Two workers, 10 s: trial 0 runs 0-4 s to r_max = 3; trial 1 runs 0-2 s, pauses, and runs again from 5 s on; nothing else runs."""
    rows = [
        ("job", 0.0, 0, 0, None),
        ("job", 0.0, 1, 0, None),
        ("report", 1.0, 0, 1, "continue"),
        ("report", 2.0, 1, 1, "pause"),
        ("report", 4.0, 0, 3, "stop"),
        ("job", 5.0, 1, 1, None),
    ]
    columns = {name: [None] * len(rows) for name in EVENTS.names}
    columns |= dict(zip(("kind", "time", "trial", "r", "decision"), map(list, zip(*rows, strict=True)), strict=True))
    columns["metric"] = [None, None, 0.5, 0.4, 0.2, None]
    return pa.table(columns, EVENTS).replace_schema_metadata({"study": '{"r_max": 3, "workers": 2, "levels": [1, 3]}'})


def test_the_busy_share_counts_paused_time_as_idle_and_running_time_to_the_end() -> None:
    full, busy, trials = _counts(events(), seconds=10.0)
    assert (full, trials) == (1, 2)
    assert busy == pytest.approx((4 + 2 + 5) / 20)


def test_a_trace_has_one_row_per_trial_and_report() -> None:
    reports, trials = _tables(events())
    assert reports["time"].to_pylist() == [1.0, 2.0, 4.0]
    assert [(t["trial_id"], t["started"], t["r"], t["best_metric"]) for t in trials.to_pylist()] == [(0, 0.0, 3, 0.2), (1, 0.0, 1, 0.4)]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.2, 0.1, "stand-in agrees"), (0.1, 0.5, "undecided"), (0.4, 0.9, "stand-in disagrees")],
)
def test_accuracies_are_equal_within_the_others_standard_deviation(low: float, high: float, expected: str) -> None:
    assert _equal(Interval(0.0, low, high, 15), spread=0.3) == expected


def test_times_are_compared_by_their_means() -> None:
    hours = np.array([[1.0, 1.0], [2.0, 0.5], [9.0, 1.5]])
    assert 10 ** _log_ratio_of_means(hours, axis=0) == pytest.approx(12 / 3)
    found = bootstrap(hours, of=_log_ratio_of_means)
    assert found.n == 3 and found.median == pytest.approx(np.log10(4))
    assert 0.0 <= found.low < found.median < found.high <= np.log10(6)  # of the pairs, not of one method's hours


def test_a_rare_failure_of_pasha_counts() -> None:
    """By medians nothing would be lost."""
    spec = {"methods": {"ASHA": [], "PASHA": []}, "claims": list("abcd"), "speed_up": [1.5, 5]}
    rows = [("task", "ASHA", seed, 3.0, 90.0, 90.0 + 0.1 * (seed % 2), 200) for seed in range(20)]
    rows += [("task", "PASHA", seed, 1.0, 90.0, 90.0 + 0.1 * (seed % 2) - 5.0 * (seed < 6), 9) for seed in range(20)]
    fast, accurate, *_ = _claims(spec, "task", rows)
    assert fast.found.startswith("mean hours' ratio 3.00 [3.00, 3.00]") and fast.verdict == "stand-in agrees"
    assert accurate.found.startswith("+1.50 points in the mean [") and accurate.verdict == "stand-in disagrees"


@pytest.mark.parametrize(("seconds", "trials"), [(0.0, 0), (0.5, 2), (9.0, 2)])
def test_a_trial_that_goes_on_was_started_once(seconds: float, trials: int) -> None:
    assert started(events(), seconds) == trials


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([11, 12, 13, 14, 15], "reproduced"), ([5, 6, 7, 8, 9], "not reproduced"), ([8, 9, 10, 11, 12], "undecided")],
)
def test_a_number_of_configurations_is_compared_with_the_papers(counts: list[int], expected: str) -> None:
    line = Line("ASHA", 4)
    panel = Panel("curves", "curves", None, None, {line: 60.0}, 0.001, {line: {}}, {}, {}, False)
    asked = {"text": "more than ten", "method": "ASHA", "at": 0.5, "more_than": 10}
    counted = {"curves: ASHA at 0.5": counts}
    claim = judge_started(asked, panel, counted)
    assert claim.verdict == expected and claim.compared == "curves: ASHA against 10"
    assert claim.found.startswith(f"configurations started at 0.5 of the time: {counts[2]} [")
    stood_in = judge_started(asked, panel._replace(stand_in="x"), counted)
    assert judge_started(asked | {"at": 0.6}, panel, counted).verdict == "undecided"
    assert stood_in.verdict == {"reproduced": "stand-in agrees", "not reproduced": "stand-in disagrees"}.get(expected, expected)
