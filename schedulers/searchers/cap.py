"""Which observations a surrogate sees when it may see only so many: Syne Tune's `max_size_data_for_model` (algorithms 3.12)."""

import numpy as np

BEST_SHARE = 4  # a quarter of what is kept, where all observations are at one resource


def cap(trials: np.ndarray, resources: np.ndarray, metrics: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """[n] which observations are kept, `most` at most.

    Those of trials that came furthest first; of trials that came as far as each other, those at the highest resources; at random where
    some of one level must go. With one resource only: the best quarter, the others at random (the reference's rule for schedulers that know
    one resource, here for data that do). metrics are minimised.
    """
    if len(resources) <= most:
        return np.ones(len(resources), bool)
    chance = rng.random(len(resources))
    if np.all(resources == resources[0]):
        worse = np.argsort(np.argsort(metrics, kind="stable")) >= most // BEST_SHARE
        order = np.lexsort((chance, worse))
    else:
        reached = np.zeros(trials.max() + 1, int)
        np.maximum.at(reached, trials, resources)
        order = np.lexsort((chance, -resources, -reached[trials]))
    kept = np.zeros(len(resources), bool)
    kept[order[:most]] = True
    return kept
