"""Which starts and escapes a refit spends evaluations on, suggestion by suggestion.

A warm start alone follows one local optimum for ever, tens of nats behind a better one (see escape.py). So fresh starts compete with it, in
turn the initial values and random ones, and escapes start from the best of them. The more rows, the slower the optimum moves and the dearer
evaluations are, so the less often.
"""

import numpy as np

from mfgp.surrogates import Options

# Up to so many rows: at every how many-th suggestion, in the mean, come fresh starts, and escapes of each kind of escape.KINDS.
PERIODS = {128: (1, 1, 1, 1, 1), 320: (4, 2, 6, 3, 1)}
PERIODS_BEYOND = (16, 8, 16, 8, 8)
CHEAP_ROWS = 128  # up to which fresh starts come in twos: the initial values and a random one
MANY_COORDINATES = 16  # from which switching on comes twice as often, being by far the best escape (see escape.py)
GOLDEN = 0.5 * (5**0.5 - 1)  # multiples of it are spread evenly, also those of every tenth trial, where only these are refitted


def allot(options: Options, trial: int, rows: int, coordinates: int, warm: bool, refit: bool) -> np.ndarray:
    """Evaluations per start: the warm one, the initial values, random ones; then per escape. Without a warm start nothing is left out."""
    fresh, switching_on, *others = next((periods for most, periods in PERIODS.items() if rows <= most), PERIODS_BEYOND)
    escapes = [max(1, switching_on // 2) if coordinates >= MANY_COORDINATES else switching_on, *others]
    position = trial * GOLDEN % 2
    starting = np.zeros(2 + max(options.restarts - 1, options.warm_restarts), bool)
    if not warm:
        starting[1 : 1 + options.restarts] = True
        escaping = np.ones(options.escapes, bool)
    else:
        twice = rows <= CHEAP_ROWS
        first = 1 if twice else 1 + int(position)
        starting[0] = True
        starting[first : first + (1 + twice) * options.warm_restarts] = _due(position, fresh)
        shift = 1 / (1 + len(escapes))  # lest all be due in one fit
        escaping = np.array([_due(position + (1 + i) * shift, escapes[i % len(escapes)]) for i in range(options.escapes)], bool)
    return np.where(np.concatenate([starting, escaping]) & refit, options.max_evaluations, 0).astype(np.int32)


def _due(position: float, period: int) -> bool:
    return position % 1 * period < 1
