"""What a figure is given, and what it leaves: pictures, the data behind them, and a table of verdicts."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.code import commit
from experiments.grid import run_grid
from experiments.plots import STYLE
from experiments.store import Study, made_by, taken

Scale = Literal["smoke", "paper"]


class PartDone(Exception):
    """The part of a figure's studies that was asked for is stored."""


class Claim(NamedTuple):
    """A row of the verdict table: what the paper says, what was compared, what was found, and what follows."""

    text: str
    compared: str
    found: str
    verdict: str


@dataclass(frozen=True)
class Context:
    """`name` is the figure's; `seeds` is the number of seeds and `panels` are the panels asked for (None: the scale's own, all).

    `earlier` is a folder with data that an earlier run wrote for panels which are not asked for (None: these are left out), or, with
    `only_missing`, for all lines that are in it with the settings that they have now.
    `part` (k, n): of the studies, only the k-th and every n-th after it are computed, and nothing is drawn.
    """

    name: str
    scale: Scale
    seeds: int | None
    panels: tuple[int, ...] | None
    earlier: Path | None
    part: tuple[int, int] | None
    out: Path
    store: Path
    processes: int
    compose: Callable[[Sequence[str]], Any]
    tasks: Mapping[str, Any]
    methods: Mapping[str, Sequence[str]]
    say: Callable[[str], None] = print
    together: int = 1  # how many seeds advance in lock step
    only_missing: bool = False
    device: str = "cpu"  # where their models compute
    made_by: set[str] = field(default_factory=set)  # the commits of the studies that were used
    spent: dict[Study, float] = field(default_factory=dict)  # what each of them took, in seconds
    spent_earlier: dict[str, float | None] = field(default_factory=dict)  # of panels from an earlier run; None: it kept no record

    def num_seeds(self, of_paper: int = 30) -> int:
        return self.seeds or (2 if self.scale == "smoke" else of_paper)

    def run(self, studies: Sequence[Study]) -> dict[Study, pa.Table]:
        """The events of every study. Raises PartDone where only a part of them was asked for."""
        if self.part is not None:
            first, step = self.part
            run_grid(list(dict.fromkeys(studies))[first::step], self.store, self.compose, self.processes, self.say, self.together)
            raise PartDone(f"part {first} of {step} of figure {self.name}'s studies is in {self.store}")
        tables = run_grid(studies, self.store, self.compose, self.processes, self.say, self.together)
        self.made_by.update(map(made_by, tables.values()))
        self.spent.update({study: taken(table) for study, table in tables.items()})
        return tables

    def said_of_time(self) -> str:
        """What the figure's studies took, whoever computed them."""
        known = [*self.spent.values(), *(seconds for seconds in self.spent_earlier.values() if seconds is not None)]
        unknown = "; ".join(name for name, seconds in self.spent_earlier.items() if seconds is None)
        if not known:
            return "an earlier run kept no record of what its studies took"
        minutes = sum(known) / 60
        said = (
            f"its studies took {minutes:.1f} minutes by their own records, {minutes / self.processes:.1f} with {self.processes} at a time"
        )
        return said + (f"; without the panels {unknown}, of which an earlier run kept no record" if unknown else "")

    def study(self, task: str, method: str, workers: int, seed: int, *, seconds: float | None, more: Sequence[str] = ()) -> Study:
        """The study of a method until `seconds`. Later overrides win: the task's, the method's, the task's for a `model`, `more`."""
        limits = [f"budget.seconds={'null' if seconds is None else f'{seconds:g}'}", "budget.trials=null"]
        model = self.tasks[task].get("model", []) if "searcher=gp" in self.methods[method] else []
        given = ["backend=simulated", f"workers={workers}", *limits, *self.tasks[task]["overrides"], *self.methods[method], *model, *more]
        if self.device != "cpu" and "searcher=gp" in self.methods[method]:
            given.append(f"surrogate_device={self.device}")
        latest = {override.split("=")[0]: override for override in given}
        return Study(tuple(sorted(latest.values())), seed)

    def save(self, figure: Figure) -> None:
        """PNG and PDF, without a date in them."""
        FigureCanvasAgg(figure)
        path = self.path("figures", "png")
        with matplotlib.rc_context(STYLE):
            figure.savefig(path, dpi=160, metadata={"Software": None})
            figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})

    def write_data(self, table: pa.Table, meta: Mapping[str, Any]) -> None:
        """The numbers behind the picture, with how they came about."""
        about = {"figure": self.name, "scale": self.scale, "commit": commit(), "studies": sorted(self.made_by), **meta}
        pq.write_table(table.replace_schema_metadata({"figure": json.dumps(about)}), self.path("data", "parquet"), compression="zstd")

    def earlier_data(self) -> pa.Table:
        """The numbers behind an earlier picture, as `write_data` left them in `earlier`."""
        return pq.read_table(self._earlier_path())

    def earlier_about(self) -> dict[str, Any]:
        """What `write_data` noted about them."""
        found: dict[str, Any] = json.loads(pq.read_schema(self._earlier_path()).metadata[b"figure"])
        return found

    def _earlier_path(self) -> Path:
        assert self.earlier is not None
        path = self.earlier / self._file("parquet")
        if not path.is_file():
            raise ValueError(f"earlier={self.earlier} has no {path.name}: name the folder that holds this figure's data at this scale")
        return path

    def write_verdicts(self, title: str, claims: Sequence[Claim], notes: Sequence[str], tables: Sequence[str] = ()) -> str:
        """The verdict table as Markdown, and further `tables` below its notes, written and returned."""
        rows = ["| the paper's claim | compared | found | verdict |", "|---|---|---|---|"]
        for claim in claims:
            verdict = claim.verdict if self.scale == "paper" else "not judged at smoke scale"
            rows.append(f"| {claim.text} | {claim.compared} | {claim.found} | **{verdict}** |")
        if self.scale == "paper" and self.made_by:
            notes = [*notes, f"The studies were computed by commits {', '.join(sorted(self.made_by))} (+: with changes of its own)."]
        text = "\n".join([f"## {title}", "", *rows, "", *[f"- {note}" for note in notes], "", *[f"{table}\n" for table in tables]])
        self.path("data", "md").write_text(text)
        return text

    def path(self, folder: str, suffix: str) -> Path:
        """Where this figure's file of that kind goes; its folder exists."""
        path = self.out / folder / self._file(suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _file(self, suffix: str) -> str:
        return f"figure_{self.name}{'' if self.scale == 'paper' else '_smoke'}.{suffix}"


def heading(title: str, inches: float) -> str:
    """The title over a picture of this width: what stands in for what on lines of its own."""
    lines = [line for part in title.split(" — ") for line in textwrap.wrap(part, int(16 * inches))]
    return "\n".join(lines)
