"""Tests run with the environment of our own processes: their flags, and the user's compilation cache."""

from experiments.runtime import prepare_environment

prepare_environment()
