"""Schedulers, searchers and backends: deterministic state machines around `ask` and `tell`.

Imports nothing, so that a spawned worker does not load JAX.
"""
