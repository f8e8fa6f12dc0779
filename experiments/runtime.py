"""The environment that a process of ours needs before it imports JAX."""

import ctypes
import gc
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

SURROGATE_DEVICES = ("cpu", "gpu")
TRIAL_PLATFORMS = "MFGP_TRIAL_PLATFORMS"
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h
KEPT_BYTES = 2**30
MAPPINGS = Path("/proc/self/maps")
SCHEDULER_FLAG = "--xla_cpu_enable_concurrency_optimized_scheduler"
FUSION_FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def machine() -> dict[str, object]:
    """What the bits of a study depend on besides its settings and versions: the processor, and how many threads compute how."""
    info = Path("/proc/cpuinfo")
    models = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    )
    names = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "XLA_FLAGS")
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": {name: os.environ.get(name, "") for name in names},
    }


def cache_dir() -> Path:
    """Where downloads and compiled programs are kept: $MFGP_CACHE_DIR, else the user's cache folder (never a world-writable one)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MFGP_CACHE_DIR") or Path(base) / "mfgp")


def prepare_environment(env: dict[str, str] | None = None) -> None:
    """Set the XLA flags and the persistent compilation cache in `env` (default: this process), before JAX is imported.

    jax 0.10 on the CPU hangs for ever on programs that batch LAPACK calls unless its concurrency-optimised scheduler is off; later
    versions do not hang, so the flag is set for older ones only. Retry without it when Python 3.11 is no longer supported. jax 0.10.2 and
    0.11 compute some fused operations wrongly (`mfgp.compiler.SAFE`); the flag is experimental, so later versions may not know it.
    """
    target = os.environ if env is None else env
    flags = target.get("XLA_FLAGS", "")
    major, minor = (int(part) for part in version("jax").split(".")[:2])
    wanted = {SCHEDULER_FLAG: "false"} if (major, minor) < (0, 11) else {}
    wanted |= {FUSION_FLAG: "individual_dot"} if (major, minor) < (0, 12) else {}
    missing = [f"{flag}={value}" for flag, value in wanted.items() if flag not in flags]
    target["XLA_FLAGS"] = " ".join([flags, *missing]).strip()
    # XLA calls OpenBLAS from its own threads; OpenBLAS' threads on top spin on busy cores (a fit of 0.2 s took 24 s).
    target.setdefault("OPENBLAS_NUM_THREADS", "1")
    target.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_dir() / "xla"))
    # The default threshold of one second would leave out most of our programs.
    target.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def keep_freed_memory() -> None:
    """Let this process keep memory that it has freed, up to its peak, where its C library is glibc; elsewhere nothing happens.

    glibc gives large arrays back to the system at once, and gets them back page by page: at a thousand observations that is a quarter of
    the time of a fit's evaluation (`experiments.bench memory`). One arena, since those of other threads are given back all the same;
    KEPT_BYTES bounds only what is free at the heap's end. For processes that compile few programs.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for setting, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, KEPT_BYTES)):
            mallopt(setting, value)


def keep_accelerator_for_trials() -> None:
    """Put the surrogate of this process on the CPU; what the user said about JAX's platform is kept for the trials."""
    os.environ.setdefault(TRIAL_PLATFORMS, os.environ.get("JAX_PLATFORMS", ""))
    os.environ["JAX_PLATFORMS"] = "cpu"


def place_surrogate(device: str) -> None:
    """Let this process, whose JAX has not computed anything yet, compute on `device`: the cpu, which it does anyway, or the first gpu."""
    if device not in SURROGATE_DEVICES:
        raise ValueError(f"surrogate_device={device} is unknown; valid are {', '.join(SURROGATE_DEVICES)} (a TPU has no float64)")
    if device == "cpu":
        return
    import jax

    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else it takes most of the memory, and trials may share the device
    before = jax.config.values["jax_platforms"]
    jax.config.update("jax_platforms", "")
    try:
        gpus = jax.devices("gpu")
    except RuntimeError as error:
        jax.config.update("jax_platforms", before)
        raise ValueError(
            f"surrogate_device=gpu: JAX finds no GPU on this machine ({' '.join(str(error).split())}); take cpu, which is the default, or "
            "install JAX for your GPU (make DEVICE=cuda run)"
        ) from error
    jax.config.update("jax_default_device", gpus[0])


def trial_environment() -> dict[str, str]:
    """The environment of a worker: JAX on the user's platform, and no worker takes a whole GPU's memory at its start."""
    env = dict(os.environ)
    platforms = env.pop(TRIAL_PLATFORMS, env.get("JAX_PLATFORMS", ""))
    env.pop("JAX_PLATFORMS", None)
    if platforms:
        env["JAX_PLATFORMS"] = platforms
    env.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return env


def collect_rarely() -> None:
    """For simulations: a study makes millions of objects that live as long as it does, and walking over them all the time is wasted.

    At a million jobs the garbage collector's defaults make a job half as dear again as at the beginning; so it stays the same.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def limit_mappings(beyond: int = 35_000) -> None:
    """Forget the programs of jitted functions if this process has more than `beyond` memory mappings.

    Linux allows a process 65,530 mappings, every program takes hundreds, and XLA aborts when there are no more: the default leaves a study
    some 50 programs. For processes that go from one work to the next, between the two.
    """
    if MAPPINGS.exists() and len(MAPPINGS.read_bytes().splitlines()) > beyond:
        from mfgp.compiler import forget_programs

        forget_programs()
