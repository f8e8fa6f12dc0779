"""What the figures draw, read back from the figures themselves; how they look is judged by eye."""

import struct

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection

from experiments import plots, trace_plot
from experiments.records import reports_table, trials_table
from tests.fake_study import RUNGS, fake_study


@pytest.fixture
def drawn(monkeypatch):
    """The figures made, instead of files."""
    figures = []
    for module in (plots, trace_plot):
        monkeypatch.setattr(module, "save", lambda figure, path: figures.append(figure))
    return figures


def tables(**options):
    events = list(fake_study(**options))
    mode = "min"
    return reports_table(events, mode, 27), trials_table(events, mode, 27)


def test_each_figure_is_a_png_of_200_dpi_and_a_pdf_and_both_are_the_same_the_next_time(tmp_path):
    reports, trials = tables(num_trials=10)
    curves = {"a": (np.arange(5.0), np.linspace(1, 0.1, 5), np.full(5, 0.05))}
    for folder in (tmp_path / "1", tmp_path / "2"):
        folder.mkdir()
        plots.regret(reports, folder / "regret.png")
        trace_plot.trace(reports, trials, folder / "trace.png", RUNGS)
        plots.comparison(curves, folder / "compare.png")
    for name, inches in (("regret", (plots.COLUMN_WIDTH, 2.4)), ("trace", (plots.TEXT_WIDTH, 2.7)), ("compare", (plots.TEXT_WIDTH, 2.7))):
        png = (tmp_path / "1" / f"{name}.png").read_bytes()
        assert struct.unpack(">II", png[16:24]) == tuple(round(200 * length) for length in inches)
        assert (tmp_path / "1" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        for suffix in ("png", "pdf"):
            assert (tmp_path / "1" / f"{name}.{suffix}").read_bytes() == (tmp_path / "2" / f"{name}.{suffix}").read_bytes()


def test_drawing_leaves_matplotlibs_settings_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    reports, trials = tables(num_trials=5)
    trace_plot.trace(reports, trials, tmp_path / "trace.png", RUNGS)
    assert dict(matplotlib.rcParams) == before


def test_regret_draws_the_incumbent_and_marks_each_new_one(drawn):
    reports, _ = tables(fail=0)
    plots.regret(reports, "regret")
    axes = drawn[0].axes[0]
    incumbent = reports["incumbent"].to_numpy()
    curve, marks = axes.lines[1], axes.lines[2]
    np.testing.assert_array_equal(curve.get_ydata(), incumbent)
    assert curve.get_drawstyle() == "steps-post"
    np.testing.assert_array_equal(marks.get_ydata(), sorted(set(incumbent), reverse=True))
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "validation error of the incumbent"


@pytest.mark.parametrize("values, scale", [([0.5, 0.01], "log"), ([0.5, 0.4], "linear"), ([0.5, -1.0], "linear")])
def test_the_log_axis_is_for_positive_errors_that_fall_far(drawn, values, scale):
    curve = np.arange(2.0), np.array(values), np.zeros(2)
    plots.comparison({"a": curve}, "compare", mode="min")
    plots.comparison({"a": curve}, "compare", mode="max")
    assert [figure.axes[0].get_yscale() for figure in drawn] == [scale, "linear"]


def test_trace_has_its_ticks_at_the_rungs_and_a_line_per_trial(drawn):
    reports, trials = tables()
    trace_plot.trace(reports, trials, "trace", RUNGS)
    axes = drawn[0].axes[0]
    assert list(axes.get_yticks()) == list(RUNGS)
    assert axes.get_yscale() == "log"
    solid = [line for lines in [c for c in axes.collections if isinstance(c, LineCollection)][1::2] for line in lines.get_segments()]
    scale, _ = plots.time_unit(max(reports["time"].to_pylist()))
    drawn_to = sorted((line[0, 0] * scale, line[-1, 1]) for line in solid)
    reached = sorted((row["started"], row["r"] or 0.62 * min(RUNGS)) for row in trials.to_pylist())  # without a report: the bottom
    np.testing.assert_allclose(drawn_to, reached)
    assert all(line[0, 1] == 0.62 * min(RUNGS) for line in solid)


def test_trace_marks_failures_with_crosses_and_the_best_trial_in_black(drawn):
    reports, trials = tables(fail=0.3)
    trace_plot.trace(reports, trials, "trace", RUNGS)
    axes = drawn[0].axes[0]
    failed = [row for row in trials.to_pylist() if row["state"] == "failed"]
    crosses = [x for line in axes.lines if line.get_marker() == "x" for x in line.get_xdata()]
    scale, _ = plots.time_unit(max(reports["time"].to_pylist()))
    assert crosses == [row["ended"] / scale for row in failed] and failed
    lines = [collection for collection in axes.collections if isinstance(collection, LineCollection)]
    black = [segment for some in lines if {tuple(c[:3]) for c in some.get_color()} == {(0, 0, 0)} for segment in some.get_segments()]
    best = min(trials.to_pylist(), key=lambda row: np.inf if row["best_metric"] is None else row["best_metric"])
    (trained,) = black  # it was never paused
    assert trained[0, 0] == pytest.approx(best["started"] / scale)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_marker_area_grows_with_the_error(drawn, mode):
    events = list(fake_study(fail=0))
    trace_plot.trace(reports_table(events, mode, 27), trials_table(events, mode, 27), "trace", RUNGS, mode=mode)
    markers = [marks for marks in drawn[0].axes[0].collections if isinstance(marks, PathCollection)]
    errors, areas = {}, {}
    scale, _ = plots.time_unit(max(event.time for event in events if event.kind == "report"))
    for event in events:
        if event.kind == "report":
            last = max(other.time for other in events if other.kind == "report" and other.job.trial_id == event.job.trial_id)
            if event.report.r in RUNGS or event.time == last:
                errors[round(event.time / scale, 9), event.report.r] = event.report.metric
    for marks in markers:
        areas |= {(round(x, 9), r): area for (x, r), area in zip(marks.get_offsets(), marks.get_sizes(), strict=True)}
    assert set(areas) == set(errors)
    errors, areas = ([found[key] for key in sorted(errors)] for found in (errors, areas))
    assert np.all(np.diff(np.array(areas)[np.argsort(errors)]) >= 0)
    assert len(set(areas)) > 20


def test_a_paused_trial_is_dotted_until_it_goes_on(drawn):
    reports, trials = tables(promotion=True)
    trace_plot.trace(reports, trials, "trace", RUNGS)
    collections = [c for c in drawn[0].axes[0].collections if isinstance(c, LineCollection)]
    dotted = [segment for lines in collections[0::2] for segment in lines.get_segments()]
    promoted = sum(max(0, len({1, 3, 9} & set(range(1, row["r"])))) for row in trials.to_pylist() if row["state"] != "failed")
    assert len(dotted) >= promoted > 5
    assert all(segment[0, 1] == segment[1, 1] and segment[0, 0] <= segment[1, 0] for segment in dotted)


def test_a_study_without_results_is_drawn_without_complaint(tmp_path):
    reports, trials = tables(num_trials=3, fail=1.0)
    empty = reports.slice(0, 0), trials.slice(0, 0)
    for name, (some_reports, some_trials) in {"failed": (reports, trials), "empty": empty}.items():
        plots.regret(some_reports, tmp_path / f"{name}.png")
        trace_plot.trace(some_reports, some_trials, tmp_path / f"{name}_trace.png", RUNGS)
        assert (tmp_path / f"{name}_trace.pdf").exists()
