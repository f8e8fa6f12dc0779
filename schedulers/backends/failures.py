"""What a failed trial's record says: the traceback or the end of the process, and last the one line that names the cause.

Causes that are no verdict about a configuration are told apart from one: memory that ran out, a full disk, a worker that hung or died.
"""

from __future__ import annotations

import errno
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from schedulers.types import Report

OUT_OF_MEMORY = "out of memory: "
DISK_FULL = "the disk is full: "
HANG = "hang: "
DIED = ("the worker process ", "the Ray actor died ")
NO_NUMBER = "the metric at resource "
FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT}
# JAX (XLA), PyTorch, TensorFlow, cuBLAS and the operating system, in this order.
MEMORY_WORDS = (
    "RESOURCE_EXHAUSTED",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "OOM when allocating",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def describe(error: Exception) -> str:
    """The traceback of `error`; below it, where it can be recognised, a line that starts with the cause."""
    text = "".join(traceback.format_exception(error)).rstrip()
    for one in _chain(error):
        said = f"{type(one).__name__}: {' '.join(str(one).split())[:500]}"
        if isinstance(one, OSError) and one.errno in FULL_ERRNOS:
            return f"{text}\n{DISK_FULL}{said}"
        if is_memory_error(one):
            return f"{text}\n{OUT_OF_MEMORY}{said} (its worker's share of the memory was too small for this configuration)"
    return text


def is_memory_error(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return any(word in str(error) for word in MEMORY_WORDS)


def of_process(code: int, r: int, log: Path, num_kills: int) -> str:
    """How a worker process ended during resource `r`; `num_kills`: of the kernel's out-of-memory killer since the trial started."""
    how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
    said = f"{DIED[0]}{how} during resource {r}; what it printed is in {log}"
    if code != -9:
        return said
    if num_kills > 0:
        return f"{OUT_OF_MEMORY}{said}; the kernel killed {num_kills} process(es) for want of memory meanwhile, most likely this one"
    return f"{said}; signal 9 without a sender one knows of is often the kernel's, for want of memory"


def of_hang(limit: float, r: int, log: Path) -> str:
    return (
        f"{HANG}no report for more than backend.report_timeout={limit:g} seconds during resource {r}; the worker was killed and "
        f"replaced; what it printed is in {log}"
    )


def last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def cause(text: str) -> str:
    """Why a trial failed, in a word or two, from its error; empty: it did not fail.

    `out of memory`, `disk full`, `hang` and `worker died` say nothing against its configuration; `no number` (it diverged) and
    `exception` do, or against the training's code.
    """
    if not text:
        return ""
    said = last_line(text)
    known = {OUT_OF_MEMORY: "out of memory", DISK_FULL: "disk full", HANG: "hang", NO_NUMBER: "no number"}
    known |= dict.fromkeys(DIED, "worker died")
    return next((name for start, name in known.items() if said.startswith(start)), "exception")


def tally(errors: Iterable[str]) -> dict[str, int]:
    """How many of the failures have which cause, the most frequent first."""
    return dict(Counter(map(cause, errors)).most_common())


def is_out_of_memory(text: str) -> bool:
    return last_line(text).startswith(OUT_OF_MEMORY)


def is_disk_full(text: str) -> bool:
    return last_line(text).startswith(DISK_FULL)


def raise_if_disk_full(report: Report, folder: Path) -> None:
    """A full disk is no trial's failure, and no trial can go on: the study ends with a RuntimeError that says so."""
    if is_disk_full(report.error):
        raise RuntimeError(
            f"{last_line(report.error)} (trial {report.trial_id} in {folder}); the journal and the checkpoints saved so far are kept: "
            f"make room, then go on with resume={folder}"
        )


def num_memory_kills() -> int:
    """How many processes the kernel has killed for want of memory since it started, in any control group; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, the newest first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
