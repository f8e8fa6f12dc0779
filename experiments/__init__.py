"""Hydra entry points, benchmarks, records and figures: the outermost layer."""
