"""The fitted surrogate as a searcher holds it, for acquisitions other than the plain one of `mfgp.suggest`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mfgp.query import Belief, Known, believe, log_expected_improvement, targets

XI = 0.01  # least improvement that counts, in standard deviations of the targets at r_acq; as in `mfgp.suggest`


@dataclass(frozen=True)
class Model:
    """One suggestion's surrogate and data; rows are encoded configurations, resources are u(r) = (r - 1/2) / r_max."""

    surrogate: Any
    hyperparameters: Mapping[str, Any]
    seed: tuple[int, int]
    known: Known
    r_acq: float
    num_fantasies: int

    def believe(self, rows: np.ndarray, r: np.ndarray | float, used: np.ndarray | None = None) -> Belief:
        at = np.broadcast_to(np.asarray(r, float), len(rows))
        return believe(self.surrogate, self.hyperparameters, self.seed, self.known, rows, at, used=used, num_fantasies=self.num_fantasies)

    def log_improvement(self, rows: np.ndarray) -> np.ndarray:
        """[n] what `mfgp.suggest` maximises: log expected improvement at r_acq on the least posterior mean of what is known there."""
        seen = self.at_acquisition()
        belief = self.believe(np.concatenate([seen, rows]), self.r_acq)
        best = belief.mean[:, : len(seen)].min(1, keepdims=True)
        return log_expected_improvement(Belief(belief.mean[:, len(seen) :], belief.std[len(seen) :]), best, self.xi())

    def at_acquisition(self) -> np.ndarray:
        """[k, D] the configurations observed or pending at r_acq; all of them if there are none."""
        x, r = np.concatenate([self.known.x, self.known.pending_x]), np.concatenate([self.known.r, self.known.pending_r])
        return x[r == self.r_acq] if np.any(r == self.r_acq) else x

    def xi(self) -> float:
        z = targets(self.surrogate, self.known)[self.known.r == self.r_acq]
        return XI * float(z.std() if len(z) > 1 else 1.0)
