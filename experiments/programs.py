"""Compiled programs of the surrogates, kept whole beside JAX's cache: a process loads one in .4 s and need not trace it for 1.4.

A program is kept by the process that compiles it. One that JAX's cache has (compiled by a process with another NPROC, say, or by source of
which a comment has changed since) is taken from there and traced every time: written anew, XLA (of jax 0.10) leaves out its functions.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import platform
import shutil
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiments.compilation import CACHE_HIT_EVENT, CompileStats, count

log = logging.getLogger(__name__)
PACKAGES = ("jax", "jaxlib", "numpy", "tensorflow-probability")
ENVIRONMENT = ("XLA_FLAGS", "NPROC", "JAX_NUM_CPU_DEVICES")
KEPT_DAYS = 7
CHECK = 16  # bytes of a digest in front: XLA does not notice that a program is damaged
# As it is when this process begins: what is imported must not be known by what is written later.
SOURCE = "".join(path.read_text() for path in sorted(Path(__file__).parents[1].joinpath("mfgp").rglob("*.py")))


def keep_programs() -> None:
    """Let mfgp find and keep its programs beside those of JAX's compilation cache, if that is a folder of this user's."""
    import jax

    from mfgp.compiler import keep_programs as keep

    cache, is_on = (jax.config.values[f"jax_{name}"] for name in ("compilation_cache_dir", "enable_compilation_cache"))
    if is_on and cache and "://" not in cache and jax.local_device_count() == 1:
        folder = _folder(Path(cache, "programs"))
        if folder is not None:
            keep(folder)


class ProgramFolder:
    """A `mfgp.compiler.Shelf` of files, one per program. Files are pickles: the folder must be the user's own."""

    def __init__(self, folder: Path) -> None:
        import jax

        self._folder, self._thread = folder, threading.local()
        jax.monitoring.register_event_listener(self._on_event)

    def _on_event(self, event: str, **_: Any) -> None:  # in the thread that compiles
        if event == CACHE_HIT_EVENT:
            self._thread.second_hand = True

    def load(self, name: str) -> Any:
        from jax.experimental import serialize_executable

        self._thread.second_hand = False
        path, began = self._path(name), time.perf_counter()
        try:
            written = path.read_bytes()
        except OSError:
            return None
        try:
            if _check(written[CHECK:]) != written[:CHECK]:
                raise ValueError("it is damaged")
            _find_lapack()
            program = serialize_executable.deserialize_and_load(*pickle.loads(written[CHECK:]))
        except Exception as error:
            log.warning("the program in %s cannot be loaded and is removed: %s", path, " ".join(str(error).split()))
            with suppress(OSError):
                path.unlink()
            return None
        count(CompileStats(time.perf_counter() - began, 1, 1))
        return program

    def save(self, name: str, program: Any) -> None:
        from jax.experimental import serialize_executable

        if getattr(self._thread, "second_hand", False):
            return
        try:
            written = pickle.dumps(serialize_executable.serialize(program))
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".part", delete=False) as file:
                file.write(_check(written) + written)
            os.replace(file.name, self._path(name))
        except Exception as error:  # no room, or an XLA that cannot: the study goes on without
            log.info("a program is not kept in %s: %s", self._folder, " ".join(str(error).split()))

    def _path(self, name: str) -> Path:
        return self._folder / f"{_digest(name, *_constants())}.program"


def _check(written: bytes) -> bytes:
    return hashlib.blake2b(written, digest_size=CHECK).digest()


@lru_cache(maxsize=1)
def _find_lapack() -> None:
    """JAX looks up LAPACK's functions when it first writes a program that calls one; a program that is loaded finds them missing."""
    import jax

    jax.jit(jax.numpy.linalg.cholesky).lower(jax.ShapeDtypeStruct((2, 2), "float32"))


@lru_cache(maxsize=1)
def _folder(parent: Path) -> ProgramFolder | None:
    """That of this source, these versions and this machine; none if others own it. Those not used for KEPT_DAYS are removed."""
    mine = parent / _digest(*_what_programs_depend_on())
    try:
        mine.mkdir(parents=True, exist_ok=True)
        if hasattr(os, "getuid") and mine.stat().st_uid != os.getuid():
            log.info("programs are not kept in %s, which is another user's", mine)
            return None
        os.utime(mine)
    except OSError as error:
        log.info("programs are not kept in %s: %s", mine, error)
        return None
    oldest = time.time() - KEPT_DAYS * 86400
    for other in parent.iterdir():
        with suppress(OSError):  # another process may clear up, too
            if other.stat().st_mtime < oldest:
                shutil.rmtree(other)
    return ProgramFolder(mine)


def _what_programs_depend_on() -> list[str]:
    processor = Path("/proc/cpuinfo")
    said = processor.read_text().splitlines() if processor.is_file() else [f"flags: unknown, those of {platform.node()}"]
    features = sorted({line for line in said if line.startswith(("model name", "flags", "Features"))})
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = [sys.version, platform.platform(), str(cores), *features]
    return [SOURCE, *(version(name) for name in PACKAGES), *(os.environ.get(name, "") for name in ENVIRONMENT), *machine]


def _constants() -> list[str]:
    """Those of mfgp's modules as they are now: an experiment may have set some."""
    modules = sorted((name, module) for name, module in list(sys.modules.items()) if name.split(".")[0] == "mfgp")
    said = [f"{name}.{key}={value!r}" for name, module in modules for key, value in sorted(vars(module).items()) if key.isupper()]
    return [line for line in said if " at 0x" not in line]


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=12).hexdigest()
