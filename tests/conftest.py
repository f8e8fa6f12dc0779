"""Tests run with the environment of our own processes: their flags, and the user's compilation cache."""

import os

from experiments.runtime import prepare_environment

prepare_environment(os.environ)  # given, so that freed memory is not kept: hundreds of programs are compiled here
