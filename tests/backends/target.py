"""A training script that costs nothing: KILOBYTES of checkpoint, and a moment per resource."""

import os
import time
from pathlib import Path


def train(config, r_from, r_to, checkpoint_dir):
    saved = Path(checkpoint_dir, "state")
    start = int(saved.read_text().split()[0]) if r_from else 0
    assert start >= r_from
    size = 1000 * int(os.environ.get("KILOBYTES", "0"))
    for r in range(r_from + 1, r_to + 1):
        time.sleep(float(os.environ.get("SECONDS", "0")))
        if r > start:
            saved.with_suffix(".part").write_text(f"{r} " + "x" * size)
            saved.with_suffix(".part").replace(saved)
        yield r, (config["eta0"] / 10 - 0.3) ** 2 + 1 / r
