"""Compiled programs of the surrogates, kept whole beside JAX's cache: a process loads one in .4 s and need not trace it for 1.4."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import platform
import shutil
import sys
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
ENVIRONMENT = ("XLA_FLAGS", "NPROC")
KEPT_DAYS = 14


def keep_programs() -> None:
    """Let mfgp find and keep its programs beside those of JAX's compilation cache, if that is a folder."""
    import jax

    from mfgp.compiler import keep_programs as keep

    cache, is_on = (jax.config.values[f"jax_{name}"] for name in ("compilation_cache_dir", "enable_compilation_cache"))
    if is_on and cache and "://" not in cache:
        keep(_folder(Path(cache, "programs")))


class ProgramFolder:
    """A `mfgp.compiler.Shelf` of files, one per program. Files are pickles: the folder must be the user's own.

    A program that came out of JAX's cache is not kept: written a second time, XLA (of jax 0.10) leaves out its functions.
    """

    def __init__(self, folder: Path) -> None:
        import jax

        self._folder, self._thread = folder, threading.local()
        jax.monitoring.register_event_listener(self._on_event)

    def _on_event(self, event: str, **_: Any) -> None:  # in the thread that compiles
        if event == CACHE_HIT_EVENT:
            self._thread.second_hand = True

    def load(self, name: str) -> Any:
        from jax.experimental import serialize_executable

        path, began = self._path(name), time.perf_counter()
        try:
            written = path.read_bytes()
            _find_lapack()
            program = serialize_executable.deserialize_and_load(*pickle.loads(written))
        except FileNotFoundError:
            self._thread.second_hand = False
            return None
        except Exception as error:  # damaged, or not for this machine after all: it is compiled and written anew
            log.warning("the program in %s cannot be loaded, so it is compiled again: %s", path, " ".join(str(error).split()))
            self._thread.second_hand = False
            return None
        count(CompileStats(time.perf_counter() - began, 1, 1))
        return program

    def save(self, name: str, program: Any) -> None:
        from jax.experimental import serialize_executable

        if getattr(self._thread, "second_hand", False):
            return
        path = self._path(name)
        temporary = path.with_suffix(f".{os.getpid()}.part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(pickle.dumps(serialize_executable.serialize(program)))
            os.replace(temporary, path)
        except Exception as error:  # no room, or an XLA that cannot: the study goes on without
            log.info("a program is not kept in %s: %s", path, " ".join(str(error).split()))
            with suppress(OSError):
                temporary.unlink()

    def _path(self, name: str) -> Path:
        return self._folder / f"{_digest(name, *_constants())}.program"


@lru_cache(maxsize=1)
def _find_lapack() -> None:
    """JAX looks up LAPACK's functions when it first writes a program that calls one; a program that is loaded finds them missing."""
    import jax

    jax.jit(jax.numpy.linalg.cholesky).lower(jax.ShapeDtypeStruct((2, 2), "float32"))


@lru_cache(maxsize=1)
def _folder(parent: Path) -> ProgramFolder:
    """That of this source, these versions and this machine. Those that were not used for KEPT_DAYS are removed."""
    mine = parent / _digest(*_what_programs_depend_on())
    if mine.is_dir():
        os.utime(mine)
    elif parent.is_dir():
        oldest = time.time() - KEPT_DAYS * 86400
        for other in parent.iterdir():
            if other.stat().st_mtime < oldest:
                shutil.rmtree(other, ignore_errors=True)
    return ProgramFolder(mine)


def _what_programs_depend_on() -> list[str]:
    import mfgp

    source = [path.read_text() for path in sorted(Path(str(mfgp.__file__)).parent.rglob("*.py"))]
    processor = Path("/proc/cpuinfo")
    said = processor.read_text().splitlines() if processor.is_file() else [f"flags: unknown, those of {platform.node()}"]
    features = sorted({line for line in said if line.startswith(("model name", "flags", "Features"))})
    machine = [sys.version, platform.platform(), str(os.cpu_count()), *features]
    return [*source, *(version(name) for name in PACKAGES), *(os.environ.get(name, "") for name in ENVIRONMENT), *machine]


def _constants() -> list[str]:
    """Those of mfgp's modules as they are now: an experiment may have set some."""
    modules = sorted((name, module) for name, module in sys.modules.items() if name.split(".")[0] == "mfgp")
    said = [f"{name}.{key}={value!r}" for name, module in modules for key, value in sorted(vars(module).items()) if key.isupper()]
    return [line for line in said if " at 0x" not in line]


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=12).hexdigest()
