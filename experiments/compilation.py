"""What compiling costs, counted from JAX's own events, and said through standard logging so that a worker can pass it on.

Records of the logger `experiments.compilation` are notices for the person at the terminal: "compiling ..." before, "compiled in 0.9 s"
or "taken from the compilation cache in 0.1 s" after, the latter with the attributes `compile_seconds` and `cache_hit`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

# The names are JAX's own (checked with 0.10.2); a program that comes out of the persistent cache also counts as a backend compile.
COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
CACHE_HIT_EVENT = "/jax/compilation_cache/cache_hits"

# Measured with jax 0.10.2: a cell network compiles in 5.6 s of the processor instead of 7.4, and trains as fast.
QUICK = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}


class CompileStats(NamedTuple):
    """Of this process since `watch`: seconds in the compiler or its cache; programs; those from the cache."""

    seconds: float = 0.0
    programs: int = 0
    cache_hits: int = 0

    def __sub__(self, other: CompileStats) -> CompileStats:
        return CompileStats(self.seconds - other.seconds, self.programs - other.programs, self.cache_hits - other.cache_hits)


_stats = CompileStats()
_watching = False
_lock = threading.Lock()


def watch() -> None:
    """Begin to count; a second call changes nothing."""
    global _watching
    import jax  # here, so that a worker whose benchmark does not use JAX need not load it

    with _lock:
        if not _watching:
            jax.monitoring.register_event_duration_secs_listener(_on_duration)
            jax.monitoring.register_event_listener(_on_event)
            _watching = True


def snapshot() -> CompileStats:
    return _stats


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Log a notice before and after a block that compiles `what` for the first time in this process."""
    watch()
    before, start = snapshot(), time.perf_counter()
    log.info("compiling %s (first use in this process)", what)
    yield
    seconds, done = time.perf_counter() - start, snapshot() - before
    cache_hit = 0 < done.programs == done.cache_hits
    verb = "taken from the compilation cache" if cache_hit else "compiled"
    log.info("%s in %.1f s", verb, seconds, extra={"compile_seconds": seconds, "cache_hit": cache_hit})


def quick(lowered: Any) -> Any:
    """Compile a program of convolutions: on a CPU these wait for library code, and not for what LLVM could add."""
    import jax

    if jax.default_backend() == "cpu":
        try:
            return lowered.compile(compiler_options=QUICK)
        except jax.errors.JaxRuntimeError as error:
            if "No such compile option" not in str(error):
                raise
            log.debug("this XLA lacks an option: %s", error)
    return lowered.compile()


def _on_duration(event: str, duration_secs: float, **_: Any) -> None:
    if event == COMPILE_EVENT:
        count(CompileStats(duration_secs, 1, 0))


def _on_event(event: str, **_: Any) -> None:
    if event == CACHE_HIT_EVENT:
        count(CompileStats(0.0, 0, 1))


def count(more: CompileStats) -> None:
    """Add to the counts; for programs that JAX's own events know nothing of."""
    global _stats
    with _lock:  # programs may compile in several threads
        _stats = CompileStats(_stats.seconds + more.seconds, _stats.programs + more.programs, _stats.cache_hits + more.cache_hits)
