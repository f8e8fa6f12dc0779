"""`jax.jit` for this library's programs: compiled quickly, because on the CPU they wait for LAPACK and not for what LLVM could add.

A caller may also keep whole programs between processes (`keep_programs`). JAX's own compilation cache saves compiling, but finds a program
by its text, and to write that takes three times as long as to load the program.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import fields, is_dataclass
from functools import cached_property, lru_cache, partial, update_wrapper
from inspect import getmodule, signature, unwrap
from typing import Any, Protocol, runtime_checkable
from weakref import WeakSet

import jax

# Measured with jax 0.10.2: the suggestion compiles in 2.2 s instead of 7.5 s, and runs as fast.
QUICK = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}
# jax 0.10.2 and 0.11.0 hand groups of operations to YNNPACK, which computes some of them wrongly (8 x 1000 distances plus a term of the
# levels: nan; github.com/jax-ml/jax/issues/39103 has another); products of matrices alone are right, and two thirds of its worth.
SAFE = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
# What else a program depends on, of JAX's settings.
SETTINGS = (
    "enable_x64",
    "default_matmul_precision",
    "default_prng_impl",
    "threefry_partitionable",
    "random_seed_offset",
    "numpy_dtype_promotion",
    "numpy_rank_promotion",
    "softmax_custom_jvp",
    "debug_nans",
    "debug_infs",
)
OURS = ("mfgp", "tensorflow_probability", "builtins")  # whose functions are known by their names


@runtime_checkable
class Shelf(Protocol):
    """Where whole programs are kept. It must tell apart what names do not: versions, machines and this library's source and constants."""

    def load(self, name: str) -> Callable[..., Any] | None: ...

    def save(self, name: str, program: Any) -> None: ...


_shelf: Shelf | None = None
_functions: "WeakSet[Compiled]" = WeakSet()  # those of this process


def keep_programs(shelf: Shelf | None) -> None:
    """Look for this process' programs on `shelf` before compiling them, and put them there; on CPUs."""
    global _shelf
    _shelf = shelf


@lru_cache(maxsize=2)
def cpu_options(quick: bool = True) -> dict[str, Any]:
    """Those of SAFE, and of QUICK, that the installed XLA knows; none on an accelerator."""
    if jax.default_backend() != "cpu":
        return {}
    known = {}
    for name, value in (SAFE | QUICK if quick else SAFE).items():
        try:
            jax.jit(lambda: 0, compiler_options={name: value})()
        except jax.errors.JaxRuntimeError:
            continue
        known[name] = value
    return known


def forget_programs() -> None:
    """Let go of the programs of this process' jitted functions; what is needed again is compiled again, or comes from a cache."""
    for function in _functions:
        function.forget()
    jax.clear_caches()


class Compiled:
    """A function that is compiled for each form of its arguments; JAX's backend is asked for at the first call only, never at import."""

    def __init__(self, function: Callable[..., Any], static_argnames: tuple[str, ...], quick: bool) -> None:
        update_wrapper(self, function)
        self._function, self._static_argnames, self._quick = function, static_argnames, quick
        self._whole: dict[Any, Future[Any]] = {}
        _functions.add(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _shelf is None or jax.default_backend() != "cpu" or _setting("disable_jit"):
            return self._jitted(*args, **kwargs)
        given = signature(self._function).bind(*args, **kwargs).arguments
        static = {name: given.pop(name) for name in self._static_argnames}
        leaves, structure = jax.tree.flatten(given)
        types, avals = tuple(map(type, static.values())), tuple(map(jax.typeof, leaves))
        form = (tuple(static.items()), types, structure, avals, tuple(map(_setting, SETTINGS)))
        mine: Future[Any] = Future()
        future = self._whole.setdefault(form, mine)
        if future is mine:  # else it is there, or another thread is making it
            try:
                mine.set_result(_found_or_made(_shelf, self._jitted, (self._function, self._quick), form, static, given))
            except BaseException as error:
                self._whole.pop(form, None)
                mine.set_exception(error)
        return future.result()(**given)

    def num_programs(self) -> int:
        return self._jitted._cache_size() + len(self._whole)

    def forget(self) -> None:
        """The programs that were kept whole; JAX forgets its own."""
        self._whole = {}

    @cached_property
    def _jitted(self) -> Any:
        options = cpu_options(self._quick) or None
        return jax.jit(self._function, static_argnames=self._static_argnames, compiler_options=options)


def compiled(*, static_argnames: tuple[str, ...], quick: bool = True) -> Callable[[Callable[..., Any]], Compiled]:
    """A decorator like `jax.jit`.

    Not `quick`: for programs whose time goes into elementwise functions, which fusion makes twice as fast.
    """
    return lambda function: Compiled(function, static_argnames, quick)


def _setting(name: str) -> Any:
    """One of JAX's, as it is in this thread."""
    return getattr(jax.config, f"jax_{name}", None)


def _found_or_made(
    shelf: Shelf, jitted: Any, of: tuple[Any, ...], form: tuple[Any, ...], static: Mapping[str, Any], given: Mapping[str, Any]
) -> Any:
    try:
        name = "\n".join([_named(of), _named(form[0]), *map(str, form[2:])])
    except _NotOurs:
        return jitted.lower(**static, **given).compile()
    found = shelf.load(name)
    if found is None:
        found = jitted.lower(**static, **given).compile()
        shelf.save(name, found)
    return found


class _NotOurs(Exception):
    """A part of a program is not known by its name: a user's own kernel, which may change, or a function that closes over others."""


def _named(value: Any) -> str:
    """A name of a static argument that means the same in every process."""
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    if type(value) is tuple:
        return f"({', '.join(map(_named, value))})"
    if isinstance(value, partial):
        return f"partial({_named(value.func)}, {_named(value.args)}, {_named(tuple(sorted(value.keywords.items())))})"
    if is_dataclass(value) and not isinstance(value, type):
        return f"{_named(type(value))}({', '.join(f'{f.name}={_named(getattr(value, f.name))}' for f in fields(value))})"
    module, name = getmodule(value), getattr(value, "__qualname__", "")
    if module is None or module.__name__.split(".")[0] not in OURS or not name:
        raise _NotOurs
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if value is not found and value is not unwrap(found):  # "<locals>" and "<lambda>" are never found
        raise _NotOurs
    return f"{module.__name__}.{name}"
