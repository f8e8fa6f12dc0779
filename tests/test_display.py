"""The live table and the plain lines, read from a recorded console; the invented study feeds them."""

import io

import pytest
from rich.console import Console

from experiments.display import Display, bar, explain, last_line, number, span
from experiments.records import summary
from schedulers.types import Decision, Event, Job, Proposal, Report, Verdict
from tests.fake_study import RUNGS, fake_study

CONFIG = {"learning_rate": 0.00123456, "units": 128}


def job(trial_id=12, r_from=0, r_to=27, *, time=0.0, bracket=1, source="model", worker=0, first=True, kind="job"):
    proposal = Proposal(CONFIG, source, 9 if source == "model" else None, "EI 0.012, 47 observations") if first else None
    return Event(kind, Job(trial_id, CONFIG, r_from, r_to, bracket), time, proposal, worker=worker)


def report(trial_id=12, r=3, metric=0.0412, decision=Decision.STOP, *, time=1.0, error="", why="rank 4 of 9, the best 3 go on", worker=0):
    said = Report(trial_id, r, metric, time, 1.0, error)
    return Event("report", Job(trial_id, CONFIG, 0, 27, 1), time, report=said, verdict=Verdict(decision, why), worker=worker)


class Timer:
    """A clock that goes on by `step` seconds each time it is read."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def plain(events, *, step=0.0, mode="min", budget=None, finish=None):
    out = io.StringIO()
    with Display(4, 27, mode, "error", RUNGS[:3], Console(file=out), budget=budget, timer=Timer(step)) as display:
        for event in events:
            display.event(event)
        if finish is not None:
            display.finish(**finish)
    return out.getvalue()


def live(width=100):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=40, color_system=None)
    return Display(4, 27, "min", "error", RUNGS[:3], console, budget={"seconds": 300, "trials": None}, timer=Timer(1.0))


def picture(display, width=80):
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(display.render())
    return console.export_text()


def test_each_decision_is_explained_in_one_line():
    assert explain(job()) == (
        "trial 12: new in bracket 1, from the model at r_acq=9 (EI 0.012, 47 observations): learning_rate=0.001235, units=128"
    )
    assert explain(job(source="random")).startswith("trial 12: new in bracket 1, drawn at random (EI")
    assert explain(job(r_from=3, r_to=9, first=False)) == "trial 12: promoted, from r=3 to r=9"
    assert explain(job(r_to=9, first=False)) == "trial 12: promoted, from r=0 to r=9 (from scratch)"
    assert explain(job(r_from=3, first=False, kind="restart")) == (
        "trial 12: was running when the study was interrupted, starts again from r=3 towards r=27"
    )
    assert explain(report(), "error") == "trial 12 at r=3: error 0.0412, stop: rank 4 of 9, the best 3 go on"
    assert explain(report(metric=-0.9512), "accuracy", "max").startswith("trial 12 at r=3: accuracy 0.9512, stop")
    crash = report(r=None, metric=float("nan"), error="Traceback ...\n  File x\nValueError: no data\n")
    assert explain(crash) == "trial 12: failed: ValueError: no data"


def test_no_line_of_the_log_is_broken():
    assert all("\n" not in explain(event) for event in fake_study(fail=0.3))


def test_plain_lines_hold_no_control_codes_and_are_not_broken():
    text = plain(fake_study(fail=0.1), step=0.2, finish={"next_command": "python -m " + "x" * 200})
    assert "\x1b" not in text and "\r" not in text
    assert any(len(line) > 200 for line in text.splitlines())


def test_plain_lines_tell_each_new_incumbent_and_each_end_of_a_trial_once():
    events = list(fake_study(fail=0.1))
    lines = plain(events).splitlines()
    result = summary(events, "min", {"r_max": 27, "workers": 4})
    ends = [line for line in lines if ", stop: " in line or ": failed: " in line]
    news = [line for line in lines if "new best" in line]
    incumbents = {best for best in _incumbents(events)}
    assert len(news) == len(incumbents)
    assert len(lines) == len(news) + len(ends)  # and nothing else
    ended = sum(result["trials_by_state"][state] for state in ("stopped", "completed", "failed"))
    assert ended - len(news) <= len(ends) <= ended
    assert str(number(result["best"]["metric"])) in news[-1]


def _incumbents(events):
    best = float("inf")
    for event in events:
        if event.kind == "report" and event.report.metric < best:
            best = event.report.metric
            yield best


def test_a_progress_line_comes_about_every_ten_seconds():
    events = [job(i, source="random") for i in range(100)]  # a second apart
    lines = plain(events, step=1.0).splitlines()
    assert len(lines) == 10
    assert all("no result yet; " in line and "running" in line for line in lines)


def test_a_progress_line_tells_the_budget_and_what_the_workers_do():
    display = Display(2, 27, "min", "error", RUNGS, console := Console(file=io.StringIO()), budget={"trials": 40}, timer=Timer(11.0))
    display.event(job())
    display.event(report(time=10.0))
    line = console.file.getvalue().splitlines()[-1]
    # one second of training was reported, 2 workers x 10 s
    assert line == "[10.0 s] best error 0.0412; 1 trials (1 stopped), 1 of 40 trials; workers: training 5%, deciding 0%, idle 95%"


def test_notes_are_shown_at_once_with_the_worker_they_are_about():
    out = io.StringIO()
    Display(4, 27, "min", "error", RUNGS, Console(file=out)).note("compiling [64 rows] ...", worker=2)
    assert out.getvalue() == "[0.0 s] worker 2: compiling [64 rows] ...\n"
    with live() as display:
        display.note("compiling the surrogate ...")
        assert "compiling the surrogate ..." in display._console.file.getvalue()
        assert "compiling the surrogate ..." in picture(display)


def test_the_live_table_has_a_row_per_worker_with_its_trial_and_the_next_rung():
    with live() as display:
        for event in (
            job(0, source="default", bracket=0),
            job(1, bracket=1, worker=1),
            job(2, bracket=0, worker=2, r_to=1),
            job(3, bracket=0, worker=3),
            report(0, 4, 0.25, Decision.CONTINUE),
            report(3, 1, 0.5, Decision.STOP, worker=3),
        ):
            display.event(event)
        rows = [line.split() for line in picture(display).splitlines()]
        rows = {row[0]: row for row in rows if row and row[0] in "0123"}
    assert rows["0"] == ["0", "0", "0", "default", bar(4 / 9, 9), "4", "of", "9", "0.25"]
    assert rows["1"] == ["1", "1", "1", "model", bar(0, 9), "0", "of", "3"]  # bracket 1 is first judged at r=3
    assert rows["2"] == ["2", "2", "0", "model", bar(0, 9), "0", "of", "1"]
    assert rows["3"] == ["3", "-", "idle"]


def test_the_live_picture_counts_trials_and_time_and_fits_80_columns():
    events = list(fake_study(fail=0.1, seed=5))
    with live() as display:
        for event in events[:400]:
            display.event(event)
        text = picture(display)
    states = summary(events[:400], "min", {"r_max": 27, "workers": 4})["trials_by_state"]
    shown = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    assert f"({shown})" in text
    assert "training" in text and "deciding" in text and "idle" in text
    assert "budget seconds" in text and "of 300" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_cursor_is_given_back_when_a_study_breaks_off():
    display = live()
    with pytest.raises(KeyboardInterrupt), display:
        raise KeyboardInterrupt
    assert display._console.file.getvalue().endswith("\x1b[?25h")


def test_the_end_tells_the_best_configuration_the_paths_and_the_next_command():
    finish = {
        "paths": {"folder": "outputs/1", "regret": "outputs/1/figures/regret.png"},
        "next_command": "make test",
        "notes": ["compiled 2 s"],
    }
    text = plain([job(), report(metric=-0.9512)], mode="max", finish=finish)
    end = text[text.index("Best error") :].splitlines()
    assert end == [
        "Best error: 0.9512 at r=3 of 27, trial 12 (model)",
        "  learning_rate  0.001235",
        "  units          128",
        "compiled 2 s",
        "",
        "folder  outputs/1",
        "regret  outputs/1/figures/regret.png",
        "",
        "Next: make test",
    ]


def test_a_study_in_which_everything_failed_ends_with_the_error():
    text = plain([job(), report(r=None, metric=float("nan"), error="Traceback\nValueError: no data")], finish={})
    assert "No trial reported a number. The last error: ValueError: no data" in text


def test_the_end_and_the_live_picture_count_failures_by_cause():
    errors = ["Traceback\nValueError: no data", "Traceback\nRuntimeError: x\nout of memory: RuntimeError: x"]
    events = [
        event for i, error in enumerate(errors) for event in (job(trial_id=i), report(trial_id=i, r=None, metric=float("nan"), error=error))
    ]
    assert "\nfailures: 1 exception, 1 out of memory\n" in plain(events, finish={})
    with live() as display:
        for event in events:
            display.event(event)
        assert "failures: 1 exception, 1 out of memory" in picture(display)


def test_restored_events_count_but_are_not_told_again():
    events = list(fake_study())
    out = io.StringIO()
    display = Display(4, 27, "min", "error", RUNGS, Console(file=out), timer=Timer(0.0))
    display.restore(events[:500])
    assert out.getvalue() == ""
    display.finish()
    best = summary(events[:500], "min", {"r_max": 27, "workers": 4})["best"]
    assert f"Best error: {number(best['metric'])} at r={best['r']} of 27, trial {best['trial_id']}" in out.getvalue()


def test_an_event_of_a_worker_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="worker=4, expected 0 to 3"):
        plain([job(worker=4)])


@pytest.mark.parametrize(
    "value, shown",
    [(0.000123456, "0.0001235"), (128, "128"), (1234567, "1234567"), (2.0, "2"), (3.0e9, "3e+09"), (True, "True"), ("relu", "relu")],
)
def test_numbers_are_readable(value, shown):
    assert number(value) == shown


def test_times_bars_and_tracebacks_are_short():
    assert [span(t) for t in (0, 8.31, 125, 11220)] == ["0.0 s", "8.3 s", "2 min 05 s", "3 h 07 min"]
    assert [bar(share, 4) for share in (-1, 0, 0.5, 1, 7)] == ["╌╌╌╌", "╌╌╌╌", "━━╌╌", "━━━━", "━━━━"]
    assert last_line("Traceback\n  x\nKeyError: 'a'\n\n") == "KeyError: 'a'"
