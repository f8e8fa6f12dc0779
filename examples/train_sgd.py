"""A linear classifier of the digits, as a script that can be stopped after any epoch and go on from its checkpoint."""

import pickle
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split


def train(config, r_from, r_to, checkpoint_dir):
    x_train, x_valid, y_train, y_valid = train_test_split(*load_digits(return_X_y=True), random_state=0)
    model, checkpoint = SGDClassifier(learning_rate="adaptive", random_state=0, **config), Path(checkpoint_dir, "model.pkl")
    if r_from > 0:
        model = pickle.loads(checkpoint.read_bytes())
    for epoch in range(r_from + 1, r_to + 1):
        model.partial_fit(x_train / 16, y_train, classes=np.arange(10))
        checkpoint.with_suffix(".part").write_bytes(pickle.dumps(model))
        checkpoint.with_suffix(".part").replace(checkpoint)  # whole or not at all
        yield epoch, 1 - model.score(x_valid / 16, y_valid)
