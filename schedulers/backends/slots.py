"""Which device each worker sees: from the settings and what the machine shows to one environment per worker.

Workers are placed by variables that are set before anything is imported in them (CUDA_VISIBLE_DEVICES, the TPU's visible chips), never
by choosing among `jax.devices()`: a process that sees a device also takes memory on it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["cuda", "tpu", "none"]
MEMORY_SHARE = 0.9  # of a device, divided among its workers; the rest is for their CUDA contexts
# jaxlib refuses to start when both are set; the second is the older name.
MEMORY_FRACTION = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")


class Visible(NamedTuple):
    """What a process of ours may use: the i-th device is called names[i]; `ids` are further names it may be asked for by."""

    kind: Kind
    names: tuple[str, ...]
    ids: tuple[str, ...] = ()
    source: str = "this machine"


NOTHING = Visible("none", ())


def plan(
    num_workers: int | None,
    devices: Sequence[int | str] | None,
    workers_per_device: int,
    environment: Mapping[str, str],
    visible: Visible | None = None,
) -> list[dict[str, str]]:
    """The variables that each worker gets on top of `environment`; as many workers as fit if `num_workers` is None.

    devices: indices into what is visible, or UUIDs (GPU-..., MIG-...); None: all that the installed JAX can use, [] : the CPU only.
    Raises ValueError with one sentence where these do not fit what is `visible` (None: what `probe` finds).
    """
    if isinstance(workers_per_device, bool) or not isinstance(workers_per_device, int) or workers_per_device < 1:
        raise ValueError(f"backend.workers_per_device={workers_per_device} must be a whole number of at least 1")
    visible = probe(environment, any_program=bool(devices)) if visible is None else visible
    names = visible.names if devices is None else _chosen(devices, visible)
    if not names:
        return [{} if devices is None else dict(CUDA_VISIBLE_DEVICES="", JAX_PLATFORMS="cpu") for _ in range(num_workers or num_cores())]
    if visible.kind == "tpu" and workers_per_device > 1:
        raise ValueError(f"backend.workers_per_device={workers_per_device}: a TPU chip serves one process only, so it must be 1")
    room = len(names) * workers_per_device
    num_workers = room if num_workers is None else num_workers
    if num_workers > room:
        raise ValueError(
            f"workers={num_workers} is more than {len(names)} {'device' if len(names) == 1 else 'devices'} ({', '.join(names)}) x "
            f"backend.workers_per_device={workers_per_device}: ask for at most {room} workers, let more share a device, or train on the "
            "CPU with backend.devices=[]"
        )
    # Worker after worker to the next device, so that few workers spread over all of them.
    return [slot_environment(visible.kind, names[i % len(names)], workers_per_device, environment) for i in range(num_workers)]


def slot_environment(kind: Kind, name: str, workers_per_device: int, environment: Mapping[str, str]) -> dict[str, str]:
    """What one worker needs on top of `environment` to see the device `name` and nothing else, and to leave its neighbours their memory."""
    if kind == "tpu":
        one = "1,1,1"
        return {"TPU_VISIBLE_CHIPS": name, "TPU_VISIBLE_DEVICES": name, "TPU_CHIPS_PER_PROCESS_BOUNDS": one, "TPU_PROCESS_BOUNDS": one}
    slot = {"CUDA_VISIBLE_DEVICES": name}
    if "CUDA_VISIBLE_DEVICES" not in environment:
        slot["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi counts; what the caller made visible keeps the caller's order
    return slot | memory_fraction(1 / workers_per_device, environment)


def memory_fraction(share: float, environment: Mapping[str, str]) -> dict[str, str]:
    """The limit of a JAX process that has this share of a device to itself; none for a whole device, or where the user has set one."""
    if share >= 1 or any(environment.get(name) for name in MEMORY_FRACTION):
        return {}
    return {MEMORY_FRACTION[0]: f"{int(1000 * MEMORY_SHARE * share) / 1000:g}"}


def probe(environment: Mapping[str, str], any_program: bool = False) -> Visible:
    """What a process with this environment could use, found without importing JAX or touching a device.

    What the caller has made visible (CUDA_VISIBLE_DEVICES, TPU_VISIBLE_CHIPS) is taken at its word. any_program: also GPUs that the
    installed JAX has no plugin for, which other libraries may use.
    """
    platforms = environment.get("JAX_PLATFORMS", "").split(",")
    if "cpu" in platforms[:1] and not any_program:
        return NOTHING
    if any_program or _can_use("cuda", platforms):
        found = _cuda(environment)
        if found.names:
            return found
    if any_program or _can_use("tpu", platforms):
        return _tpu(environment)
    return NOTHING


def parse_listing(text: str) -> Visible:
    """The output of `nvidia-smi -L`: a line per GPU, and an indented one for each of its MIG instances, which end in their UUID."""
    lines = [line for line in text.splitlines() if "(UUID: " in line]
    ids = tuple(line.rpartition("(UUID: ")[2].rstrip(") ") for line in lines)
    num_gpus = sum(line.startswith("GPU ") for line in lines)
    return Visible("cuda", tuple(map(str, range(num_gpus))), ids) if num_gpus else NOTHING


def _chosen(devices: Sequence[int | str], visible: Visible) -> tuple[str, ...]:
    said = f"backend.devices=[{', '.join(map(str, devices))}]"
    if devices and not visible.names:
        raise ValueError(f"{said}: this machine shows no GPU or TPU; leave it null, or [] to train on the CPU")
    names = tuple(_find(device, visible, said) for device in devices)
    if len(set(names)) < len(names):
        raise ValueError(f"{said} names a device twice: for several workers on each device use backend.workers_per_device")
    return names


def _find(device: int | str, visible: Visible, said: str) -> str:
    count, text = len(visible.names), str(device)
    if text.isdecimal() and int(text) < count:
        return visible.names[int(text)]
    known = [name for name in (*visible.names, *visible.ids) if not name.isdecimal()]
    matches = [name for name in known if name.startswith(text)] if text.startswith(("GPU-", "MIG-")) else []
    if len(matches) == 1:  # abbreviated UUIDs are good as long as they are unique, as in CUDA
        return matches[0]
    indices = "only device 0" if count == 1 else f"devices 0 to {count - 1}"
    named = f" ({', '.join(known)})" if known else ""
    problem = f"{text} stands for several devices" if matches else f"there is no device {text}"
    raise ValueError(f"{said}: {problem}; {visible.source} shows {indices}{named}")


def _cuda(environment: Mapping[str, str]) -> Visible:
    name = "CUDA_VISIBLE_DEVICES"
    if name in environment:
        entries: list[str] = []
        for entry in environment[name].split(","):
            entry = entry.strip()
            if not entry or entry == "-1":  # CUDA ignores what follows an invalid entry
                break
            entries.append(entry)
        return Visible("cuda", tuple(entries), source=f"{name}={environment[name]}") if entries else NOTHING
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return NOTHING
    return parse_listing(listing.stdout)


def _tpu(environment: Mapping[str, str]) -> Visible:
    for name in ("TPU_VISIBLE_CHIPS", "TPU_VISIBLE_DEVICES"):
        if environment.get(name):
            return Visible("tpu", tuple(entry.strip() for entry in environment[name].split(",")), source=f"{name}={environment[name]}")
    chips = len(list(Path("/dev").glob("accel[0-9]*"))) or len(list(Path("/dev/vfio").glob("[0-9]*")))
    # A chip appears as an accel device or, on newer hosts, as a vfio group, which other passed-through devices have too.
    is_tpu = chips and importlib.util.find_spec("libtpu") is not None
    return Visible("tpu", tuple(map(str, range(chips)))) if is_tpu else NOTHING


def _can_use(kind: Literal["cuda", "tpu"], platforms: Sequence[str]) -> bool:
    """Whether the installed JAX would take such a device by itself."""
    if any(platforms) and not {kind, "gpu" if kind == "cuda" else kind} & set(platforms):
        return False
    if kind == "tpu":
        return importlib.util.find_spec("libtpu") is not None
    plugins = importlib.util.find_spec("jax_plugins")
    folders = plugins.submodule_search_locations if plugins is not None else None
    return any("cuda" in path.name for folder in folders or () for path in Path(folder).glob("*"))


def num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
