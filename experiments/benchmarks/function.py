"""A user's own training script as a benchmark: `train(config, r_from, r_to, checkpoint_dir)` yields `(resource, metric)`.

A plain function that returns one number is tuned at full fidelity: it is reported once, at r_max. What the script yields goes on
unjudged; the backend's boundary decides what a missing, repeated or non-finite metric means.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.benchmarks.space import build_space, plain_values
from schedulers.types import Job, Progress

ARGUMENTS = ("config", "r_from", "r_to", "checkpoint_dir")


class Function:
    """Tune `target`, "package.module:name" or "path/to/file.py:name", looked for from the working directory first.

    `full_fidelity` is true for a plain function: it knows no resource, so only a scheduler that runs each trial to r_max suits it.
    """

    def __init__(self, target: str, space: Any, r_max: int = 27, mode: str = "min") -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"benchmark.mode={mode!r} is unknown; valid are min and max")
        if r_max < 1:
            raise ValueError(f"benchmark.r_max={r_max} must be at least 1")
        self.space = build_space(space)
        self.target, self.r_max, self.mode = target, r_max, mode
        # A worker may start elsewhere, and is to find the same module.
        self.folder = os.getcwd()
        function = _import_target(target, self.folder)
        self.full_fidelity = not _yields(function)
        self._takes_config_only = self.full_fidelity and not _accepts(function, 4)
        if not _accepts(function, 1 if self._takes_config_only else 4):
            wanted = f"({', '.join(ARGUMENTS)})" + (" or (config)" if self.full_fidelity else "")
            raise ValueError(f"benchmark.target={target!r} must accept the arguments {wanted}, but it is {_signature(function)}")

    def train(self, job: Job, checkpoint_dir: str | None) -> Iterator[Progress]:
        """Yield what the target yields, with the seconds it took; the one number of a plain function as that of r_max."""
        function = _import_target(self.target, self.folder)
        config = plain_values(job.config)
        if self.full_fidelity:
            if job.r_to != self.r_max:
                raise ValueError(f"{self.target!r} is a plain function and cannot stop at {job.r_to} of {self.r_max}; use scheduler=fifo")
            start = time.perf_counter()
            arguments = (config,) if self._takes_config_only else (config, job.r_from, job.r_to, checkpoint_dir)
            metric = function(*arguments)
            yield Progress(self.r_max, metric, time.perf_counter() - start)
            return
        start = time.perf_counter()
        for item in function(config, job.r_from, job.r_to, checkpoint_dir):
            is_pair = isinstance(item, tuple | list) and len(item) == 2
            yield Progress(item[0], item[1], time.perf_counter() - start) if is_pair else item
            start = time.perf_counter()


def _import_target(target: str, folder: str) -> Callable[..., Any]:
    """The function named by `target`; one sentence says what could not be found or imported."""
    module_name, separator, name = target.rpartition(":")
    if not separator or not module_name or not name:
        raise ValueError(f"benchmark.target={target!r} must read package.module:name or file.py:name")
    module = _import_file(target, Path(folder, module_name)) if module_name.endswith(".py") else _import_module(target, module_name, folder)
    function: Any = module
    for part in name.split("."):
        if not hasattr(function, part):
            raise ValueError(f"benchmark.target={target!r}: {module_name} has no attribute {name!r}")
        function = getattr(function, part)
    if not callable(function):
        raise ValueError(f"benchmark.target={target!r} is no function but a {type(function).__name__}")
    return function


def _import_module(target: str, name: str, folder: str) -> ModuleType:
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        with _failures_in_one_sentence(target, name):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"benchmark.target={target!r}: there is no module {error.name!r} (looked in {folder} and sys.path)") from error


def _import_file(target: str, path: Path) -> ModuleType:
    """The file as a module of its own name, imported once per process; it finds its neighbours as if it were run."""
    path = path.resolve()
    if not path.is_file():
        raise ValueError(f"benchmark.target={target!r}: the file {path} does not exist")
    name = path.stem
    if name in sys.modules:
        if getattr(sys.modules[name], "__file__", None) == str(path):
            return sys.modules[name]
        raise ValueError(f"benchmark.target={target!r}: a module named {name!r} is imported already; rename the file")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # both exist for a file that ends in .py
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with _failures_in_one_sentence(target, str(path)):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _failures_in_one_sentence(target: str, name: str) -> Iterator[None]:
    """Let the ModuleNotFoundError of `name` itself (or a package it lies in) pass; anything else went wrong inside the import."""
    try:
        yield
    except (Exception, SystemExit) as error:  # a script without a main guard may well exit
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"benchmark.target={target!r}: importing {name} failed: {said}") from error


def _yields(function: Callable[..., Any]) -> bool:
    """Whether a call yields; under decorators, and for objects that can be called."""
    return any(inspect.isgeneratorfunction(inspect.unwrap(candidate)) for candidate in (function, type(function).__call__))


def _accepts(function: Callable[..., Any], num_arguments: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * num_arguments)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature: only a call can tell
        return num_arguments == 1
    return True


def _signature(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__name__', function)}{inspect.signature(function)}"
