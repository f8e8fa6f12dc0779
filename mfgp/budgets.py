"""Which starts and escapes a refit spends evaluations on, suggestion by suggestion.

A warm start alone follows one local optimum for ever, tens of nats behind a better one (see escape.py). So the second best optimum of the
fit before competes with it, and fresh starts, and escapes start from the best of them. The more rows, the slower the optimum moves and the
dearer evaluations are, so the less often; how restless it is a study shows by itself.
"""

import numpy as np

from mfgp.surrogates import Options

# Up to so many rows: at every how many-th refit, in the mean, come fresh starts, and escapes of each kind of escape.KINDS; beyond CHEAP
# rows after PATIENCE - 1 fruitless fits.
PERIODS = {128: (1, 1, 1, 1, 1), 320: (3, 2, 6, 3, 2)}
PERIODS_BEYOND = (16, 8, 16, 8, 8)
# There they are multiplied by (1 + fruitless fits in a row) / PATIENCE, within SLACK: the longer nothing was found, the less likely a gain
# is. Fits up to CHEAP rows count, too, so that a calm study comes to dearer ones at the end of its slack.
CHEAP, PATIENCE, SLACK = min(PERIODS), 4.0, (0.5, 3.0)
FRESH = {64: 4, 128: 2}  # times options.warm_restarts: fresh starts of a fit with up to so many rows, the initial values and random ones
# From so many bandwidths on the one fresh start with more rows is the initial values, else random (see docs/surrogates.md), and switching
# on, by far the best escape then (see escape.py), comes twice as often.
MANY_BANDWIDTHS = 16
GOLDEN = 0.5 * (5**0.5 - 1)  # multiples of it are spread evenly, also those of every tenth trial, where only these are refitted


def allot(options: Options, trial: int, rows: int, bandwidths: int, warm: bool, runner_up: bool, refit: bool, fruitless: int) -> np.ndarray:
    """Evaluations per start: the warm one, its runner-up, the initial values, random ones; then per escape.

    Without a warm start nothing is left out. With one, its runner-up is tried whenever anything else is. fruitless: the fits in a row
    that tried more than the warm start and gained nothing by it.
    """
    fresh, switching_on, *others = next((periods for most, periods in PERIODS.items() if rows <= most), PERIODS_BEYOND)
    many = bandwidths >= MANY_BANDWIDTHS
    escapes = [max(1, switching_on // 2) if many else switching_on, *others]
    slack = float(np.clip((1 + fruitless) / PATIENCE, *SLACK)) if rows > CHEAP else 1.0
    position = trial * GOLDEN % 1
    num_fresh = next((num for most, num in FRESH.items() if rows <= most), 1)
    starting = np.zeros(2 + max(options.restarts, max(FRESH.values()) * options.warm_restarts), bool)
    if not warm:
        starting[2 : 2 + options.restarts] = True
        escaping = np.ones(options.escapes, bool)
    else:
        first = 2 if num_fresh > 1 or many else 3
        starting[first : first + num_fresh * options.warm_restarts] = _due(position, slack * fresh)
        shift = 1 / (1 + len(escapes))  # lest all be due in one fit
        escaping = np.array([_due(position + (1 + i) * shift, slack * escapes[i % len(escapes)]) for i in range(options.escapes)], bool)
        starting[:2] = True, runner_up and (starting.any() or escaping.any())
    return np.where(np.concatenate([starting, escaping]) & refit, options.max_evaluations, 0).astype(np.int32)


def _due(position: float, period: float) -> bool:
    return position % 1 * period < 1
