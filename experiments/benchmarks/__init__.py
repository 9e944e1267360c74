"""Measurements against references that live here too: `python experiments/benchmark.py NAME`."""
