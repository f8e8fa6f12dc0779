"""One training script twice: `sleeping` takes its seconds, `saying` only says what they are."""

import os
import time
from pathlib import Path


def saying(config, r_from, r_to, checkpoint_dir):
    seconds = 0.3 + 1.2 * config["x"]
    for r in range(r_from + 1, r_to + 1):
        yield r, (config["x"] - 0.3) ** 2 + 1 / r, seconds


def sleeping(config, r_from, r_to, checkpoint_dir):
    time.sleep(max(0.0, float(os.environ["START"]) - time.time()))  # the workers' processes do not start at the same moment
    for r, metric, seconds in saying(config, r_from, r_to, checkpoint_dir):
        time.sleep(seconds)
        Path(checkpoint_dir, "state").write_text(str(r))  # without one a promoted trial would start from scratch
        yield r, metric
