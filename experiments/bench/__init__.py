"""Measurements of the parts: `python -m experiments.bench NAME`, one module each."""
