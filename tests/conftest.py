"""Tests run on the CPU, with a compilation cache of their own session and the flags our own processes use."""

from experiments.runtime import prepare_environment

prepare_environment()
